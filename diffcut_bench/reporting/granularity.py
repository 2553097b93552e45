"""Two methods at equal numbers of segments: cells that differ in a number are a curve, and scores are interpolated
between neighbours on it."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np

from diffcut_bench.errors import UserError
from diffcut_bench.evaluation import (
    ImageTable,
    Metric,
    PairedDifference,
    ResampledScores,
    known_metrics,
    paired_difference,
    resample,
)
from diffcut_bench.extensions import command
from diffcut_bench.reporting.details import common_images, difference_texts
from diffcut_bench.reporting.sweeps import scored_set
from diffcut_bench.reporting.tables import Column, Table, number_columns
from diffcut_bench.scoring.summary import image_table
from diffcut_bench.settings import compare_settings, heading, is_number, text_of
from diffcut_bench.store import ImageRow, Result

_POINTS = 5  # of the common range, where no number of segments is asked for
Cell = tuple[Path, Result]


@dataclass(frozen=True)
class CellsAlong:
    """A named cell, and those that differ from it in one number only.

    Attributes:
        setting: the number; of a cell that stands alone one that could be varied.
        cells: by the number.
    """

    setting: str
    cells: tuple[Cell, ...]


def cells_along(named: Cell, found: Sequence[Cell]) -> CellsAlong:
    """The curve of a cell. Where cells differ from it in several numbers, each by itself, the one with most values
    is taken.

    Args:
        named: the cell.
        found: finished cells, itself among them or not.
    """
    beside = [cell for cell in found if cell[0] != named[0] and scored_set(cell[1]) == scored_set(named[1])]
    own, *settings = compare_settings([named[1], *(result for _, result in beside)]).settings
    along: dict[str, dict[float, Cell]] = {}
    for cell, values in zip(beside, settings, strict=True):
        differing = [name for name in own | values if text_of(own.get(name)) != text_of(values.get(name))]
        if len(differing) == 1 and all(is_number(each.get(differing[0])) for each in (own, values)):
            (name,) = differing
            along.setdefault(name, {own[name]: named})[values[name]] = cell
    if not along:
        numbers = [name for name, value in own.items() if name.startswith("segmenter.") and is_number(value)]
        return CellsAlong("segmenter.tau" if "segmenter.tau" in numbers else next(iter(numbers), ""), (named,))
    setting = max(along, key=lambda name: len(along[name]))
    return CellsAlong(setting, tuple(cell for _, cell in sorted(along[setting].items(), key=lambda pair: pair[0])))


@dataclass(frozen=True)
class CellsBySegments:
    """Cells by the mean number of segments that they make of the same images, in ascending order.

    Attributes:
        segments: mean number of each cell.
        images: table of each cell, the same image in the same row.
        choices: of each cell's protocol, by name.
    """

    segments: tuple[float, ...]
    images: tuple[ImageTable, ...]
    choices: tuple[Mapping[str, Any], ...]
    _known: dict[tuple[int, int], list[ResampledScores]] = field(default_factory=dict, compare=False)

    @staticmethod
    def of(cells: Sequence[Result], rows: Sequence[Sequence[ImageRow]]) -> "CellsBySegments":
        """Of cells and their rows of images that all have."""
        tables = [image_table(own) for own in rows]
        means = [table.segments.double().mean().item() for table in tables]
        order = sorted(range(len(cells)), key=means.__getitem__)
        segments, images = tuple(means[i] for i in order), tuple(tables[i] for i in order)
        return CellsBySegments(segments, images, tuple(cells[i].protocol for i in order))

    def lacks(self, metric: Metric) -> bool:
        """Whether one of the cells has no such score."""
        return any(metric.missing_in(*each) for each in zip(self.images, self.choices, strict=True))

    def at(self, segments: float, metrics: Sequence[Metric], seed: int) -> list[ResampledScores]:
        """Scores, also of bootstrap samples, at a mean number of segments in the curve's range: those of the two
        neighbouring cells, interpolated linearly. In every sample a cell's number of segments is that of all images.
        """
        low = bisect_right(self.segments, segments) - 1
        before = self._resampled(low, metrics, seed)
        if self.segments[low] == segments:
            return before
        share = (segments - self.segments[low]) / (self.segments[low + 1] - self.segments[low])
        pairs = zip(before, self._resampled(low + 1, metrics, seed), strict=True)
        return [ResampledScores(*(a.lerp(b, share) for a, b in zip(*pair, strict=True))) for pair in pairs]

    def _resampled(self, cell: int, metrics: Sequence[Metric], seed: int) -> list[ResampledScores]:
        if (cell, seed) not in self._known:
            self._known[cell, seed] = resample(self.images[cell], metrics, self.choices[cell], seed=seed)
        return self._known[cell, seed]


def compare_at_segments(
    sides: Sequence[CellsAlong],
    rows: Sequence[Sequence[Sequence[ImageRow]]],
    score: str,
    segments: float | None = None,
    seed: int = 42,
) -> Table:
    """What lies between two methods at equal mean numbers of segments an image, by the paired bootstrap.

    Args:
        sides: cells of either method.
        rows: of the images of each cell.
        score: that leads.
        segments: where every score is compared; None: the score that leads, at points of the range that both have.
        seed: of the bootstrap.

    Raises:
        UserError: a cell stands alone, the two are of one curve, or have no image or no number of segments in common.
    """
    for side in sides:
        if len(side.cells) < 2:
            (folder, result), vary = side.cells[0], f"{side.setting}=A,B,C" if side.setting else "a number of its own"
            what = "no finished cell differs from this one in a number alone: there is nothing to interpolate between"
            where = f"{folder.name}, {result.segments_per_image.mean:.1f} segments an image"
            raise UserError(what, where, f"{command(f'run -m … {vary}')}, with its other settings")
    if {folder for folder, _ in sides[0].cells} & {folder for folder, _ in sides[1].cells}:
        where = f"{heading(sides[0].setting)} is what they differ in"
        raise UserError("both cells are of one curve", where, "name cells that differ in something else")
    common = common_images([own for side in rows for own in side])
    if not common[0]:
        raise UserError("the cells have no image in common", "--at-segments", "compare cells of one data set")
    count = len(sides[0].cells)
    curves = [
        CellsBySegments.of([result for _, result in side.cells], own)
        for side, own in zip(sides, (common[:count], common[count:]), strict=True)
    ]
    at = _points(sides, curves, segments)
    told = [metric for name, metric in known_metrics().items() if name != "segments"]  # which are equal
    metrics = [metric for metric in told if not any(curve.lacks(metric) for curve in curves)]
    metrics = sorted(metrics, key=lambda metric: metric.name != score)[: None if segments is not None else 1]
    lines = []
    for number in at:
        for metric, *pair in zip(metrics, *(curve.at(number, metrics, seed) for curve in curves), strict=True):
            found: PairedDifference = paired_difference(*pair[0], *pair[1])
            name, *texts = difference_texts(metric, found, 0, metric.heading, len(common[0]))
            lines.append((f"{number:.1f}", name, *texts))
    own = [
        f"{word}: {len(side.cells)} cells along {heading(side.setting)}, {_range(curve)} segments an image"
        for word, side, curve in zip(("first", "second"), sides, curves, strict=True)
    ]
    notes = (
        *own,
        "scores between two neighbouring cells are interpolated linearly, at equal mean numbers of segments an image",
        f"paired bootstrap over {len(common[0])} images, 2000 resamples; the second less the first",
        "in every resample a cell's number of segments is that of all images: what it varies by is in no interval",
    )
    names = number_columns("first", "second", "difference", "95 % interval", "p")
    columns = (*number_columns("segments"), Column("score"), *names)
    return Table("at_segments", "Difference at equal numbers of segments", columns, tuple(lines), notes)


def _points(sides: Sequence[CellsAlong], curves: Sequence[CellsBySegments], segments: float | None) -> list[float]:
    """Numbers of segments that are compared.

    Raises:
        UserError: they, or all, are not in both ranges.
    """
    low, high = max(curve.segments[0] for curve in curves), min(curve.segments[-1] for curve in curves)
    told = zip(("first", "second"), sides, curves, strict=True)
    where = "; ".join(f"{word}: {_range(curve)} along {heading(side.setting)}" for word, side, curve in told)
    more = " and ".join(command(f"run -m … {side.setting}=A,B,C") for side in sides)
    if low > high:
        raise UserError(
            "the two have no number of segments an image in common", where, f"score more cells of either: {more}"
        )
    if segments is not None and not low <= segments <= high:
        within = f"from {ceil(100 * low) / 100:g} to {floor(100 * high) / 100:g}"
        hint = f"--at-segments {within}, or more cells: {more}"
        raise UserError(f"{segments:g} segments an image are not in both ranges", where, hint)
    return sorted({*np.linspace(low, high, _POINTS).tolist()}) if segments is None else [segments]


def _range(curve: CellsBySegments) -> str:
    return f"{curve.segments[0]:.1f} – {curve.segments[-1]:.1f}"
