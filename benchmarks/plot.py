"""Cost against the number of patches, as a figure."""

from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.stages import STAGES, Stage


def draw_costs(stages: Sequence[Stage], title: str) -> Figure:
    """Seconds an image against patches, both logarithmic, a colour for each stage; plain versions are dashed.

    Of several batch sizes the fastest counts, of several alphas the one measured at most sizes (the least of those).
    """
    sizes = {alpha: {row.patches for row in stages if row.alpha == alpha} for alpha in {row.alpha for row in stages}}
    alpha = min(sizes, key=lambda each: (-len(sizes[each]), each))
    sides = sorted(sizes[alpha])
    with rc_context({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(8.5, 5), layout="constrained")
        axes = figure.subplots()
        for stage in STAGES:
            rows = [row for row in stages if row.stage == stage and row.alpha == alpha]
            ours = [(row.patches, 1 / row.images_per_s) for row in rows]
            plain = [(row.patches, row.plain_s) for row in rows if row.plain_s is not None]
            # Of the pairs of one key a dict keeps the last: the fastest.
            ours_s, plain_s = (dict(sorted(points, reverse=True)) for points in (ours, plain))
            (line,) = axes.plot(list(ours_s), list(ours_s.values()), "o-", label=stage)
            axes.plot(list(plain_s), list(plain_s.values()), "s--", color=line.get_color(), alpha=0.6, markersize=4)
        axes.plot([], [], "s--", color="grey", markersize=4, label="plain version")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(sides, [f"{side}×{side}" for side in sides])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("patches")
        axes.set_ylabel("seconds an image")
        axes.grid(alpha=0.25)
        axes.set_title(f"{title}, alpha {alpha:g}", loc="left", fontsize=11)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False)
    return figure
