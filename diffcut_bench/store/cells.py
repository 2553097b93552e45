"""A cell on disk: a journal while it runs, one finished folder afterwards.

``<output_dir>/unfinished/<key>/`` holds the journal (a line for each batch, appended) and the pictures so far; when
the last image is counted, the finished files are added and one rename makes it
``<output_dir>/results/<title>-<key>/``. If the process is killed, at most the current batch is lost. One process at a
time writes a cell (`CellLock`).
"""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from diffcut_bench.store.atomic import make_folder, remove_leftovers, sync_folder, unwritable, write_atomically
from diffcut_bench.store.lock import CellLock
from diffcut_bench.store.published import DamagedError, check_published, publish
from diffcut_bench.store.rows import ImageRow, Progress, append_to_journal, join_progress, read_journal
from diffcut_bench.store.schema import Failure, Result, Timings

ABOUT = "cell.json"  # what an unfinished cell is
_OF_WORK = (ABOUT, "overwrites")  # what a finished one has no use for
_SHORT = 12


def cell_key(identity: dict[str, Any]) -> str:
    """SHA-256 of the canonical JSON (sorted keys, no spaces, 5.0 as 5) of everything that can change the numbers."""
    canonical = json.dumps(_canonical(identity), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _canonical(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


class Cell:
    """Reads and writes one cell.

    Args:
        output_dir: root of all that runs write.
        title: readable part of the folder's name.
        key: of the cell.
        rank: of this process, where several work on the cell: each appends to a journal of its own, all are read.

    Attributes:
        about: for those who look at the cell while it runs (`store.unfinished_cells`): ``images``, how many it is of,
            and ``config``, as others may see it. Whoever runs the cell says so.
        damage: what is wrong with the finished folder, once `result` has looked at it; None if nothing is.
    """

    def __init__(self, output_dir: Path, title: str, key: str, rank: int = 0) -> None:
        self.finished_dir = output_dir / "results" / f"{title}-{key[:_SHORT]}"
        self.work_dir = output_dir / "unfinished" / key[:_SHORT]
        self.about: dict[str, Any] = {}
        self.damage: DamagedError | None = None
        self._key, self._title = key, title
        self._lock = CellLock(output_dir / ".locks" / f"{key[:_SHORT]}.lock")
        self._journal = self.work_dir / (f"journal-{rank}.jsonl" if rank else "journal.jsonl")

    def result(self) -> Result | None:
        """The finished result; None if there is none, or a damaged one.

        Raises:
            UserError: a newer version wrote it.
        """
        self.damage = None
        if not self.finished_dir.is_dir():
            return None
        try:
            return check_published(self.finished_dir, self._key)[0]
        except DamagedError as error:
            self.damage = error
            return None

    def claim(self) -> bool:
        """Become the one process that writes this cell, unless another one is.

        Raises:
            UserError: the folder can't be written.
        """
        if not self._lock.acquire():
            return False
        remove_leftovers(self.work_dir)
        return True

    def wait(self, waiting: Callable[[str], None]) -> None:
        """`claim`, as soon as the process that writes this cell has ended; ``waiting`` is told who that is."""
        self._lock.wait(waiting)

    def holder(self) -> str:
        """Who writes this cell, in words."""
        return self._lock.holder()

    def give_back(self) -> None:
        """Let another process write this cell."""
        self._lock.release()

    def start_over(self) -> None:
        """Begin again, or continue an interrupted new beginning; a finished result stays until it is replaced."""
        marker = self.work_dir / "overwrites"
        if not marker.is_file():
            shutil.rmtree(self.work_dir, ignore_errors=True)
            write_atomically(marker, "")

    def reopen(self) -> None:
        """Turn a finished cell into an interrupted one without its failures, so that those images are tried again.

        If it is killed half-way, it can be called again.
        """
        result, rows = check_published(self.finished_dir, self._key, prototypes=True)
        pictures = self.finished_dir / "pictures"
        if pictures.is_dir():
            shutil.copytree(pictures, self.work_dir / "pictures", dirs_exist_ok=True)
        have = {row.index for row in self.progress().rows}
        rows = [row for row in rows if row.index not in have]
        if rows:
            self.append(rows, {}, Timings() if have else result.timings)

    def progress(self) -> Progress:
        """What the journals hold; each image counts once."""
        return join_progress(self.parts())

    def parts(self) -> list[Progress]:
        """What each journal holds."""
        return [read_journal(path) for path in sorted(self.work_dir.glob("journal*.jsonl"))]

    def append(self, rows: list[ImageRow], failures: dict[int, Failure], timings: Timings) -> None:
        """Add a batch to the journal.

        Raises:
            UserError: the folder can't be written.
        """
        try:
            make_folder(self.work_dir)
            note = self.work_dir / ABOUT
            if self.about and not note.exists():
                write_atomically(note, json.dumps({"key": self._key, "title": self._title, **self.about}))
            append_to_journal(self._journal, rows, failures, timings)
        except OSError as error:
            raise unwritable(self._journal, error) from error

    def finish(self, result: Result, rows: list[ImageRow], config_yaml: str, images: Collection[int]) -> None:
        """Write the finished folder, and give it its name with one rename.

        Args:
            result, rows, config_yaml: its contents.
            images: indices in the data set that the cell is of: each has to be in the rows or the failures, once.

        Raises:
            UserError: it is not complete, or the folder can't be written.
        """
        publish(self.work_dir, result, rows, config_yaml, images)
        replaced = self.work_dir.with_suffix(".replaced")
        try:
            make_folder(self.finished_dir.parent)
            if self.finished_dir.exists():
                shutil.rmtree(replaced, ignore_errors=True)
                self.finished_dir.rename(replaced)
            self.work_dir.rename(self.finished_dir)
            sync_folder(self.finished_dir.parent)
            sync_folder(self.work_dir.parent)
            shutil.rmtree(replaced, ignore_errors=True)
            for leftover in (
                *self.finished_dir.glob("journal*.jsonl"),
                *(self.finished_dir / name for name in _OF_WORK),
            ):
                leftover.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # other cells are running
                self.work_dir.parent.rmdir()
        except OSError as error:
            raise unwritable(self.finished_dir, error) from error

    def discard(self) -> None:
        """Delete what is left of the journals, on a machine that did not write the finished folder."""
        shutil.rmtree(self.work_dir, ignore_errors=True)
