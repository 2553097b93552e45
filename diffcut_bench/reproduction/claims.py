"""What the text says about curves, checked on ours."""

from collections.abc import Sequence
from dataclasses import dataclass

from diffcut_bench.reproduction.spec import Claim
from diffcut_bench.reproduction.verdict import Measure, Measured, Verdict


@dataclass(frozen=True)
class Point:
    """A measured point of a curve: its place on the axis, its value."""

    x: float
    measured: Measured


def check_claim(claim: Claim, points: Sequence[Point], measure: Measure, planned: int) -> tuple[str, Verdict]:
    """What our curve does, in words, and whether that agrees with the text.

    A point contradicts a statement only if its whole interval, widened by the measure's tolerance, does.

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
    places = [point.x for point in points]
    said = _stretches([point.x for point in points if point.measured.value > value], places)
    if claim.span is not None:
        possibly = [point.x for point in points if _ends(point.measured, measure)[1] > value]
        longest = max((end - start for start, end in _runs(possibly, places)), default=0.0)
        return said, longest >= claim.span - 1e-9
    low, high = claim.low or 0.0, claim.high if claim.high is not None else 1.0
    for point in points:
        bottom, top = _ends(point.measured, measure)
        inside = low - 1e-9 <= point.x <= high + 1e-9
        if (inside and top < value) or (claim.only and not inside and bottom > value):
            return said, False
    return said, True


def _best(claim: Claim, points: Sequence[Point], measure: Measure) -> tuple[str, bool]:
    best = max(points, key=lambda point: point.measured.value)
    low, high = claim.low or 0.0, claim.high if claim.high is not None else float("inf")
    beaten = _ends(best.measured, measure)[0]
    agrees = any(low <= point.x <= high and _ends(point.measured, measure)[1] >= beaten for point in points)
    return f"{measure.text(best.measured.value)} at {best.x:g}", agrees


def _within(claim: Claim, points: Sequence[Point], measure: Measure) -> tuple[str, bool]:
    values = [point.measured.value for point in points]
    ends = [_ends(point.measured, measure) for point in points]
    low, high = claim.low or 0.0, claim.high if claim.high is not None else float("inf")
    agrees = all(top >= low and bottom <= high for bottom, top in ends)
    return f"{measure.text(min(values))} – {measure.text(max(values))}", agrees


def _ends(measured: Measured, measure: Measure) -> tuple[float, float]:
    low, high = measured.interval or (measured.value, measured.value)
    return low - measure.tolerance, high + measure.tolerance


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
