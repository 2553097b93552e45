"""Metrics, one file each: a module of this folder with a ``METRIC`` is one, and nothing else has to name it. Others
come from outside the package (`diffcut_bench.extensions`).

A metric is a statistic of each image, of which sums over images are taken, and a reduction of these sums to a score. So
scores of data sets, their intervals and paired differences all come from one table of images
(`diffcut_bench.evaluation.scores`). docs/adding_a_metric.md has a worked example.
"""

import importlib.util
import math
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffcut_bench.errors import UserError
from diffcut_bench.evaluation.images import AbsentClasses, ImageTable, ScoredImage
from diffcut_bench.extensions import METRICS, describe, installed, option_folders
from diffcut_bench.traces import error_in_code, message_of

_METRIC = re.compile(r"^METRIC\s*[:=]", re.MULTILINE)  # in a file that is one; others are not run to find out


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How a score comes from images, and how it is told.

    Attributes:
        name: in result.json's ``scores`` and as ``measure`` of a reproduction.
        heading: in tables.
        statistic: of each image, from what is kept of all images anyway; its sums over images are all that a score
            depends on. None for what `measure` gives.
        measure: statistic of one image, taken while the image is scored and kept with its row; as many numbers for
            each image. It returns None where there is nothing to measure, as on a data set without background. None
            where the counts suffice.
        reduce: score from sums of statistics. None: the mean over classes, where the protocol's ``absent_classes``
            decides on those without a score.
        per_class: score of each class from sums of statistics, NaN for a class that has none.
        inapplicable: why there is no such score under these choices of a protocol, by name; empty where there is.
        higher_is_better: None where neither is.
        is_fraction: a score in [0, 1], shown in %.
        digits: behind the point in tables.
        order: of columns, low ones first.
        in_tables: it is a column of tables of results, also where nobody asked for it.
        has_interval_column: tables of results show its 95 % interval beside it.
        class_heading: over the scores of classes; the heading unless given.
        about: note under tables that show it.
    """

    name: str
    heading: str
    statistic: Callable[[ImageTable], Float[Tensor, "images columns"]] | None = None
    measure: Callable[[ScoredImage], Sequence[float] | None] | None = None
    reduce: Callable[[Float[Tensor, "*batch columns"]], Float[Tensor, "*batch"]] | None = None
    per_class: Callable[[Float[Tensor, "*batch columns"]], Float[Tensor, "*batch classes"]] | None = None
    inapplicable: Callable[[Mapping[str, Any]], str] = lambda choices: ""
    higher_is_better: bool | None = True
    is_fraction: bool = True
    digits: int = 1
    order: int = 50
    in_tables: bool = True
    has_interval_column: bool = False
    class_heading: str = ""
    about: str = ""

    def __post_init__(self) -> None:
        if (self.statistic is None) == (self.measure is None):
            raise ValueError(f"metric {self.name}: a statistic of the table, or a measure of each image, and not both")
        if self.reduce is None and self.per_class is None:
            raise ValueError(f"metric {self.name}: it reduces to no score, neither by itself nor over classes")

    @property
    def sign(self) -> int:
        """−1 where less is better, else 1: times this, more is never worse."""
        return -1 if self.higher_is_better is False else 1

    def merit(self, value: float | None) -> float:
        """A score so that more is better; −inf for none."""
        return -math.inf if value is None or value != value else self.sign * value

    @property
    def scale(self) -> int:
        """From files to tables: 100 for a fraction."""
        return 100 if self.is_fraction else 1

    def text(self, value: float | None) -> str:
        """A score as tables show it: a fraction of 0.652 as 65.2; None and NaN as a dash."""
        if value is None or value != value:
            return "–"
        return f"{self.scale * value:.{self.digits}f}".replace("-", "−")

    def missing_in(self, images: ImageTable, choices: Mapping[str, Any]) -> bool:
        """Whether these images have no such score: they were not measured, or the protocol's choices rule it out."""
        return (self.measure is not None and self.name not in images.measured) or bool(self.inapplicable(choices))

    def statistics(self, images: ImageTable) -> Float[Tensor, "images columns"]:
        """What sums are taken of, in double precision.

        Raises:
            ValueError: it was not measured on all images.
        """
        if self.statistic is not None:
            return self.statistic(images).double()
        if self.name not in images.measured:
            raise ValueError(f"no {self.heading} was measured on these images; if_exists=overwrite scores them again")
        return images.measured[self.name]

    def scored_images(self, images: ImageTable) -> int:
        """How many images the score is over: those whose statistic is not zero throughout."""
        return int((self.statistics(images) != 0).any(dim=1).sum())

    def scores(
        self, sums: Float[Tensor, "*batch columns"], absent_classes: AbsentClasses = "nan"
    ) -> Float[Tensor, "*batch scores"]:
        """The score of sums of statistics, and after it that of each class where classes have one."""
        classes = sums[..., :0] if self.per_class is None else self.per_class(sums)
        if self.reduce is not None:
            score = self.reduce(sums)
        elif absent_classes == "zero":
            score = classes.nan_to_num(nan=0.0).mean(dim=-1)
        else:
            score = classes.nanmean(dim=-1)
        return torch.cat([score[..., None], classes], dim=-1)

    def of_each(self, images: ImageTable) -> Float[Tensor, " images"]:
        """The score of each image alone; NaN where it has none."""
        return self.scores(self.statistics(images))[:, 0]


def known_metrics() -> dict[str, Metric]:
    """Every metric by name, in the order of tables: those of this folder, those in ``metrics/`` of each folder of the
    search path, and those of installed packages (entry points ``diffcut_bench.metrics``).

    Raises:
        UserError: two have one name, or one of them can't be loaded.
    """
    return _known(option_folders(), installed(METRICS))


@cache
def _known(folders: Sequence[Path], entries: Sequence[EntryPoint]) -> dict[str, Metric]:
    modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    found: list[tuple[Metric, str]] = [(each.METRIC, str(each.__file__)) for each in modules if hasattr(each, "METRIC")]
    for path in (path for folder in folders for path in sorted(folder.glob("metrics/*.py"))):
        if _holds_metric(path):
            found.append((_loaded(partial(_module_in, path), str(path)), str(path)))
    found += [(_loaded(entry.load, describe(entry)), describe(entry)) for entry in entries]
    metrics: dict[str, Metric] = {}
    places: dict[str, str] = {}
    for metric, place in sorted(found, key=lambda each: (each[0].order, each[0].name)):
        if metric.name in metrics:
            raise UserError(
                f"two metrics have one name: {metric.name}", f"{places[metric.name]}, {place}", "rename one"
            )
        metrics[metric.name], places[metric.name] = metric, place
    return metrics


def _holds_metric(path: Path) -> bool:
    """Whether a file is a metric.

    Raises:
        UserError: it can't be read.
    """
    try:
        return not path.is_dir() and _METRIC.search(path.read_text("utf-8", errors="replace")) is not None
    except OSError as error:
        what = f"a metric can't be read ({error.strerror or error})"
        raise UserError(what, str(path), "mend this metric, or take it away") from error


def _loaded(load: Callable[[], Any], place: str) -> Metric:
    """A metric from outside: what is loaded, or the ``METRIC`` of it."""
    try:
        loaded = load()
    except (Exception, SystemExit) as error:  # whatever is wrong in somebody's file
        raise error_in_code(error, place, "mend this metric, or take it away") from error
    metric = getattr(loaded, "METRIC", loaded)
    if not isinstance(metric, Metric):
        raise UserError("there is no METRIC", place, "write METRIC = Metric(…): docs/adding_a_metric.md")
    return metric


def _module_in(path: Path) -> ModuleType:
    """A file of Python, run as a module of its own that can't be imported by name."""
    spec = importlib.util.spec_from_file_location(f"diffcut_bench_metric_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measure_image(images: Sequence[ScoredImage], choices: Mapping[str, Any]) -> dict[str, list[float] | None]:
    """What the metrics that look at the image itself keep of it, by name; None: there was nothing to measure.

    Args:
        images: one prediction scored against each annotator's labels. What is kept is the mean over annotators.
        choices: of the protocol, by name.

    Raises:
        Exception: whatever a metric raises, with its name.
    """
    found: dict[str, list[float] | None] = {}
    for metric in known_metrics().values():
        if metric.measure is not None and not metric.inapplicable(choices):
            try:
                measured = [metric.measure(image) for image in images]
                told = [each for each in measured if each is not None]
                sums = [sum(map(float, numbers)) for numbers in zip(*told, strict=True)]
                found[metric.name] = [number / len(told) for number in sums] if told else None
            except Exception as error:
                error.args = (f"metric {metric.name}: {message_of(error)}",)
                raise
    return found


def needs_classes(choices: Mapping[str, Any]) -> str:
    """Why a score of classes can't be told: the annotated regions have none (``matching=regions``)."""
    return "annotated regions have no classes" if choices.get("matching") == "regions" else ""


def ratio(sums: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
    """The first sum over the second: the mean over images of a statistic [value, 1], which is [0, 0] for an image that
    has no value; NaN where no image has one."""
    return sums[..., 0] / sums[..., 1]
