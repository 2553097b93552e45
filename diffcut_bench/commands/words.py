"""The words of a command line that stand for themselves (folders, cells, pictures, names), and overrides,
``KEY=VALUE``."""

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from diffcut_bench.config import load_config
from diffcut_bench.errors import UserError, did_you_mean
from diffcut_bench.paths import expanded
from diffcut_bench.store import Result, finished_cells, read_result, without_covered

_OVERRIDE = re.compile(r"[+~]*[\w./@-]+=")


def split_words(words: Sequence[str], suffixes: Collection[str] = ()) -> tuple[list[str], list[str]]:
    """Names and overrides, each in their order.

    A word is a name, whatever ``=`` is in it, if it is a file or folder on this disk or ends as a file of the wanted
    kind does.

    Args:
        words: of the command line.
        suffixes: ends of such files, in lower case with their dot.
    """
    overrides = [word for word in words if _OVERRIDE.match(word) and Path(word).suffix.lower() not in suffixes]
    # Not Path.exists, which raises where a word is longer than the name of a file may be.
    overrides = [word for word in overrides if not os.path.exists(word)]  # noqa: PTH110
    return [word for word in words if word not in overrides], overrides


def output_folder(words: Sequence[str]) -> tuple[Path, list[str]]:
    """The one output folder that is named, or else the config's; and the overrides but ``output_dir=DIR``.

    Raises:
        UserError: several are named.
    """
    folders, overrides = split_words(words)
    if len(folders) > 1:
        raise UserError("this command is of one folder", " ".join(folders), f"name one, such as {folders[0]}")
    of_folder = [word for word in overrides if word.startswith("output_dir=")]
    folder = Path(expanded(folders[0], "DIR") if folders else load_config(of_folder).output_dir)
    return folder, [word for word in overrides if word not in of_folder]


def find_cell(name: str, output_dir: Path) -> tuple[Path, Result]:
    """A finished cell by its folder, by the folder's name below ``results/``, or by the beginning of its key.

    Raises:
        UserError: there is none, or several.
    """
    results = output_dir / "results"
    known = {path.parent.name: path.parent for path in sorted(results.glob("*/result.json"))}
    folder = Path(expanded(name, "CELL")) if name else results
    found = [folder] if (folder / "result.json").is_file() else [known[name]] if name in known else []
    if not found:
        found = [path for title, path in known.items() if title.rpartition("-")[2].startswith(name)]
    if len(found) > 1:
        raise UserError(f"{len(found)} cells begin with {name!r}", str(results.absolute()), "give more of the key")
    if not found:
        told = without_covered(finished_cells(output_dir, lambda path, why: None))
        hint = did_you_mean(name, [path.name for path, _ in told])
        raise UserError(f"no finished cell {name!r}", str(results.absolute()), hint)
    return found[0], read_result(found[0])
