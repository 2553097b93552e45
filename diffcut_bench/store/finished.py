"""The finished cells of an output folder, and which of them are shards of another one. Light: no torch."""

from collections.abc import Callable, Sequence
from pathlib import Path

from diffcut_bench.errors import UserError
from diffcut_bench.store.cells import cell_key
from diffcut_bench.store.published import read_result
from diffcut_bench.store.schema import Result

Found = tuple[Path, Result]  # a cell's folder and its result


def finished_cells(output_dir: Path, left_out: Callable[[Path, str], None]) -> list[Found]:
    """Folder and result of each finished cell, by name; ``left_out`` is told what can't be read, and why."""
    found: list[Found] = []
    for path in sorted(output_dir.glob("results/*/result.json")):
        try:
            found.append((path.parent, read_result(path.parent)))
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
