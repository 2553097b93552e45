"""Whether a measured value agrees with the published one."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Literal

from diffcut_bench.store import Result

Word = Literal["reproduced", "differs", "limited", "not run", "not stated"]


@dataclass(frozen=True)
class Measure:
    """What a table's values are.

    Attributes:
        name: as headings say it.
        scale: from files to tables.
        digits: behind the point.
        tolerance: by which an interval is widened on either side before a published value is looked for in it; the
            paper's own rounding, and what another seed or library version moves.
    """

    name: str
    scale: float
    digits: int
    tolerance: float

    def text(self, value: float | None, *, signed: bool = False) -> str:
        """A value in the table's unit, halves rounded up as people do; a dash where there is none."""
        if value is None or value != value:
            return "–"
        rounded = Decimal(str(value)).quantize(Decimal(1).scaleb(-self.digits), ROUND_HALF_UP)
        return f"{rounded:{'+' if signed else ''}}".replace("-", "−")

    def plain(self, value: float | None) -> str:
        """The same for programs: two digits more; empty where there is none."""
        return "" if value is None or value != value else f"{value:.{self.digits + 2}f}"


MEASURES = {
    "miou": Measure("mIoU (%)", 100, 1, 0.5),
    "jaccard": Measure("mean of per-image Jaccard (%)", 100, 1, 0.5),
    "auc": Measure("AUC", 1, 3, 0.005),
    "images_per_s": Measure("images/s", 1, 2, 0.0),
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
        value, interval: in the table's unit.
        limits: why it is not the published cell.
        result: of the cell, if it is one.
        remark: what a reader of the table should know of it.
    """

    value: float
    interval: tuple[float, float] | None = None
    limits: tuple[str, ...] = ()
    result: Result | None = None
    remark: str = ""

    @staticmethod
    def of(result: Result, deviations: Sequence[str] = (), measure: str = "miou") -> "Measured":
        """MIoU, or the mean of per-image Jaccard, in % of a result.

        Args:
            result: of the cell.
            deviations: settings that differ from the published cell's.
            measure: ``miou`` or ``jaccard``; without names there is no Jaccard, and the cell is limited.
        """
        metrics, limits = result.metrics, (*missing_of(result), *deviations)
        value, (low, high) = metrics.miou, metrics.miou_ci95
        if measure == "jaccard":
            if metrics.mean_image_jaccard is None or metrics.mean_image_jaccard_ci95 is None:
                return Measured(float("nan"), None, (*limits, "segments are not named"), result)
            value, (low, high) = metrics.mean_image_jaccard, metrics.mean_image_jaccard_ci95
        return Measured(100 * value, (100 * low, 100 * high), limits, result)


def judge(published: float, measured: Measured, measure: Measure) -> Verdict:
    """Compare; a speed is reproduced when it is reached, whatever the machine.

    Args:
        published: in the table's unit.
        measured: likewise.
        measure: of the table.
    """
    if measured.limits:
        return Verdict("limited", "; ".join(measured.limits))
    if measured.interval is None:
        return Verdict("reproduced" if measured.value >= published else "differs")
    low, high = measured.interval
    agrees = low - measure.tolerance <= published <= high + measure.tolerance
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
