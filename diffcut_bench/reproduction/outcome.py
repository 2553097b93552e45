"""What became of the cells of a reproduction."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from diffcut_bench.reproduction.plan import PlannedCell
from diffcut_bench.reproduction.verdict import Measure, Measured, Verdict, judge


@dataclass(frozen=True)
class Outcome:
    """What became of a planned cell.

    Attributes:
        cell: as planned.
        ours: its value; None where it was not run.
        why: it was not run.
    """

    cell: PlannedCell
    ours: Measured | None = None
    why: str = ""

    def verdict(self, measure: Measure) -> Verdict:
        """Whether it is the published value of a table of ``measure``."""
        if self.ours is None:
            return Verdict("not run", self.why)
        if self.cell.published is None:
            return Verdict("not stated", "; ".join(filter(None, [self.cell.unstated, *self.ours.limits])))
        return judge(self.cell.published, self.ours, measure)


def average_seeds(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """One outcome for all seeds of the noise of a cell, with the mean over those that were run."""
    return [_mean(list(runs)) for _, runs in groupby(outcomes, lambda each: (each.cell.part, each.cell.point))]


def _mean(runs: list[Outcome]) -> Outcome:
    first = runs[0]
    if first.cell.seed is None:
        return first
    seeds = [replace(run.ours, seed=run.cell.seed) for run in runs if run.ours is not None]
    why = next((run.why for run in runs if run.ours is None), "")
    mean = Measured.mean(seeds, len(runs), why) if seeds else None
    return Outcome(replace(first.cell, seed=None), mean, why)
