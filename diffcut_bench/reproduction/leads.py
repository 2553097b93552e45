"""What the text says about a row of a table beside others, tested on the same images."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from statistics import fmean, stdev

import torch
from torch import Tensor

from diffcut_bench.evaluation import FEWEST_IMAGES, percentile_interval, resample
from diffcut_bench.reporting import common_images
from diffcut_bench.reproduction.spec import Claim
from diffcut_bench.reproduction.verdict import SLACK, Measure, Measured, Verdict
from diffcut_bench.scoring.summary import image_table
from diffcut_bench.store import ImageRow, check_published


@dataclass(frozen=True)
class Lead:
    """How far a row is ahead of the best of the others, in the table's unit; above 0 where it is better, also where a
    better score is a smaller one.

    Rows that were run are compared on the images that all of them were scored on. Of a row that was not run there is
    its published figure alone, which is known to the measure's tolerance, and of which no image can be resampled.

    Attributes:
        value: over the best of all, the mean over seeds of the noise.
        over_run: over the best of those that were run.
        resampled: likewise, of each bootstrap sample of the images; the same for all rows.
        lowest, highest: over the best of all in each sample, were the published figures a tolerance greater or less.
        images: that there are.
        by_seed: the value of each seed that all rows with noise have; empty where none was run with seeds.
    """

    value: float
    over_run: float
    resampled: Tensor
    lowest: Tensor
    highest: Tensor
    images: int
    by_seed: Mapping[int, float] = field(default_factory=dict)

    @property
    def deviation(self) -> float | None:
        """Standard deviation over seeds of the noise; None where it was not measured."""
        return stdev(self.by_seed.values()) if len(self.by_seed) > 1 else None

    @property
    def interval(self) -> tuple[float, float]:
        """Of the lead over those that were run, by the paired bootstrap, 95 %."""
        return _ends(self.resampled)

    @property
    def sign(self) -> str:
        """``ahead``, ``absent`` or ``reversed``.

        It is ahead of rows that were run if the interval lies above 0, and of a published figure by more than the
        tolerance; and reversed likewise.
        """
        ahead, behind = _ends(self.lowest)[0] > SLACK, _ends(self.highest)[1] < -SLACK
        return "ahead" if ahead else "reversed" if behind else "absent"

    def text(self, measure: Measure) -> str:
        """The value, and the interval of what has one: the lead over those that were run."""
        value, over_run, *ends = (
            measure.text(each, signed=True, more=1) for each in (self.value, self.over_run, *self.interval)
        )
        told = f"{over_run} ({ends[0]} – {ends[1]})"
        # Where a published figure is nearer in no sample, both leads are one.
        return told if torch.equal(self.lowest, self.resampled) else f"{value}, over those run {told}"


def measure_lead(
    ours: Measured, others: Sequence[Measured], measure: Measure, published: Sequence[float] = (), seed: int = 42
) -> Lead:
    """How far a row is ahead of the best of the others in one column.

    The best of the others is found anew in each sample: that it was picked for being the best is part of the interval.
    Runs with the same seed of the noise are compared, and each of them with a row that draws none.

    Args:
        ours: value of the row.
        others: values of the rows that it is set beside, at least one; all with the folder of their cells.
        measure: of the table.
        published: values of further rows that were not run.
        seed: of the bootstrap; columns of several data sets take different ones.

    Raises:
        UserError: rows of a cell can't be read.
        ValueError: the cells score different classes, or have no image or no seed of the noise in common.
    """
    rows = [ours, *others]
    with_noise = [[each.seed for each in row.seeds if each.seed is not None] for row in rows if row.seeds]
    seeds = _common(with_noise)
    if with_noise and not seeds:
        raise ValueError("no seed of the noise in common")
    draws = [[_drawn(row, number) for row in rows] for number in seeds] or [rows]
    cells = {cell.folder: cell for draw in draws for cell in draw}
    if len({cell.result.class_names for cell in cells.values() if cell.result is not None}) > 1:
        raise ValueError("other classes are scored")
    shared = common_images([_rows_of(cell) for cell in cells.values()])
    if not shared[0]:
        raise ValueError("no image in common")
    scored = {
        cell.folder: _scores(images, cell, measure, seed) for images, cell in zip(shared, cells.values(), strict=True)
    }
    stated = [(measure.sign * value, measure.tolerance(value, ours.deviation)) for value in published]
    best_stated, at_most, at_least = (
        max((value + side * tolerance for value, tolerance in stated), default=-inf) for side in (0, 1, -1)
    )
    values, over_run, resampled, lowest, highest = [], [], [], [], []
    for draw in draws:
        (own, sample), *beside = (scored[cell.folder] for cell in draw)
        ahead = sample - torch.stack([each for _, each in beside]).amax(dim=0)
        over_run.append(own - max(value for value, _ in beside))
        values.append(min(over_run[-1], own - best_stated))
        resampled.append(ahead)
        lowest.append(ahead.clamp_max(own - at_most))
        highest.append(ahead.clamp_max(own - at_least))
    return Lead(
        value=fmean(values),
        over_run=fmean(over_run),
        resampled=_mean(resampled),
        lowest=_mean(lowest),
        highest=_mean(highest),
        images=len(shared[0]),
        by_seed=dict(zip(seeds, values, strict=False)),  # one value and no seed, where there is no noise
    )


def mean_lead(leads: Sequence[Lead]) -> Lead:
    """The mean over columns; the images of one are not those of another, nor are their bootstrap samples."""
    seeds = _common([lead.by_seed for lead in leads if lead.by_seed])
    return Lead(
        value=fmean(lead.value for lead in leads),
        over_run=fmean(lead.over_run for lead in leads),
        resampled=_mean([lead.resampled for lead in leads]),
        lowest=_mean([lead.lowest for lead in leads]),
        highest=_mean([lead.highest for lead in leads]),
        images=min(lead.images for lead in leads),
        by_seed={number: fmean(lead.by_seed.get(number, lead.value) for lead in leads) for number in seeds},
    )


def check_lead(claim: Claim, leads: Mapping[str, Lead], measure: Measure, limits: Sequence[str]) -> tuple[str, Verdict]:
    """How far our row is ahead, in words, and whether that agrees with the text.

    It does if the row is ahead (in each column, or in their mean; see `Lead.sign`), and the size, where one is stated,
    differs from ours by no more than the measure's tolerance.

    Args:
        claim: of the text.
        leads: of the columns that could be compared.
        measure: of the table.
        limits: why they are not what the text is about.
    """
    if not leads:
        return "–", Verdict("not run", "; ".join(limits))
    told = leads if claim.each_column else {"": mean_lead(list(leads.values()))}
    sizes = {column: measure.text(lead.value, signed=True, more=1) for column, lead in {**leads, **told}.items()}
    few = [column for column, lead in leads.items() if lead.images < FEWEST_IMAGES]
    if few:
        limits = [*limits, f"fewer than {FEWEST_IMAGES} images of {', '.join(few)}, too few for an interval"]
    values = {column: sizes[column] if few else lead.text(measure) for column, lead in told.items()}
    said = "; ".join(f"{column} {value}".strip() for column, value in values.items())
    if len(leads) > len(told):
        said += "; " + ", ".join(f"{column} {sizes[column]}" for column in leads)
    shared = sorted({len(lead.by_seed) for lead in leads.values() if lead.by_seed})
    said += f"; seeds in common: {' – '.join(map(str, dict.fromkeys((shared[0], shared[-1]))))}" if shared else ""
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


def _common(seeds: Sequence[Iterable[int]]) -> list[int]:
    """Seeds of the noise that all have."""
    return sorted(set.intersection(*map(set, seeds))) if seeds else []


def _drawn(row: Measured, seed: int) -> Measured:
    """The run of a row with this seed of the noise; the row itself where it draws none."""
    return next((run for run in row.seeds if run.seed == seed), row)


def _mean(samples: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(samples)).mean(dim=0)


def _ends(samples: Tensor) -> tuple[float, float]:
    low, high = percentile_interval(samples[:, None])[:, 0].tolist()
    return low, high


def _rows_of(cell: Measured) -> list[ImageRow]:
    assert cell.folder is not None, "a cell of a table of scores"
    return check_published(cell.folder)[1]


def _scores(rows: Sequence[ImageRow], cell: Measured, measure: Measure, seed: int) -> tuple[float, Tensor]:
    """Score of rows, and that of their bootstrap samples; both so that greater is better.

    Raises:
        ValueError: these rows have no such score.
    """
    assert cell.result is not None and measure.metric is not None, "a cell of a table of scores"
    (told,) = resample(image_table(rows), [measure.metric], cell.result.protocol, seed=seed)
    unit = measure.sign * measure.scale
    return unit * told.scores[0].item(), unit * told.resampled[:, 0]
