"""The interface of a tracker: finished cells and sweeps, told to another program. Results on disk stay the truth."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from diffcut_bench.datasets import SegmentationDataset
from diffcut_bench.scoring.pipeline import Outcome
from diffcut_bench.store import Result


class Tracker(Protocol):
    """What ``tracker=NAME`` builds.

    Both methods return lines for the user, such as where the run is; what they raise becomes such a line.
    """

    def log_cell(
        self,
        folder: Path,
        result: Result,
        dataset: SegmentationDataset,
        outcomes: Callable[[int], Iterable[Outcome]],
        group: str | None = None,
    ) -> list[str]:
        """Log a finished cell.

        Args:
            folder, result: of the cell.
            dataset: that was scored.
            outcomes: gives up to so many scored images.
            group: name of the sweep or table that the cell belongs to.
        """

    def log_sweep(self, name: str, results: Sequence[Result]) -> list[str]:
        """Log a sweep, after its cells.

        Args:
            name: of the sweep.
            results: of its cells.
        """
