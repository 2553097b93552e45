"""What is kept of each image, and the journal that a running cell adds to: a checked line for each batch."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffcut_bench.store.journal import append_line, parse_lines
from diffcut_bench.store.schema import Failure, Timings, typed


@dataclass(frozen=True)
class ImageRow:
    """What is kept of one scored image; a row of per_image.parquet."""

    index: int  # in the data set
    id: str
    segments: int  # segments of the partition, before concept assignment and background rule
    pixels: int  # scored pixels (void left out)
    tp: list[int]  # pixels, one entry a class
    fp: list[int]
    fn: list[int]
    # Entries [class, cluster, pixels] where clusters are matched once for the data set; counts follow at the end.
    table: list[list[int]] | None = None
    void: int | None = None  # pixels that are left out; None in older files
    # By a metric's name, its statistic where it looks at the image itself; None or absent where it did not.
    measured: dict[str, list[float] | None] = field(default_factory=dict)
    # Of segments that a linker compares: their prototypes, see `pack_prototypes`; None where there is none.
    prototypes: str | None = None

    def unpack_prototypes(self) -> NDArray[np.float16]:
        """Prototypes [segments, channels] of the segments of the table, in ascending order of their numbers.

        Raises:
            ValueError: there are none, they are not of as many segments, or not finite.
        """
        if self.prototypes is None or self.table is None:
            raise ValueError(f"there are no prototypes of {self.id}")
        segments = len({cluster for _, cluster, _ in self.table})
        numbers = np.frombuffer(base64.b64decode(self.prototypes, validate=True), "<f2")
        if bool(segments) != bool(len(numbers)) or (segments and len(numbers) % segments):
            raise ValueError(f"{len(numbers)} numbers are no prototypes of the {segments} segments of {self.id}")
        if not np.isfinite(numbers).all():
            raise ValueError(f"the prototypes of {self.id} are not finite")
        return numbers.reshape(segments, -1) if segments else numbers.reshape(0, 0)


def pack_prototypes(prototypes: NDArray[np.float16]) -> str:
    """Rows of 16-bit floating-point numbers, little end first, in base64: four bytes for every three, and one form for
    a line of JSON and a column of parquet; a list of numbers in text would take four times that."""
    return base64.b64encode(prototypes.astype("<f2").tobytes()).decode()


@dataclass(frozen=True)
class Progress:
    """What an interrupted cell had done.

    Attributes:
        rows: by index in the data set, each image once.
        failures: by index in the data set.
        timings: of all that was done.
        damaged: lines that were cut off, changed, or written by another version; their images have to be done again.
    """

    rows: list[ImageRow]
    failures: dict[int, Failure]
    timings: Timings
    damaged: int = 0

    def of(self, ids: Mapping[int, str]) -> "Progress":
        """The part that is of these images, whose ids are given by index in the data set."""
        rows = [row for row in self.rows if ids.get(row.index) == row.id]
        failures = {index: failure for index, failure in self.failures.items() if ids.get(index) == failure.id}
        return replace(self, rows=rows, failures=failures)


def append_to_journal(path: Path, rows: Sequence[ImageRow], failures: Mapping[int, Failure], timings: Timings) -> None:
    """Add a batch as one line, and see it to the disk.

    Args:
        path: of the journal, in a folder that exists and is named by the cell's key: a line of another cell is not
            taken for one of this.
        rows, failures, timings: of the batch.
    """
    append_line(path, asdict(Progress(list(rows), dict(failures), timings)), path.parent.name)


def read_journal(path: Path) -> Progress:
    """What the journal of a cell holds. Lines that are not as they were written are passed over and counted."""
    batches = []
    for entry in parse_lines(path.read_bytes(), path.parent.name):
        try:
            batches.append(typed(Progress, entry))
        except (ValueError, RecursionError):
            batches.append(Progress([], {}, Timings(), damaged=1))
    return _merged(batches)


def join_progress(parts: Sequence[Progress]) -> Progress:
    """What processes that worked side by side did together: work adds up, and the wall clock is the slowest's.

    Processes that see one disk all bring the same journals: equal parts count once.
    """
    whole = _merged([part for i, part in enumerate(parts) if part not in parts[:i]])
    wall_s = max((part.timings.wall_s for part in parts), default=0.0)
    return replace(whole, timings=replace(whole.timings, wall_s=wall_s))


def _merged(parts: Sequence[Progress]) -> Progress:
    """Each image once, as it was done last, and the sum of the work; an image that has a row did not fail."""
    rows = {row.index: row for part in parts for row in part.rows}
    failures = {index: failure for part in parts for index, failure in part.failures.items() if index not in rows}
    timings = reduce(Timings.plus, (part.timings for part in parts), Timings())
    return Progress([rows[index] for index in sorted(rows)], failures, timings, sum(part.damaged for part in parts))
