"""Curves of a figure, and what the text says about them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffcut_bench.reproduction.plan import PlannedCell, part_of
from diffcut_bench.reproduction.spec import Claim, Reproduction
from diffcut_bench.reproduction.verdict import SLACK, Measure, Measured, Verdict, known_measures


@dataclass(frozen=True)
class Point:
    """A measured point of a curve: where it is on the axis, and its value."""

    x: float
    measured: Measured


def figure_curves(
    reproduction: Reproduction, cells: Sequence[PlannedCell], measured: Mapping[int, Measured]
) -> dict[str, Any]:
    """The figure's curves with their 95 % bands, as reproduction.json keeps them."""
    axis = reproduction.axis or next(iter(cells[0].point or {}), "")
    lines: dict[str, list[tuple[float, Measured]]] = {}
    for index, ours in sorted(measured.items()):
        point = dict(cells[index].point or {})
        x = point.pop(axis)
        label = ", ".join(f"{name.rpartition('.')[2]} {value:g}" for name, value in point.items())
        parts = name_part(cells, part_of(cells[index]))
        lines.setdefault(" ".join([label, *parts]).strip() or cells[index].row.name, []).append((x, ours))
    curves = []
    for label, points in lines.items():
        points.sort(key=lambda point: point[0])
        ends = [ours.interval for _, ours in points if ours.interval is not None]
        curves.append(
            {
                "label": label,
                "x": [x for x, _ in points],
                "y": [ours.value for _, ours in points],
                "low": [low for low, _ in ends],
                "high": [high for _, high in ends],
            }
        )
    return {
        "x_label": axis.rpartition(".")[2],
        "y_label": known_measures()[reproduction.measure].name,
        "curves": curves,
        "references": [list(pair) for pair in reproduction.references.items()],
    }


def parts_of(cells: Sequence[PlannedCell]) -> list[tuple[str, str, str]]:
    """What there are curves of; a row that is not run has none, unless nothing has."""
    return list(dict.fromkeys(map(part_of, [cell for cell in cells if cell.config is not None] or cells)))


def name_part(cells: Sequence[PlannedCell], part: tuple[str, str, str]) -> list[str]:
    """Row, column and protocol of a curve, as far as there are several of them."""
    several = [len(set(names)) > 1 for names in zip(*parts_of(cells), strict=True)]
    return [f"[{name}]" for name, needed in zip(part, several, strict=True) if needed]


def check_curve(claim: Claim, points: Sequence[Point], measure: Measure, planned: int) -> tuple[str, Verdict]:
    """What our curve does, in words, and whether that agrees with the text.

    A point contradicts a statement only if it does by more than the measure's tolerance.

    Args:
        claim: of the text.
        points: of the curve that it is about; those that were not run are left out.
        measure: of the values.
        planned: points that the curve has when all are run.
    """
    if not points:
        return "–", Verdict("not run", "no point of this curve was run")
    points = sorted(points, key=lambda point: point.x)
    limits = tuple(dict.fromkeys(limit for point in points for limit in point.measured.limits))
    if len(points) < planned:
        limits = (f"{len(points)} of {planned} points", *limits)
    said, agrees = {"above": _above, "best": _best, "within": _within}[claim.kind](claim, points, measure)
    if limits:
        return said, Verdict("limited", "; ".join(limits))
    return said, Verdict("reproduced" if agrees else "differs")


def _above(claim: Claim, points: Sequence[Point], measure: Measure) -> tuple[str, bool]:
    value = claim.value or 0.0
    all_x = [point.x for point in points]
    said = _stretches([point.x for point in points if point.measured.value > value], all_x)
    if claim.span is not None:
        possibly = [point.x for point in points if _ends(point.measured, measure, value)[1] > value]
        longest = max((end - start for start, end in _runs(possibly, all_x)), default=0.0)
        return said, longest >= claim.span - 1e-9
    low, high = claim.low or 0.0, claim.high if claim.high is not None else 1.0
    for point in points:
        bottom, top = _ends(point.measured, measure, value)
        inside = low - 1e-9 <= point.x <= high + 1e-9
        if (inside and top < value) or (claim.only and not inside and bottom > value):
            return said, False
    return said, True


def _best(claim: Claim, points: Sequence[Point], measure: Measure) -> tuple[str, bool]:
    best = max(points, key=lambda point: measure.sign * point.measured.value)
    low, high = claim.low or 0.0, claim.high if claim.high is not None else float("inf")
    inside = [_ends(point.measured, measure) for point in points if low <= point.x <= high]
    agrees = any(bottom <= best.measured.value <= top for bottom, top in inside)
    return f"{measure.text(best.measured.value)} at {best.x:g}", agrees


def _within(claim: Claim, points: Sequence[Point], measure: Measure) -> tuple[str, bool]:
    values = [point.measured.value for point in points]
    low, high = claim.low or 0.0, claim.high if claim.high is not None else float("inf")
    agrees = all(
        _ends(point.measured, measure, low)[1] >= low - SLACK
        and _ends(point.measured, measure, high)[0] <= high + SLACK
        for point in points
    )
    return f"{measure.text(min(values))} – {measure.text(max(values))}", agrees


def _ends(measured: Measured, measure: Measure, stated: float = 0.0) -> tuple[float, float]:
    """What a stated value may be where ours is this."""
    tolerance = measure.tolerance(stated, measured.deviation) + SLACK
    return measured.value - tolerance, measured.value + tolerance


def _runs(chosen: Sequence[float], all_x: Sequence[float]) -> list[tuple[float, float]]:
    """First and last of each stretch of neighbours that are chosen."""
    runs: list[tuple[float, float]] = []
    before: float | None = None
    for x in all_x:
        if x in chosen:
            runs = [*runs[:-1], (runs[-1][0], x)] if before is not None else [*runs, (x, x)]
        before = x if x in chosen else None
    return runs


def _stretches(chosen: Sequence[float], all_x: Sequence[float]) -> str:
    runs = _runs(chosen, all_x)
    return ", ".join(f"{a:g} – {b:g}" if a != b else f"{a:g}" for a, b in runs) or "nowhere"
