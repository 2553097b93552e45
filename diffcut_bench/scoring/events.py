"""What a pass over the images tells while it runs: one object, a method for each event."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from diffcut_bench.config import RunConfig
from diffcut_bench.datasets import SegmentationDataset
from diffcut_bench.errors import UserError
from diffcut_bench.scoring.pipeline import Outcome
from diffcut_bench.scoring.stages import Pipeline
from diffcut_bench.store import Result


@dataclass(frozen=True)
class FinishedCell:
    """Where a cell lies, its result, and whether it had been finished before."""

    folder: Path
    result: Result
    skipped: bool


class Report(Protocol):
    """How a walk over something tells how far it is. It begins with how many were done before (0, or more after an
    interruption), so that speed and time left are those of its own work."""

    def __call__(self, done: int, total: int | None, seconds: Mapping[str, float] | None = None) -> None:
        """So many of so many (None: nobody knows) are done, and the stages took so many seconds so far."""


class Observer:
    """Is told what happens in a pass; here it does nothing. Derive from it and define the methods that you want.

    Attributes:
        draws: whether `draw` writes pictures; where not, images are not scored again for pictures that are missing.
    """

    draws = False

    def begin(self, configs: Sequence[RunConfig]) -> None:
        """A pass begins that scores these cells."""

    def say(self, line: str) -> None:
        """Something that the user should know: what the feature store takes, a damaged file, who is waited for."""

    def progress(self, what: str, unit: str) -> AbstractContextManager[Report]:
        """A walk over something begins, for as long as the context is open."""
        return nullcontext(lambda done, total, seconds=None: None)

    def preparing(self, done: int, total: int) -> None:
        """So many pairs of the data set are prepared."""

    def stages(self, seconds: Mapping[str, float]) -> None:
        """Seconds that went into each stage so far, by their names in `Timings`; `scored` is next."""

    def scored(self, done: int, total: int) -> None:
        """So many images of this process are scored or have failed."""

    def draw(self, outcome: Outcome, dataset: SegmentationDataset, path: Path) -> None:
        """Write the picture of an image to the path."""

    def explore(self, outcome: Outcome, pipeline: Pipeline, dataset: SegmentationDataset, path: Path) -> None:
        """Write the page of an image, whose cell has a tree (`Pipeline.tree_method`), to the path."""

    def finished(
        self, cell: FinishedCell, dataset: SegmentationDataset, outcomes: Callable[[int], Iterator[Outcome]]
    ) -> None:
        """A cell is on disk, as are all others of its pass; ``outcomes(n)`` scores its first n images once more."""

    def end(self, ended: Sequence[FinishedCell | UserError]) -> None:
        """The pass is over: how each cell ended; nothing where the pass itself failed."""
