"""What the text says about a row of a table beside others, tested on the same images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

import torch
from torch import Tensor

from diffcut_bench.evaluation import FEWEST_IMAGES, jaccard_columns, jaccard_of, percentile_interval, resampled_scores
from diffcut_bench.reporting import common_images, counts_of
from diffcut_bench.reproduction.spec import Claim
from diffcut_bench.reproduction.verdict import MEASURES, SLACK, Measure, Measured, Verdict
from diffcut_bench.store import ImageRow, Result, check_published


@dataclass(frozen=True)
class Contest:
    """A column of a claim.

    Attributes:
        ours: value of the row that the claim is about.
        others: values of the rows that it is set beside, at least one; all with the folder of their cells.
        published: published values of those that were not run, which stand for them.
        unrun: rows that could be run and were not.
    """

    ours: Measured
    others: Mapping[str, Measured]
    published: Mapping[str, float] = field(default_factory=dict)
    unrun: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lead:
    """How far a row is ahead of the best of the others, on the images that all were scored on, in the table's unit.

    Attributes:
        by_seed: for each seed of the noise, or once.
        resampled: the mean over seeds, of each bootstrap sample of the images; the same for all rows.
        images: that there are.
    """

    by_seed: tuple[float, ...]
    resampled: Tensor
    images: int

    @property
    def value(self) -> float:
        return fmean(self.by_seed)

    @property
    def deviation(self) -> float | None:
        """Standard deviation over seeds of the noise; None where there is one."""
        return stdev(self.by_seed) if len(self.by_seed) > 1 else None

    @property
    def interval(self) -> tuple[float, float]:
        """By the paired bootstrap, 95 %."""
        low, high = percentile_interval(self.resampled[:, None])[:, 0].tolist()
        return low, high

    @property
    def sign(self) -> str:
        """``ahead``, ``absent`` or ``reversed``: on which side of 0 the interval lies."""
        low, high = self.interval
        return "ahead" if low > 0 else "reversed" if high < 0 else "absent"

    def text(self, measure: Measure) -> str:
        """The value and its interval."""
        ends = [measure.text(each, signed=True, more=1) for each in (self.value, *self.interval)]
        return f"{ends[0]} ({ends[1]} – {ends[2]})"


def measure_lead(contest: Contest, measure: Measure, seed: int = 42) -> Lead:
    """How far a row is ahead of the best of the others in one column.

    The best of the others is found anew in each sample: that it was picked for being the best is part of the interval.
    What is published of a row that was not run is a score of the same images as well, and its distance from ours is
    the same in every sample.

    Args:
        contest: of the column.
        measure: of the table.
        seed: of the bootstrap; columns of several data sets take different ones.

    Raises:
        UserError: rows of a cell can't be read.
        ValueError: the cells score different classes, or have no image in common.
    """
    rows = [each.seeds or (each,) for each in (contest.ours, *contest.others.values())]
    cells = [cell for row in rows for cell in row]
    shared = common_images([_rows_of(cell) for cell in cells])
    if not shared[0]:
        raise ValueError("no image in common")
    scored = iter([_scores(images, cell, measure, seed) for images, cell in zip(shared, cells, strict=True)])
    of_rows = [[next(scored) for _ in row] for row in rows]
    if len({own[0][2] for own in of_rows}) > 1:
        raise ValueError("other classes are scored")
    by_seed, resampled = [], []
    for number in range(max(map(len, rows))):
        # A row that draws no noise has one cell, which is set beside each seed's of the others.
        (ours, sample, _), *others = (own[min(number, len(own) - 1)] for own in of_rows)
        behind = ours - max(contest.published.values(), default=float("-inf"))
        by_seed.append(min(ours - max(value for value, _, _ in others), behind))
        best = torch.stack([each for _, each, _ in others]).amax(dim=0)
        resampled.append((sample - best).clamp_max(behind))
    return Lead(tuple(by_seed), torch.stack(resampled).mean(dim=0), len(shared[0]))


def mean_lead(leads: Sequence[Lead]) -> Lead:
    """The mean over columns; the images of one are not those of another, nor are their bootstrap samples."""
    seeds = max(len(lead.by_seed) for lead in leads)
    by_seed = [fmean(lead.by_seed[min(number, len(lead.by_seed) - 1)] for lead in leads) for number in range(seeds)]
    resampled = torch.stack([lead.resampled for lead in leads]).mean(dim=0)
    return Lead(tuple(by_seed), resampled, min(lead.images for lead in leads))


def check_lead(claim: Claim, leads: Mapping[str, Lead], measure: Measure, limits: Sequence[str]) -> tuple[str, Verdict]:
    """How far our row is ahead, in words, and whether that agrees with the text.

    It does if the 95 % interval of the paired bootstrap lies above 0 (in each column, or that of their mean), and the
    size, where one is stated, differs from ours by no more than the measure's tolerance.

    Args:
        claim: of the text.
        leads: of the columns that could be compared.
        measure: of the table.
        limits: why they are not what the text is about.
    """
    if not leads:
        return "–", Verdict("not run", "; ".join(limits))
    told = leads if claim.each_column else {"": mean_lead(list(leads.values()))}
    few = [column for column, lead in leads.items() if lead.images < FEWEST_IMAGES]
    if few:
        values = {column: measure.text(lead.value, signed=True, more=1) for column, lead in told.items()}
        limits = [*limits, f"fewer than {FEWEST_IMAGES} images of {', '.join(few)}, too few for an interval"]
    else:
        values = {column: lead.text(measure) for column, lead in told.items()}
    said = "; ".join(f"{column} {value}".strip() for column, value in values.items())
    if len(leads) > len(told):
        columns = {column: measure.text(lead.value, signed=True, more=1) for column, lead in leads.items()}
        said += "; " + ", ".join(f"{column} {value}" for column, value in columns.items())
    if limits:
        return said, Verdict("limited", "; ".join(limits))
    contradictions = []
    for sign in ("reversed", "absent"):
        there = [column for column, lead in told.items() if lead.sign == sign]
        contradictions += [f"{sign} in {', '.join(there)}" if claim.each_column else sign] if there else []
    if claim.by is not None and not contradictions:
        (lead,) = told.values()
        tolerance = measure.tolerance(claim.by, lead.deviation)
        if abs(lead.value - claim.by) > tolerance + SLACK:
            contradictions = [f"of another size than {measure.text(claim.by, signed=True)} ± {tolerance:.3g}"]
    return said, Verdict("differs", "; ".join(contradictions)) if contradictions else Verdict("reproduced")


def _rows_of(cell: Measured) -> list[ImageRow]:
    assert cell.folder is not None, "a cell of a table of scores"
    return check_published(cell.folder)[1]


def _scores(
    rows: Sequence[ImageRow], cell: Measured, measure: Measure, seed: int
) -> tuple[float, Tensor, tuple[str, ...]]:
    """Score of rows, that of their bootstrap samples, and the classes that are scored."""
    assert cell.result is not None
    metric = counts_of(rows, cell.result)
    columns: Tensor
    score: Callable[[Tensor], Tensor]
    if measure is MEASURES["jaccard"]:
        columns, score = jaccard_columns(metric.table()[2]), jaccard_of
    else:
        columns, score = metric.columns(), lambda sums: metric.scores_of(sums)[..., :1]
    value = measure.scale * score(columns.sum(dim=0)).item()
    return value, measure.scale * resampled_scores(columns, score, seed=seed)[:, 0], _classes(cell.result)


def _classes(result: Result) -> tuple[str, ...]:
    return tuple(result.metrics.iou_per_class)
