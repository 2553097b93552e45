from dataclasses import replace

import pytest
from conftest import DATA

from diffcut_bench.reproduction import MEASURES, Measured, Verdict, judge
from diffcut_bench.store import Failure, Result

MIOU = MEASURES["miou"]
RESULT = Result.from_json((DATA / "result_v1_before_identity.json").read_text())


@pytest.mark.parametrize(
    ("published", "word"),
    [
        (65.0, "reproduced"),
        (62.5, "reproduced"),  # the interval's end less the tolerance
        (62.4, "differs"),
        (67.5, "reproduced"),
        (67.6, "differs"),
    ],
)
def test_reproduced_means_within_the_interval_widened_by_half_a_point(published, word):
    assert judge(published, Measured(65.0, (63.0, 67.0)), MIOU) == Verdict(word)


def test_another_cell_than_the_published_one_is_limited_however_well_it_agrees():
    measured = Measured(65.0, (63.0, 67.0), ("15 of 1449 images", "backbone=colour"))
    assert str(judge(65.0, measured, MIOU)) == "limited: 15 of 1449 images; backbone=colour"


def test_a_speed_is_reproduced_when_it_is_reached():
    assert judge(1.11, Measured(1.2), MEASURES["images_per_s"]).word == "reproduced"
    assert judge(1.11, Measured(1.0), MEASURES["images_per_s"]).word == "differs"


def test_a_result_gives_percent_and_says_what_it_lacks():
    whole = replace(RESULT, limited=False)
    measured = Measured.of(whole)
    assert measured.value == pytest.approx(100 * RESULT.metrics.miou)
    assert measured.interval == pytest.approx([100 * end for end in RESULT.metrics.miou_ci95])
    assert measured.limits == ()
    failed = replace(whole, failures=[Failure("a", "broken")])
    assert Measured.of(failed, ["refiner=none"]).limits == ("1 images failed", "refiner=none")
    assert Measured.of(RESULT).limits == ("6 of 11 images",)


def test_values_are_printed_with_the_measures_digits_and_a_minus_sign():
    assert MIOU.text(-30.55, signed=True) == "−30.6"
    assert MIOU.text(0.04, signed=True) == "+0.0"
    assert MIOU.text(61.65) == "61.7", "halves are rounded up, as people do"
    assert (MIOU.plain(-30.5512), MIOU.plain(None)) == ("-30.551", "")
    assert MIOU.text(None) == MIOU.text(float("nan")) == "–"
    assert MEASURES["auc"].text(0.83) == "0.830"
