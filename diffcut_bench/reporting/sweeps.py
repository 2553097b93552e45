"""Figures of a sweep: which numbers were varied, how a score answers to them, and how every score does to the number of
segments that they make."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from diffcut_bench.escaping import file_stem
from diffcut_bench.evaluation import Metric, known_metrics
from diffcut_bench.reporting.figures import Curve, Panel, draw_curves, draw_heat_map, draw_panels, with_unit
from diffcut_bench.reporting.tables import interval_of, reference_of, shown_interval
from diffcut_bench.scoring.ranking import leading_metric
from diffcut_bench.settings import compare_settings, heading, is_number, varying_names
from diffcut_bench.store import Result, Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEGMENTS = "segments an image (mean)"
_Settings = dict[str, Any]
_Line = dict[float, Result]  # by the number along which it runs


@dataclass(frozen=True)
class SweepFigure:
    """A figure, the stem of its file, and what stands over it."""

    name: str
    title: str
    figure: "Figure"


def sweep_figures(results: Sequence[Result], score: str = "miou") -> list[SweepFigure]:
    """For all results that differ in numbers alone: curves, a heat map where two numbers were varied on a grid, and
    scores against segments an image (the one that leads by itself, the others as panels of one figure).

    The abscissa is the number with most values, and each combination of the others is a line. Of several results with
    the same settings the last is shown. Empty where no number differs.

    Args:
        results: in the order of the lines and figures.
        score: that leads.
    """
    metric = leading_metric(score, results)
    told = compare_settings(results)
    settings = told.settings
    names = list(dict.fromkeys(name for values in settings for name in values))
    numeric = [name for name in names if all(is_number(values[name]) for values in settings if name in values)]
    groups: dict[str, list[int]] = {}
    for index, (result, values) in enumerate(zip(results, settings, strict=True)):
        groups.setdefault(_shared(result, values, numeric), []).append(index)
    drawn: list[tuple[int, SweepFigure]] = []
    swept: set[str] = set()
    for indices in groups.values():
        varied, figures = _figures([(settings[i], results[i]) for i in indices], numeric, metric)
        drawn += [(indices[0], figure) for figure in figures]
        swept |= set(varied)
    return _told_apart([(results[first], told.texts[first], figure) for first, figure in drawn], swept)


def scored_set(result: Result) -> tuple[str, str, int, int]:
    """Images and seed of a result: what must be equal for two to be of one curve."""
    return result.dataset.name, result.dataset.fingerprint, result.dataset.n_images, result.environment.seed


def _shared(result: Result, values: _Settings, numeric: Sequence[str]) -> str:
    """What must be equal for two results to be of one curve: images, seed, and every setting that is no number."""
    return str(
        (scored_set(result), [(name, None if name in numeric else value) for name, value in sorted(values.items())])
    )


def _figures(
    cells: Sequence[tuple[_Settings, Result]], numeric: Sequence[str], metric: Metric
) -> tuple[list[str], list[SweepFigure]]:
    """What was varied in these cells, and the figures of it."""
    values_of = {name: sorted({values[name] for values, _ in cells}) for name in numeric if name in cells[0][0]}
    varied = [name for name, values in values_of.items() if len(values) > 1]
    if not varied:
        return [], []
    abscissa = max(varied, key=lambda name: len(values_of[name]))
    others = [name for name in varied if name != abscissa]
    lines: dict[tuple[float, ...], _Line] = {}
    for values, result in sorted(cells, key=lambda cell: [cell[0][name] for name in others]):
        lines.setdefault(tuple(values[name] for name in others), {})[values[abscissa]] = result
    labels = [
        ", ".join(f"{heading(name)}={value:.12g}" for name, value in zip(others, fixed, strict=True)) for fixed in lines
    ]
    curves = [_curve(label, line.items(), metric) for label, line in zip(labels, lines.values(), strict=True)]
    unit = with_unit(metric.heading, metric)
    lines_of = f", for each {' and '.join(heading(name) for name in others)}" if others else ""
    title = f"{metric.heading} by {heading(abscissa)}"
    figures = [SweepFigure("curves", f"{title}{lines_of}", draw_curves(curves, heading(abscissa), unit))]
    if len(others) == 1:
        rows, cols = values_of[others[0]], values_of[abscissa]
        grid = np.full((len(rows), len(cols)), np.nan)
        for (row,), line in lines.items():
            for col, result in line.items():
                grid[rows.index(row), cols.index(col)] = _curve("", [(col, result)], metric).y[0]
        row_labels, col_labels = ([f"{value:.12g}" for value in values] for values in (rows, cols))
        figure = draw_heat_map(grid, row_labels, col_labels, heading(others[0]), heading(abscissa), unit)
        figures.append(SweepFigure("heatmap", f"{title} and {heading(others[0])}", figure))
    return varied, [*figures, *_against_segments(dict(zip(labels, lines.values(), strict=True)), metric, lines_of)]


def _against_segments(lines: dict[str, _Line], leading: Metric, lines_of: str) -> list[SweepFigure]:
    """Scores against the mean number of segments, with floor and ceiling where they are known; none where every cell of
    a line has as many segments as the others."""
    cells = {label: [(cell.segments_per_image.mean, cell) for cell in line.values()] for label, line in lines.items()}
    if all(len({segments for segments, _ in own}) < 2 for own in cells.values()):
        return []

    def panel(metric: Metric) -> Panel:
        curves = [_curve(label, own, metric) for label, own in cells.items()]
        bounds = [bound for own in cells.values() for bound in _bounds(own, metric)]
        return Panel(with_unit(metric.heading, metric), tuple(curves), tuple(bounds))

    told = {name for line in lines.values() for result in line.values() for name in result.scores}
    others = [metric for name, metric in known_metrics().items() if name in told - {leading.name, "segments"}]
    title = f"{leading.heading} by segments an image{lines_of}"
    first = panel(leading)
    drawn = draw_curves(first.curves, SEGMENTS, first.title, bounds=first.bounds, ticks_at_points=False)
    figures = [SweepFigure("granularity", title, drawn)]
    if others:
        title = f"The other scores by segments an image{lines_of}"
        figures.append(SweepFigure("granularity-others", title, draw_panels([*map(panel, others)], SEGMENTS)))
    return figures


def _bounds(cells: Sequence[tuple[float, Result]], metric: Metric) -> list[Curve]:
    """Floor and ceiling of the cells of a line, as far as they are known."""
    found = []
    for name in ("floor", "ceiling"):
        known = [(at, cell, getattr(reference_of(cell, metric), name, None)) for at, cell in cells]
        points = [(at, score, interval_of(cell, score)) for at, cell, score in known if score is not None]
        found += [_line(name, points, metric)] if points else []
    return found


def _curve(label: str, cells: Iterable[tuple[float, Result]], metric: Metric) -> Curve:
    points = [(at, cell.scores.get(metric.name, Score(None)), shown_interval(cell, metric)) for at, cell in cells]
    return _line(label, points, metric)


def _line(label: str, points: Sequence[tuple[float, Score, tuple[float, float] | None]], metric: Metric) -> Curve:
    """Scores and intervals by where they are on the abscissa, in the unit of tables."""
    points = sorted(points, key=lambda point: point[0])
    x = tuple(at for at, _, _ in points)
    y = tuple(math.nan if score.value is None else metric.scale * score.value for _, score, _ in points)
    if not any(ends for _, _, ends in points):
        return Curve(label, x, y)
    low, high = (tuple(metric.scale * ends[end] if ends else math.nan for _, _, ends in points) for end in (0, 1))
    return Curve(label, x, y, low, high)


def _told_apart(drawn: Sequence[tuple[Result, dict[str, str], SweepFigure]], swept: set[str]) -> list[SweepFigure]:
    """The figures, with what differs between their groups in names and titles."""
    sizes: dict[str, set[int]] = {}
    for result, _, _ in drawn:
        sizes.setdefault(result.dataset.name, set()).add(result.dataset.n_images)
    described = []
    for result, texts, _ in drawn:
        own = {"dataset": result.dataset.name, "images": ""}
        if len(sizes[result.dataset.name]) > 1:
            own["images"] = f"{result.dataset.n_images} images"
        for name, text in texts.items():
            if name not in {*swept, *own, "data", "of images"}:
                own[name] = f"{heading(name)}={text}" if text and text[0].isdecimal() else text
        described.append(own)
    differing = varying_names(described)
    figures: list[SweepFigure] = []
    for own, (_, _, figure) in zip(described, drawn, strict=True):
        values = [own[name] for name in differing if own.get(name)]
        stem = file_stem("-".join([figure.name, *(re.sub(r"\W+", "_", value) for value in values)]))
        title = f"{figure.title}: {', '.join(values)}" if values else figure.title
        alike = sum(re.fullmatch(rf"{re.escape(stem)}(-\d+)?", other.name) is not None for other in figures)
        if alike:
            stem, title = f"{stem}-{alike + 1}", f"{title} ({alike + 1})"
        figures.append(SweepFigure(stem, title, figure.figure))
    return figures
