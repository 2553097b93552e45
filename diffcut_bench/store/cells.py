"""A cell on disk: a journal while it runs, one finished folder afterwards.

``<output_dir>/unfinished/<key>/`` holds the journal (a line for each batch, appended) and the pictures so far; when
the last image is counted, result.json and per_image.parquet join them and one rename makes it
``<output_dir>/results/<title>-<key>/``. A kill at any moment loses at most the batch in flight.
"""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from diffcut_bench.errors import UserError
from diffcut_bench.store.atomic import unwritable, write_atomically
from diffcut_bench.store.schema import Failure, Result, Timings

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


@dataclass(frozen=True)
class ImageRow:
    """What is kept of one scored image; a row of per_image.parquet."""

    index: int  # place in the data set
    id: str
    segments: int  # segments of the partition, before concept assignment and background rule
    pixels: int  # scored pixels (void left out)
    tp: list[int]  # pixels, one entry a class
    fp: list[int]
    fn: list[int]
    # Entries [class, cluster, pixels] where clusters are matched once for the data set; counts follow at the end.
    table: list[list[int]] | None = None


@dataclass(frozen=True)
class Progress:
    """What an interrupted cell had done."""

    rows: list[ImageRow]
    failures: dict[int, Failure]  # by place in the data set
    timings: Timings


class Cell:
    """Reads and writes one cell.

    Args:
        output_dir: root of all that runs write.
        title: readable part of the folder's name.
        key: of the cell.
        rank: of this process, where several work on the cell: each appends to a journal of its own, all are read.
    """

    def __init__(self, output_dir: Path, title: str, key: str, rank: int = 0) -> None:
        self.finished_dir = output_dir / "results" / f"{title}-{key[:_SHORT]}"
        self.work_dir = output_dir / "unfinished" / key[:_SHORT]
        self._journal = self.work_dir / (f"journal-{rank}.jsonl" if rank else "journal.jsonl")

    def result(self) -> Result | None:
        """The finished result, if there is one."""
        return read_result(self.finished_dir) if (self.finished_dir / "result.json").is_file() else None

    def start_over(self) -> None:
        """Begin anew, or go on with an interrupted new beginning; a finished result stays until it is replaced."""
        marker = self.work_dir / "overwrites"
        if not marker.is_file():
            shutil.rmtree(self.work_dir, ignore_errors=True)
            write_atomically(marker, "")

    def reopen(self) -> None:
        """Turn a finished cell into an interrupted one without its failures, so that those images are tried again."""
        result = self.result()
        if result is None or self._journals():
            return
        rows = read_rows(self.finished_dir)
        pictures = self.finished_dir / "pictures"
        if pictures.is_dir():
            shutil.copytree(pictures, self.work_dir / "pictures")
        self.append(rows, {}, result.timings)

    def progress(self) -> Progress:
        """What the journals hold. A last line that a kill cut off is passed over, and so are images counted twice."""
        return join_progress(self.parts())

    def parts(self) -> list[Progress]:
        """What each journal holds."""
        return [_read_journal(path) for path in self._journals()]

    def _journals(self) -> list[Path]:
        return sorted(self.work_dir.glob("journal*.jsonl"))

    def append(self, rows: list[ImageRow], failures: dict[int, Failure], timings: Timings) -> None:
        """Add a batch to the journal.

        Raises:
            UserError: the folder can't be written.
        """
        entry = {
            "rows": [asdict(row) for row in rows],
            "failures": {index: asdict(failure) for index, failure in failures.items()},
            "timings": asdict(timings),
        }
        try:
            self.work_dir.mkdir(parents=True, exist_ok=True)
            with self._journal.open("ab") as file:
                # A leading newline ends a line that an earlier kill cut off.
                file.write(b"\n" + json.dumps(entry).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise unwritable(self._journal, error) from error

    def finish(self, result: Result, rows: list[ImageRow], config_yaml: str) -> None:
        """Write the finished folder and put it in place with one rename.

        Raises:
            UserError: the folder can't be written.
        """
        write_atomically(self.work_dir / "per_image.parquet", _parquet(rows))
        write_atomically(self.work_dir / "config.yaml", config_yaml)
        write_atomically(self.work_dir / "result.json", result.to_json())
        try:
            self.finished_dir.parent.mkdir(parents=True, exist_ok=True)
            if self.finished_dir.exists():
                replaced = self.work_dir.with_name(f"{self.work_dir.name}.replaced")
                shutil.rmtree(replaced, ignore_errors=True)
                self.finished_dir.rename(replaced)
                self.work_dir.rename(self.finished_dir)
                shutil.rmtree(replaced)
            else:
                self.work_dir.rename(self.finished_dir)
            for leftover in (*self.finished_dir.glob("journal*.jsonl"), self.finished_dir / "overwrites"):
                leftover.unlink(missing_ok=True)
            if not any(self.work_dir.parent.iterdir()):
                self.work_dir.parent.rmdir()
        except OSError as error:
            raise unwritable(self.finished_dir, error) from error

    def discard(self) -> None:
        """Take away what is left of the journals, on a machine that has not written the finished folder."""
        shutil.rmtree(self.work_dir, ignore_errors=True)


def join_progress(parts: Sequence[Progress]) -> Progress:
    """What processes that worked side by side did together: work adds up, and the wall clock is the slowest's.

    Processes that see one disk all bring the same journals: equal parts count once.
    """
    parts = [part for place, part in enumerate(parts) if part not in parts[:place]]
    rows = {row.index: row for part in parts for row in part.rows}
    failures = {index: failure for part in parts for index, failure in part.failures.items() if index not in rows}
    timings = reduce(Timings.plus, (part.timings for part in parts), Timings())
    wall = max((part.timings.wall_s for part in parts), default=0.0)
    return Progress([rows[index] for index in sorted(rows)], failures, replace(timings, wall_s=wall))


def _read_journal(path: Path) -> Progress:
    rows: dict[int, ImageRow] = {}
    failures: dict[int, Failure] = {}
    timings = Timings()
    for line in path.read_text(errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        rows |= {row["index"]: ImageRow(**row) for row in entry["rows"]}
        failures |= {int(index): Failure(**failure) for index, failure in entry["failures"].items()}
        timings = timings.plus(Timings(**entry["timings"]))
    failed = {index: failures[index] for index in failures if index not in rows}
    return Progress([rows[index] for index in sorted(rows)], failed, timings)


def read_result(finished_dir: Path) -> Result:
    """The result of a finished cell.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = finished_dir / "result.json"
    try:
        return Result.from_json(path.read_text())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"result can't be read ({error})", str(path), "if_exists=overwrite computes it again"
        ) from error


def read_rows(finished_dir: Path) -> list[ImageRow]:
    """Rows of a finished cell's per_image.parquet.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = finished_dir / "per_image.parquet"
    try:
        return [ImageRow(**row) for row in pq.read_table(path).to_pylist()]
    except (OSError, pa.ArrowException, TypeError) as error:
        reason = str(error).splitlines()[0]
        hint = "compute the cell again with if_exists=overwrite"
        raise UserError(f"rows of this cell can't be read ({reason})", str(path), hint) from error


def _parquet(rows: list[ImageRow]) -> bytes:
    counts = pa.list_(pa.int64())
    schema = pa.schema(
        [
            *(("index", pa.int64()), ("id", pa.string()), ("segments", pa.int64()), ("pixels", pa.int64())),
            *(("tp", counts), ("fp", counts), ("fn", counts)),
        ]
    )
    if any(row.table is not None for row in rows):
        schema = schema.append(pa.field("table", pa.list_(counts)))
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([asdict(row) for row in rows], schema=schema), buffer)
    return buffer.getvalue()
