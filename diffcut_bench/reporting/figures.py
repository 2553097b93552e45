"""Figures of scores: curves with bands, heat maps, bars of classes; as files, or as an element of a page."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diffcut_bench.escaping import figure_text, one_line
from diffcut_bench.evaluation import Metric
from diffcut_bench.extras import require
from diffcut_bench.store import write_atomically

if TYPE_CHECKING:  # matplotlib is imported where a figure is drawn: few commands draw one, and it is an extra
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Text and axes. Near black in files; a page puts its own text colour in its place.
_INK = "#010203"
# Of Okabe and Ito's colours (2008), which the colour-blind can tell apart, those that white and black both set off.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", _INK)
_DASHES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D", "v")
_WIDTH = 5.6  # inches: at the width of a telephone the text is still read
_TEXT = 10.5  # points
_LEGEND_LETTERS = 58  # that fit side by side


@dataclass(frozen=True)
class Curve:
    """A line of a figure, in the unit it is drawn in."""

    label: str  # in the legend; empty: not there
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()  # ends of each point's 95 % interval, NaN where it has none; empty without intervals
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class Panel:
    """A small drawing beside others of the same abscissa."""

    title: str  # what is drawn, units included
    curves: tuple[Curve, ...]
    bounds: tuple[Curve, ...] = ()


def draw_curves(
    curves: Sequence[Curve],
    x_label: str,
    y_label: str,
    references: Sequence[tuple[str, float]] = (),
    *,
    bounds: Sequence[Curve] = (),
    ticks_at_points: bool = True,
) -> "Figure":
    """Lines with their 95 % intervals as bands; a curve of one point is a marker with whiskers.

    Args:
        curves: in the order of the legend.
        x_label, y_label: of the axes, units included.
        references: label and value of horizontal dashed lines, such as published scores.
        bounds: what scores lie between, such as floor and ceiling: thin lines with grey bands.
        ticks_at_points: the abscissa's ticks stand where points are, if these are few.
    """
    figure, axes = _new_figure(3.7, x_label, y_label)
    _draw_lines(axes, curves, bounds)
    for number, (label, value) in enumerate(references):
        dashes = (0, (6 - 2 * (number % 3), 3))
        axes.axhline(value, color=_INK, linestyle=dashes, linewidth=1.1, label=figure_text(f"{label}: {value:g}"))
    values = sorted({x for curve in curves for x in curve.x})
    if ticks_at_points and 0 < len(values) <= 8:
        axes.set_xticks(values, [f"{value:.12g}" for value in values])
    _add_legend(figure, axes)
    return _settled(figure)


def draw_panels(panels: Sequence[Panel], x_label: str) -> "Figure":
    """Small drawings two in a row, under one legend.

    Args:
        panels: at least one, all with the same curves; in reading order.
        x_label: of their common abscissa, units included.
    """
    rows = -(-len(panels) // 2)
    figure = new_figure(_WIDTH, 0.9 + 1.75 * rows, layout="constrained")
    grid = figure.subplots(rows, 2, sharex=True, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _style(axes)
        axes.set_title(figure_text(panel.title), loc="left", color=_INK, fontsize=_TEXT)
        _draw_lines(axes, panel.curves, panel.bounds)
    if len(panels) % 2:
        grid[-1, 1].set_visible(False)
        grid[rows - 2, 1].tick_params(labelbottom=True)
    figure.supxlabel(figure_text(x_label), color=_INK, fontsize=_TEXT)
    _add_legend(figure, max(grid.flat, key=lambda axes: len(axes.get_legend_handles_labels()[1])))
    return _settled(figure)


def _draw_lines(axes: "Axes", curves: Sequence[Curve], bounds: Sequence[Curve]) -> None:
    """Curves in their colours over bounds in grey, on a light grid."""
    named: set[str] = set()
    for bound in bounds:
        dashes = _DASHES[1] if bound.label == bounds[0].label else _DASHES[3]
        if bound.low and len(bound.x) > 1:
            axes.fill_between(bound.x, bound.low, bound.high, color=_INK, alpha=0.1, linewidth=0)
        elif bound.low:
            axes.vlines(bound.x, bound.low, bound.high, colors=_INK, linewidth=1, alpha=0.5)
        name = "_nolegend_" if bound.label in named else figure_text(bound.label)
        axes.plot(bound.x, bound.y, color=_INK, linestyle=dashes, linewidth=1, alpha=0.7, label=name)
        named.add(bound.label)
    for number, curve in enumerate(curves):
        colour = _COLOURS[number % len(_COLOURS)]
        if curve.low and len(curve.x) > 1:
            axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.16, linewidth=0)
        elif curve.low:
            axes.vlines(curve.x, curve.low, curve.high, colors=colour, linewidth=1.5)
        style, marker = _DASHES[number // len(_COLOURS) % len(_DASHES)], _MARKERS[number % len(_MARKERS)]
        name = figure_text(curve.label) or "_nolegend_"
        axes.plot(curve.x, curve.y, color=colour, linestyle=style, marker=marker, markersize=5, linewidth=2, label=name)
    axes.grid(color=_INK, alpha=0.12, linewidth=0.8)
    axes.set_axisbelow(True)


def _add_legend(figure: "Figure", axes: "Axes") -> None:
    """The names of what is drawn in these axes, above everything."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        columns = max(1, min(len(labels), _LEGEND_LETTERS // (max(map(len, labels)) + 6)))
        look: dict[str, Any] = {"frameon": False, "fontsize": _TEXT - 1, "labelcolor": _INK}
        figure.legend(handles, labels, loc="outside upper left", ncols=columns, **look)


def draw_heat_map(
    values: NDArray[np.float64],
    row_labels: Sequence[str],
    col_labels: Sequence[str],
    row_title: str,
    col_title: str,
    value_title: str,
) -> "Figure":
    """A cell a value, its number in it; NaN leaves a cell blank.

    Args:
        values: [rows, cols], in the unit they are written in.
        row_labels, col_labels: one a row, one a column; the first row is on top.
        row_title, col_title: what the rows and the columns are.
        value_title: what the numbers are, units included.
    """
    rows, cols = values.shape
    figure, axes = _new_figure(0.95 + 0.54 * rows, col_title, row_title)
    known = values[~np.isnan(values)]
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    scale = Normalize(float(known.min()), float(known.max())) if known.size else Normalize(0, 1)
    colours = colormaps["viridis"]
    axes.pcolormesh(np.ma.masked_invalid(values), cmap=colours, norm=scale, linewidth=0, antialiased=False)
    size = _TEXT if cols <= 8 else max(_TEXT * 8 / cols, 5)
    for (row, col), value in np.ndenumerate(values):
        if not math.isnan(value):
            red, green, blue, _ = colours(scale(value))
            bright = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 > 0.18
            colour = "black" if bright else "white"
            axes.text(col + 0.5, row + 0.5, f"{value:.1f}", ha="center", va="center", color=colour, fontsize=size)
    axes.set_xticks(np.arange(cols) + 0.5, [figure_text(label) for label in col_labels])
    axes.set_yticks(np.arange(rows) + 0.5, [figure_text(label) for label in row_labels])
    axes.set(xlim=(0, cols), ylim=(rows, 0))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(figure_text(value_title), loc="left", color=_INK, fontsize=_TEXT)
    return _settled(figure)


def draw_class_bars(
    values: Mapping[str, float | None], intervals: Mapping[str, tuple[float, float] | None], metric: Metric
) -> "Figure":
    """A bar a class, the highest on top, with its 95 % interval as whiskers; the figure grows with the classes.

    Args:
        values: score of each class, as in files; one without a score is left out.
        intervals: ends of the interval of each class, as in files; one without has no whiskers.
        metric: that the scores are of.
    """
    scores = {name: metric.scale * value for name, value in values.items() if value is not None and value == value}
    names = sorted(scores, key=lambda name: (-scores[name], name))
    ends = [intervals.get(name) or (math.nan, math.nan) for name in names]
    lows, highs = ([metric.scale * pair[side] for pair in ends] for side in (0, 1))
    title = f"{with_unit(metric.class_heading or metric.heading, metric)}, with its 95 % interval"
    figure, axes = _new_figure(0.8 + 0.25 * max(len(names), 1), title)
    heights = np.arange(len(names))
    axes.barh(heights, [scores[name] for name in names], height=0.68, color=_COLOURS[0])
    axes.hlines(heights, lows, highs, colors=_INK, linewidth=1.3)
    for side in (lows, highs):
        axes.plot(side, heights, "|", color=_INK, markersize=5, markeredgewidth=1.3)
    axes.set_yticks(heights, [figure_text(name) for name in names])
    axes.tick_params(axis="y", length=0, labelsize=_TEXT - 1)
    axes.set(xlim=(0, 100 if metric.is_fraction else None), ylim=(max(len(names), 1) - 0.4, -0.6))
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=_INK, alpha=0.12, linewidth=0.8)
    axes.set_axisbelow(True)
    return _settled(figure)


def with_unit(heading: str, metric: Metric) -> str:
    """A metric's heading as axes say it."""
    return f"{heading} (%)" if metric.is_fraction else heading


def encode_figure(figure: "Figure", kind: str, salt: str = "diffcut_bench", *, transparent: bool = False) -> bytes:
    """The figure as ``png`` (160 dots an inch) or ``svg``; the same figure gives the same bytes.

    Args:
        figure: of this module.
        kind: of the file.
        salt: letters that the ids of an ``svg`` are made with.
        transparent: without a background.
    """
    buffer = io.BytesIO()
    metadata = {"Date" if kind == "svg" else "Software": None}
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": salt, "svg.fonttype": "none"}):
        figure.savefig(buffer, format=kind, dpi=160, metadata=metadata, transparent=transparent)
    return buffer.getvalue()


def write_figure(figure: "Figure", folder: Path, name: str) -> list[Path]:
    """``NAME.png`` and ``NAME.svg``; returns their paths."""
    paths = [folder / f"{name}.{kind}" for kind in ("png", "svg")]
    for path in paths:
        write_atomically(path, encode_figure(figure, path.suffix[1:]))
    return paths


def inline_svg(figure: "Figure", salt: str, title: str) -> str:
    """The figure as an ``<svg>`` element that takes its parent's width, text colour and background.

    Args:
        figure: of this module.
        salt: letters and digits that no other figure of the page has, for ids of its own.
        title: what a screen reader says.
    """
    drawing = encode_figure(figure, "svg", salt, transparent=True).decode()
    words = escape(one_line(title))
    box = re.search(r'viewBox="([^"]*)"', drawing)
    assert box is not None
    body = drawing[drawing.index(">", drawing.index("<svg")) + 1 :]
    body = re.sub(r"\s*<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    # Its rule for everything would hold for the whole page.
    body = re.sub(r'\s*<defs>\s*<style type="text/css">.*?</style>\s*</defs>', "", body, flags=re.DOTALL)
    body = re.sub(r"<[^>]*>", lambda tag: _own_tag(tag[0], salt), body)
    return (
        f'<svg viewBox="{box[1]}" width="100%" role="img" aria-labelledby="{salt}-title" '
        f'stroke-linejoin="round" stroke-linecap="butt">\n<title id="{salt}-title">{words}</title>{body}'
    ).rstrip()


def _own_tag(tag: str, salt: str) -> str:
    """A tag of matplotlib's with the page's font and text colour, and ids of its own."""
    tag = tag.replace("xlink:href=", "href=").replace(_INK, "currentColor")
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    tag = re.sub(r"font: (?:[a-z]+ )*([\d.]+px) [^;\"]*", r"font-size: \1", tag)
    return re.sub(r"( id=\"| href=\"#|url\(#)", rf"\g<1>{salt}-", tag)


def new_figure(width: float, height: float, **settings: Any) -> "Figure":
    """An empty figure that no window shows.

    Args:
        width, height: in inches.
        settings: others of matplotlib's ``Figure``.

    Raises:
        UserError: matplotlib is not installed.
    """
    require("report", "a figure", "matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), **settings)
    FigureCanvasAgg(figure)
    return figure


def _new_figure(height: float, x_label: str, y_label: str = "") -> "tuple[Figure, Axes]":
    figure = new_figure(_WIDTH, height, layout="constrained")
    axes = figure.subplots()
    _style(axes)
    axes.set_xlabel(figure_text(x_label), color=_INK, fontsize=_TEXT)
    axes.set_ylabel(figure_text(y_label), color=_INK, fontsize=_TEXT)
    return figure, axes


def _style(axes: "Axes") -> None:
    axes.tick_params(colors=_INK, labelcolor=_INK, labelsize=_TEXT - 0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[:].set_color(_INK)


def _settled(figure: "Figure") -> "Figure":
    """The figure, laid out once and for all: laying out again at each drawing would move it by a rounding error."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure
