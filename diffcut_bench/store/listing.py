"""The cells of an output folder: finished ones, which of these are shards of another, and unfinished ones. No torch."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffcut_bench.errors import UserError
from diffcut_bench.store.cells import ABOUT, cell_key
from diffcut_bench.store.lock import CellLock
from diffcut_bench.store.published import check_key, read_result
from diffcut_bench.store.rows import join_progress, read_journal
from diffcut_bench.store.schema import Result, typed

Found = tuple[Path, Result]  # a cell's folder and its result


def finished_cells(output_dir: Path, left_out: Callable[[Path, str], None]) -> list[Found]:
    """Folder and result of each finished cell, by name; ``left_out`` is told what can't be read, and why."""
    found: list[Found] = []
    for path in sorted(output_dir.glob("results/*/result.json")):
        try:
            result = read_result(path.parent)
            check_key(path.parent, result)  # or it would stand for the cell whose key it has
            found.append((path.parent, result))
        except UserError as error:
            left_out(path, error.what)
    return found


def whole_key(result: Result) -> str:
    """Key of the cell that a shard is of; of any other cell its own, and of an older one that does not say what its key
    is made of the empty text."""
    if result.shard is None:
        return result.key
    return cell_key({**result.identity, "shard": None}) if result.identity else ""


def without_covered(found: Sequence[Found]) -> list[Found]:
    """The cells without the shards of those that are there as a whole: their scores are of fewer images of the same."""
    wholes = {result.key for _, result in found if result.shard is None}
    return [(folder, result) for folder, result in found if result.shard is None or whole_key(result) not in wholes]


@dataclass(frozen=True)
class About:
    """What whoever runs a cell says of it; nothing in folders of an older version."""

    key: str = ""
    title: str = ""
    images: int | None = None  # that it is of
    config: dict[str, Any] = field(default_factory=dict)  # as others may see it


@dataclass(frozen=True)
class Unfinished:
    """A cell that runs or was interrupted: its folder, what it is, images done and failed so far."""

    folder: Path
    about: About
    done: int
    failed: int
    when: float  # of its last batch, in seconds since 1970
    runs: bool  # a process on this machine is at it


def unfinished_cells(output_dir: Path, left_out: Callable[[Path, str], None]) -> list[Unfinished]:
    """Cells with a journal, by key; ``left_out`` is told what can't be read, and why."""
    found: list[Unfinished] = []
    for folder in sorted({path.parent for path in output_dir.glob("unfinished/*/journal*.jsonl")}):
        note, about = folder / ABOUT, About()
        try:
            journals = sorted(folder.glob("journal*.jsonl"))
            progress = join_progress([read_journal(path) for path in journals])
            when = max(path.stat().st_mtime for path in journals)
            if note.is_file():
                about = typed(About, json.loads(note.read_text()), ABOUT)
        except (OSError, ValueError, RecursionError) as error:
            left_out(folder, f"can't be read ({error})")
            continue
        runs = CellLock(output_dir / ".locks" / f"{folder.name}.lock").is_held()
        found.append(Unfinished(folder, about, len(progress.rows), len(progress.failures), when, runs))
    return found
