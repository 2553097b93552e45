"""Figures of a sweep: which numbers were varied, and how a score answers to them."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from diffcut_bench.escaping import file_stem
from diffcut_bench.evaluation import Metric
from diffcut_bench.reporting.figures import Curve, draw_curves, draw_heat_map, with_unit
from diffcut_bench.reporting.settings import compare_settings, heading, is_number, varying_names
from diffcut_bench.reporting.tables import leading_metric, shown_interval
from diffcut_bench.store import Result

_Settings = dict[str, Any]


@dataclass(frozen=True)
class SweepFigure:
    """A figure, the stem of its file, and what stands over it."""

    name: str
    title: str
    figure: Figure


def sweep_figures(results: Sequence[Result]) -> list[SweepFigure]:
    """For all results that differ in numbers alone: curves, and a heat map where two numbers were varied on a grid.

    The abscissa is the number with most values, and each combination of the others is a line. Of several results with
    the same settings the last is shown. Empty where no number differs.

    Args:
        results: in the order of the lines and figures.
    """
    metric = leading_metric()
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


def _shared(result: Result, values: _Settings, numeric: Sequence[str]) -> str:
    """What must be equal for two results to be of one curve: images, seed, and every setting that is no number."""
    images = (result.dataset.name, result.dataset.fingerprint, result.dataset.n_images, result.environment.seed)
    return str((images, [(name, None if name in numeric else value) for name, value in sorted(values.items())]))


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
    lines: dict[tuple[float, ...], dict[float, Result]] = {}
    for values, result in sorted(cells, key=lambda cell: [cell[0][name] for name in others]):
        lines.setdefault(tuple(values[name] for name in others), {})[values[abscissa]] = result
    curves = [_curve(others, fixed, line, metric) for fixed, line in lines.items()]
    unit = with_unit(metric.heading, metric)
    lines_of = f", for each {' and '.join(heading(name) for name in others)}" if others else ""
    title = f"{metric.heading} by {heading(abscissa)}"
    figures = [SweepFigure("curves", f"{title}{lines_of}", draw_curves(curves, heading(abscissa), unit))]
    if len(others) == 1:
        rows, cols = values_of[others[0]], values_of[abscissa]
        grid = np.full((len(rows), len(cols)), np.nan)
        for (row,), line in lines.items():
            for col, result in line.items():
                grid[rows.index(row), cols.index(col)] = _score(result, metric)
        row_labels, col_labels = ([f"{value:.12g}" for value in values] for values in (rows, cols))
        figure = draw_heat_map(grid, row_labels, col_labels, heading(others[0]), heading(abscissa), unit)
        figures.append(SweepFigure("heatmap", f"{title} and {heading(others[0])}", figure))
    return varied, figures


def _curve(names: Sequence[str], values: Sequence[float], line: dict[float, Result], metric: Metric) -> Curve:
    label = ", ".join(f"{heading(name)}={value:.12g}" for name, value in zip(names, values, strict=True))
    x = tuple(sorted(line))
    y = tuple(_score(line[value], metric) for value in x)
    ends = [shown_interval(line[value], metric) for value in x]
    if not any(ends):
        return Curve(label, x, y)
    low, high = (tuple(metric.scale * pair[end] if pair else math.nan for pair in ends) for end in (0, 1))
    return Curve(label, x, y, low, high)


def _score(result: Result, metric: Metric) -> float:
    """In the unit of tables; NaN where the result has none."""
    value = result.scores[metric.name].value
    return math.nan if value is None else metric.scale * value


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
