"""The two figures: ROC curves of several backbones, and similarity maps of one marked patch."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from diffcut_bench.reporting import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours (2008), which the colour-blind can tell apart; their yellow is too pale on white.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
_DASHES = ("-", "--", "-.", ":")
_MARK = "#FF2D2D"


@dataclass(frozen=True)
class Curve:
    """A backbone's ROC curve: its points [points, 2] as (false, true) positive rates, AUC and interval, if told."""

    name: str
    points: NDArray[np.float64]
    auc: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Picture:
    """An image of the heat-map figure.

    Attributes:
        title: what to call it.
        pixels: RGB [height, width, 3] in [0, 1].
        region: patches of the marked class [rows, cols], to outline.
    """

    title: str
    pixels: NDArray[np.float32]
    region: NDArray[np.bool_]


def draw_roc(curves: Sequence[Curve], title: str, notes: Sequence[str]) -> "Figure":
    """ROC curves in one square, the chance line dashed, AUC and interval in the legend.

    Args:
        curves: of each backbone, in the order of the legend.
        title: of the figure.
        notes: options and counts, in small print below.
    """
    lines = [line for text in notes for line in textwrap.wrap(text, 106)]
    width, height = 5.6, 5.8 + 0.13 * len(lines)  # inches; the axes are a square of 4.8
    figure = new_figure(width, height)
    axes = figure.add_axes((0.62 / width, 1 - 5.15 / height, 4.8 / width, 4.8 / height))
    for number, curve in enumerate(curves):
        axes.plot(
            *curve.points.T,
            color=_COLOURS[number % len(_COLOURS)],
            linestyle=_DASHES[number // len(_COLOURS) % len(_DASHES)],
            linewidth=2,
            label=_legend(curve),
            zorder=3 + len(curves) - number,
        )
    axes.plot([0, 1], [0, 1], color="0.55", linestyle=(0, (4, 4)), linewidth=1.2, label="chance: 0.500", zorder=2)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set(xticks=np.linspace(0, 1, 6), yticks=np.linspace(0, 1, 6))
    axes.set_xlabel("false positive rate (pairs of different classes)")
    axes.set_ylabel("true positive rate (pairs of one class)")
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", parse_math=False)
    axes.grid(color="0.9", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    legend = axes.legend(loc="lower right", fontsize=9, title="AUC  [95 % interval]", title_fontsize=9, framealpha=0.95)
    for text in legend.get_texts():
        text.set_parse_math(False)
    small = figure.text(0.12 / width, 0.1 / height, "\n".join(lines), fontsize=6.5, color="0.4", va="bottom")
    small.set(linespacing=1.35, parse_math=False)
    return figure


def draw_heatmaps(
    rows: Sequence[tuple[str, NDArray[np.float32], NDArray[np.float32]]],
    first: Picture,
    second: Picture,
    mark: tuple[int, int],
    what: str,
) -> "Figure":
    """A row a backbone: the image with the marked patch, its similarity map, the other image, its map.

    One colour scale for all maps. The outline is the annotation of the marked class.

    Args:
        rows: name of the backbone, similarities [rows, cols] in the first and in the second image.
        first, second: the images.
        mark: row and column of the patch on the first image's grid.
        what: class of the marked patch.
    """
    low = min(float(values.min()) for _, *maps in rows for values in maps)
    ratios = [picture.pixels.shape[1] / picture.pixels.shape[0] for picture in (first, first, second, second)]
    figure = new_figure(2.35 * sum(ratios) + 1.1, 2.33 * len(rows) + 0.3)
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02)
    grid = figure.subplots(len(rows), 4, squeeze=False, width_ratios=ratios)
    drawn = None
    for row, (name, *maps) in zip(grid, rows, strict=True):
        row[0].set_ylabel(name, fontsize=10, fontweight="bold", parse_math=False)
        for picture, values, left, right in zip((first, second), maps, row[::2], row[1::2], strict=True):
            box = (0, values.shape[1], values.shape[0], 0)  # patches as units, row 0 on top
            left.imshow(picture.pixels.clip(0, 1), extent=box, aspect="equal")
            drawn = right.imshow(
                values, extent=box, aspect="equal", cmap="magma", vmin=low, vmax=1, interpolation="nearest"
            )
            for axes in (left, right):
                _outline(axes, picture.region)
                axes.set(xticks=[], yticks=[], xlim=box[:2], ylim=box[2:])
        for axes in row[:2]:
            _circle(axes, mark)
    titles = [f"{first.title}, patch marked", f"similarity in {first.title}"]
    titles += [second.title, f"similarity in {second.title}"]
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=9, parse_math=False)
    assert drawn is not None
    bar = figure.colorbar(drawn, ax=grid.ravel().tolist(), shrink=0.9, aspect=30, pad=0.01)
    bar.set_label(f"cosine with the marked patch ({what})", fontsize=9, parse_math=False)
    return figure


def _legend(curve: Curve) -> str:
    ends = "" if curve.interval is None else "  [{:.3f}, {:.3f}]".format(*curve.interval)
    return f"{curve.name}: {curve.auc:.3f}{ends}"


def _circle(axes: "Axes", mark: tuple[int, int]) -> None:
    centre = (mark[1] + 0.5, mark[0] + 0.5)
    axes.plot(*centre, "o", markersize=9, markerfacecolor="none", markeredgecolor="white", markeredgewidth=3)
    axes.plot(*centre, "o", markersize=9, markerfacecolor="none", markeredgecolor=_MARK, markeredgewidth=1.6)


def _outline(axes: "Axes", region: NDArray[np.bool_]) -> None:
    """The edges between patches of the region and others, and those at the image's border."""
    padded = np.pad(region, 1)
    across, down = np.nonzero(padded[:, 1:] != padded[:, :-1]), np.nonzero(padded[1:] != padded[:-1])
    for width, colour in ((2.2, "black"), (1.0, "white")):
        axes.vlines(across[1], across[0] - 1, across[0], colors=colour, linewidth=width)
        axes.hlines(down[0], down[1] - 1, down[1], colors=colour, linewidth=width)
