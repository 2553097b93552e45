"""Curves of a figure, and what the text says about them."""

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from diffcut_bench.reproduction.outcome import Outcome
from diffcut_bench.reproduction.spec import Claim, Reproduction
from diffcut_bench.reproduction.verdict import SLACK, Measure, Measured, Verdict, known_measures

Part = tuple[str, str, str]  # row, column and protocol


def figure_curves(reproduction: Reproduction, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The figure's curves with their 95 % bands, as reproduction.json keeps them."""
    axis = reproduction.axis or next(iter(outcomes[0].cell.point), "")
    parts = parts_of(outcomes)
    lines: dict[str, list[tuple[float, Measured]]] = {}
    for each in outcomes:
        if each.ours is not None:
            others = (f"{name.rpartition('.')[2]} {x:g}" for name, x in each.cell.point.items() if name != axis)
            label = f"{', '.join(others)} {name_part(parts, each.cell.part)}".strip() or each.cell.row.name
            lines.setdefault(label, []).append((each.cell.point[axis], each.ours))
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


def parts_of(outcomes: Sequence[Outcome]) -> list[Part]:
    """What there are curves of; a row that is not run has none, unless nothing has."""
    cells = [each.cell for each in outcomes]
    return list(dict.fromkeys(cell.part for cell in [cell for cell in cells if cell.config is not None] or cells))


def name_part(parts: Sequence[Part], part: Part) -> str:
    """Row, column and protocol of a curve, as far as there are several of them."""
    return " ".join(
        f"[{name}]" for name, names in zip(part, zip(*parts, strict=True), strict=True) if {*names} - {name}
    )


def check_curve(claim: Claim, points: Mapping[float, Measured], measure: Measure, planned: int) -> tuple[str, Verdict]:
    """What our curve does, in words, and whether that agrees with the text.

    A point contradicts a statement only if it does by more than the measure's tolerance.

    Args:
        claim: of the text.
        points: of the curve that it is about, by where they are on the axis; at least one.
        measure: of the values.
        planned: points that the curve has when all are run.
    """
    points = dict(sorted(points.items()))
    limits = list(dict.fromkeys(limit for ours in points.values() for limit in ours.limits))
    if len(points) < planned:
        limits.insert(0, f"{len(points)} of {planned} points")
    said, agrees = {"above": _above, "best": _best, "within": _within}[claim.kind](claim, points, measure)
    if limits:
        return said, Verdict("limited", "; ".join(limits))
    return said, Verdict("reproduced" if agrees else "differs")


def _above(claim: Claim, points: Mapping[float, Measured], measure: Measure) -> tuple[str, bool]:
    value = claim.value or 0.0
    runs = _runs([x for x, ours in points.items() if ours.value > value], points)
    said = ", ".join(f"{a:g} – {b:g}" if a != b else f"{a:g}" for a, b in runs) or "nowhere"
    ends = {x: _ends(ours, measure, value) for x, ours in points.items()}
    if claim.span is not None:
        possibly = _runs([x for x, (_, top) in ends.items() if top > value], points)
        return said, max((end - start for start, end in possibly), default=0.0) >= claim.span - SLACK
    low, high = claim.low or 0.0, claim.high if claim.high is not None else 1.0
    for x, (bottom, top) in ends.items():
        inside = low - SLACK <= x <= high + SLACK
        if (inside and top < value) or (claim.only and not inside and bottom > value):
            return said, False
    return said, True


def _best(claim: Claim, points: Mapping[float, Measured], measure: Measure) -> tuple[str, bool]:
    x, best = max(points.items(), key=lambda point: measure.sign * point[1].value)
    low, high = claim.low or 0.0, claim.high if claim.high is not None else math.inf
    inside = [_ends(ours, measure) for at, ours in points.items() if low <= at <= high]
    agrees = any(bottom <= best.value <= top for bottom, top in inside)
    return f"{measure.text(best.value)} at {x:g}", agrees


def _within(claim: Claim, points: Mapping[float, Measured], measure: Measure) -> tuple[str, bool]:
    values = [ours.value for ours in points.values()]
    low, high = claim.low or 0.0, claim.high if claim.high is not None else math.inf
    agrees = all(
        _ends(ours, measure, low)[1] >= low - SLACK and _ends(ours, measure, high)[0] <= high + SLACK
        for ours in points.values()
    )
    return f"{measure.text(min(values))} – {measure.text(max(values))}", agrees


def _ends(measured: Measured, measure: Measure, stated: float = 0.0) -> tuple[float, float]:
    """What a stated value may be where ours is this."""
    tolerance = measure.tolerance(stated, measured.deviation) + SLACK
    return measured.value - tolerance, measured.value + tolerance


def _runs(chosen: Container[float], all_x: Iterable[float]) -> list[tuple[float, float]]:
    """First and last of each stretch of neighbours that are chosen."""
    stretches = [list(xs) for is_chosen, xs in groupby(all_x, lambda x: x in chosen) if is_chosen]
    return [(xs[0], xs[-1]) for xs in stretches]
