"""Speed against plain textbook versions, floors and rivals, as ratios in one run: ``make bench``. Not in the wheel."""
