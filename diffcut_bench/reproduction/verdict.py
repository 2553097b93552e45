"""Whether a measured value agrees with the published one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from statistics import fmean, stdev
from typing import Literal

from diffcut_bench.evaluation import Metric, known_metrics
from diffcut_bench.store import Bracket, Result, Score

Word = Literal["reproduced", "differs", "limited", "not run", "not stated"]


@dataclass(frozen=True)
class Measure:
    """What a table's values are.

    Attributes:
        name: as headings say it.
        scale: from files to tables.
        digits: behind the point, as the paper prints them: values are rounded by half of the last.
        noise: what other noise, libraries and devices may move on the same images, where that was not measured.
        at_least: a value is reproduced when it is reached, whatever lies above.
        metric: whose score it is, if it is one.
        optimum: it is the score at the best of a row's settings: of one for the data set (``ods``), or of each image's
            own (``ois``).
    """

    name: str
    scale: float
    digits: int
    noise: float
    at_least: bool = False
    metric: Metric | None = None
    optimum: Literal["", "ods", "ois"] = ""

    @property
    def sign(self) -> int:
        """1 where greater is better, or neither; −1 where less is."""
        return 1 if self.metric is None else self.metric.sign

    def tolerance(self, stated: float, deviation: float | None = None) -> float:
        """How far ours may lie from a stated value: its rounding, and what the noise moves.

        Args:
            stated: the published value, or the size of a difference that the text gives. Digits beyond the measure's
                are taken as stated too: 71.68 is rounded by 0.005 and 65.2 by 0.05.
            deviation: standard deviation of our value over seeds of the noise; None: not measured.
        """
        return 0.5 * 10.0 ** -(self.digits + self.more_stated(stated)) + max(self.noise, 2 * (deviation or 0.0))

    def more_stated(self, value: float) -> int:
        """Digits of a published value beyond those that the paper prints."""
        return max(0, len(str(value).partition(".")[2]) - self.digits)

    def text(self, value: float | None, *, signed: bool = False, more: int = 0) -> str:
        """A value in the table's unit, halves rounded up as people do; a dash where there is none.

        Args:
            value: to be shown.
            signed: with a plus.
            more: digits beyond the published ones.
        """
        if value is None or value != value:
            return "–"
        rounded = Decimal(str(value)).quantize(Decimal(1).scaleb(-self.digits - more), ROUND_HALF_UP)
        return f"{rounded:{'+' if signed else ''}}".replace("-", "−")

    def plain(self, value: float | None) -> str:
        """The same for programs: two digits more; empty where there is none."""
        return "" if value is None or value != value else f"{value:.{self.digits + 2}f}"


# Two values that differ by the tolerance agree, also where binary fractions say that they just don't.
SLACK = 1e-9


def known_measures() -> dict[str, Measure]:
    """What tables may be of, by name: the score of any metric, that at the best of several settings (fractions with two
    digits, as they are published), a curve's area, a speed."""
    of_metrics = {
        name: Measure(
            f"{metric.heading} (%)" if metric.is_fraction else metric.heading,
            metric.scale,
            metric.digits,
            noise=0.3 if metric.is_fraction else 0.0,
            metric=metric,
        )
        for name, metric in known_metrics().items()
    }
    hows: tuple[Literal["ods", "ois"], ...] = ("ods", "ois")
    of_the_best = {
        f"{name}_{how}": Measure(f"{metric.heading} {how.upper()}", 1, 2, 0.0, metric=metric, optimum=how)
        for name, metric in known_metrics().items()
        for how in hows
        if metric.higher_is_better is not None
    }
    return {
        **of_metrics,
        **of_the_best,
        "auc": Measure("AUC", 1, 2, 0.005),
        "images_per_s": Measure("images/s", 1, 2, 0.0, at_least=True),
    }


@dataclass(frozen=True)
class Verdict:
    """``reproduced`` or ``differs``; ``limited`` where the cell is not the published one; ``not run``; ``not stated``
    where the paper has no value; and why."""

    word: Word
    why: str = ""

    def __str__(self) -> str:
        return f"{self.word}: {self.why}" if self.why else self.word


@dataclass(frozen=True)
class Measured:
    """Our value of a cell in the table's unit, its 95 % interval, and what makes it another cell than the published.

    Attributes:
        value: in the table's unit.
        interval: what other images of the kind would have given, by resampling; in the same unit.
        limits: why it is not the published cell.
        result: of the cell, if it is one.
        remark: what a reader of the table should know of it.
        folder: where the cell's rows of images lie.
        seeds: the value of each seed of the noise, where there are several and this is their mean.
        seed: of one of these.
        at: settings at which it was best, of a sweep with one for the data set.
        bracket: floor, ceiling and lift of the score, as results have them; None where they are not known.
    """

    value: float
    interval: tuple[float, float] | None = None
    limits: tuple[str, ...] = ()
    result: Result | None = None
    remark: str = ""
    folder: Path | None = None
    seeds: tuple["Measured", ...] = ()
    seed: int | None = None
    at: str = ""
    bracket: Bracket | None = None

    @staticmethod
    def of(result: Result, measure: str, deviations: Sequence[str] = (), folder: Path | None = None) -> "Measured":
        """What a table shows of a result: its score, or images a second.

        Args:
            result: of the cell.
            measure: name of a metric, or ``images_per_s``. A cell without this score is limited.
            deviations: settings that differ from the published cell's.
            folder: of the cell.
        """
        if measure == "images_per_s":
            return Measured(result.timings.images_per_s, None, tuple(deviations), result, folder=folder)
        metric, limits = known_metrics()[measure], (*missing_of(result), *deviations)
        score = result.scores.get(measure, Score(None))
        if score.value is None:
            why = metric.inapplicable(result.protocol) or f"no {metric.heading} was measured (if_exists=overwrite)"
            return Measured(float("nan"), None, (*limits, why), result, folder=folder)
        ends = (metric.scale * score.ci95[0], metric.scale * score.ci95[1]) if score.ci95 is not None else None
        bracket = result.reference.of(measure) if result.reference is not None else None
        return Measured(metric.scale * score.value, ends, limits, result, folder=folder, bracket=bracket)

    @staticmethod
    def mean(seeds: Sequence["Measured"], planned: int, why: str = "") -> "Measured":
        """The mean over seeds of the noise, with the means of their intervals' ends, floors, ceilings and lifts.

        Args:
            seeds: at least one.
            planned: how many there should be; the mean of fewer is limited.
            why: the others are not there.
        """
        lacking = (f"{len(seeds)} of {planned} seeds: {why}",) if len(seeds) < planned else ()
        ends = [each.interval for each in seeds if each.interval is not None]
        return replace(
            seeds[0],
            value=fmean(each.value for each in seeds),
            interval=(fmean(low for low, _ in ends), fmean(high for _, high in ends)) if ends else None,
            limits=tuple(dict.fromkeys([*lacking, *(limit for each in seeds for limit in each.limits)])),
            remark="; ".join(dict.fromkeys(each.remark for each in seeds if each.remark)),
            folder=None,
            seeds=tuple(seeds),
            seed=None,
            bracket=_mean_bracket([each.bracket for each in seeds if each.bracket is not None]),
        )

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the value over seeds of the noise; None where it was not measured."""
        return stdev(each.value for each in self.seeds) if len(self.seeds) > 1 else None


def _mean_bracket(brackets: Sequence[Bracket]) -> Bracket | None:
    """Means of values and of the ends of intervals; none of what a seed lacks."""

    def mean(scores: Sequence[Score]) -> Score:
        values = [score.value for score in scores if score.value is not None]
        ends = [score.ci95 for score in scores if score.ci95 is not None]
        if len(values) < len(scores):
            return Score(None)
        between = (fmean(low for low, _ in ends), fmean(high for _, high in ends)) if len(ends) == len(scores) else None
        return Score(fmean(values), between)

    if not brackets:
        return None
    return Bracket(*(mean([getattr(each, part) for each in brackets]) for part in ("floor", "ceiling", "lift")))


def judge(published: float, measured: Measured, measure: Measure) -> Verdict:
    """Whether ours is the published value, but for rounding and noise.

    Both are scores of the same images, so what other images would have given (the interval) excuses nothing.
    A speed is reproduced when it is reached, whatever the machine.

    Args:
        published: in the table's unit.
        measured: likewise.
        measure: of the table.
    """
    if measured.limits:
        return Verdict("limited", "; ".join(measured.limits))
    difference = measured.value - published
    if measure.at_least:
        difference = min(difference, 0.0)
    agrees = abs(difference) <= measure.tolerance(published, measured.deviation) + SLACK
    return Verdict("reproduced" if agrees else "differs")


def missing_of(result: Result) -> list[str]:
    """What a result lacks of the published split."""
    found = []
    dataset = result.dataset
    if result.limited:
        of = max(dataset.n_expected or 0, dataset.n_available or 0)
        found.append(f"{dataset.n_images} of {of} images" if of else f"{dataset.n_images} images")
    if result.failures:
        found.append(f"{len(result.failures)} images failed")
    return found
