"""Cost against the number of patches, as a figure."""

from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.stages import STAGES, Stage

_LABELS = {
    "affinity": "affinity",
    "cut": "recursive cut",
    "labels": "labels of 20 taus",
    "concepts": "concepts",
    "matching": "background, matching",
    "pamr": "PAMR",
}


def draw_costs(stages: Sequence[Stage], title: str) -> Figure:
    """Seconds an image against patches, both logarithmic, a colour for each stage; plain versions are dashed.

    Of several batch sizes the fastest counts, of several alphas the one measured at most sizes (the least of those).
    """
    sizes = {alpha: {row.patches for row in stages if row.alpha == alpha} for alpha in {row.alpha for row in stages}}
    alpha = min(sizes, key=lambda each: (-len(sizes[each]), each))
    chosen = [row for row in stages if row.alpha == alpha]
    with rc_context({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(8.5, 5), layout="constrained")
        axes = figure.subplots()
        for number, stage in enumerate(STAGES):
            ours: dict[int, float] = {}
            plain: dict[int, float] = {}
            for row in chosen:
                if row.stage == stage:
                    nodes = row.patches**2
                    ours[nodes] = min(1 / row.images_per_s, ours.get(nodes, float("inf")))
                    if row.plain_s is not None:
                        plain[nodes] = min(row.plain_s, plain.get(nodes, float("inf")))
            colour = f"C{number}"
            axes.plot(*_line(ours), "o-", color=colour, label=_LABELS[stage])
            if plain:
                axes.plot(*_line(plain), "s--", color=colour, alpha=0.6, markersize=4)
        axes.plot([], [], "s--", color="grey", markersize=4, label="plain version")
        axes.set_xscale("log")
        axes.set_yscale("log")
        ticks = sorted({row.patches for row in chosen})
        axes.set_xticks([side**2 for side in ticks], [f"{side}×{side}" for side in ticks])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("patches")
        axes.set_ylabel("seconds an image")
        axes.grid(alpha=0.25)
        axes.set_title(f"{title}, alpha {alpha:g}", loc="left", fontsize=11)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False)
    return figure


def _line(points: dict[int, float]) -> tuple[list[int], list[float]]:
    return sorted(points), [points[nodes] for nodes in sorted(points)]
