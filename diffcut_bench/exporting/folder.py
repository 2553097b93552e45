"""A folder of exported files: written so that it is whole at any time, and that nothing of somebody else's is lost."""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from diffcut_bench.errors import UserError
from diffcut_bench.store import SUMS, only_writer, remove_partial, write_atomically

_HINT = "export into another folder"
# What an export may delete: no name in a list of checksums leads anywhere else.
_OURS = re.compile(
    r"(README\.md|leaderboard\.json|(cells|classes)\.(csv|parquet)|per_image/[\w-][\w.-]*\.parquet)", re.ASCII
)
_LEFT = re.compile(rf"\.{SUMS}\.[0-9a-f]+\.partial")  # of an export that was killed in its first write


def write_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files and their checksums in the place of an earlier export's; other files stay.

    While the files are replaced, the list of checksums has the old and the new one of each, so that an export that was
    killed half-way is one that the next replaces.

    Args:
        folder: new, empty, or of an earlier export.
        contents: of each file by its name.

    Raises:
        UserError: the folder holds what no export wrote, or can't be written. Nothing was changed then.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise UserError("this is no folder", str(folder.absolute()), _HINT)
    with only_writer(folder, _HINT):
        _replace(folder, contents)


def _replace(folder: Path, contents: Mapping[str, bytes]) -> None:
    before = _exported(folder)
    inner = folder / "per_image"
    if inner.is_symlink() or (inner.exists() and not inner.is_dir()):
        raise UserError("an export needs a folder of its own here", str(inner.absolute()), f"move it away, or {_HINT}")
    sums = {name: {hashlib.sha256(content).hexdigest()} for name, content in contents.items()}
    both = {name: before.get(name, set()) | sums.get(name, set()) for name in {*before, *sums}}
    for name in both:
        _check_replaceable(folder / name, both[name])
    _write_sums(folder, both)
    for name, content in contents.items():
        write_atomically(folder / name, content, _HINT)
        remove_partial(folder / name)
    for name in before.keys() - contents.keys():
        (folder / name).unlink(missing_ok=True)
    _write_sums(folder, sums)


def _exported(folder: Path) -> dict[str, set[str]]:
    """Checksums of what an earlier export wrote, by name; empty of a new or empty folder.

    Raises:
        UserError: it holds something else.
    """
    sums: dict[str, set[str]] = {}
    try:
        for line in (folder / SUMS).read_text(encoding="utf-8").splitlines():
            digest, name = line.split("  ", 1)
            if not _OURS.fullmatch(name):
                raise ValueError(name)
            sums.setdefault(name, set()).add(digest)
        if "cells.csv" not in sums:
            raise ValueError(SUMS)
    except (OSError, ValueError) as error:
        if any(not _LEFT.fullmatch(path.name) for path in folder.iterdir()):
            what = f"the folder is not empty, and holds no export ({SUMS} of one is missing or has other files)"
            raise UserError(what, str(folder.absolute()), _HINT) from error
    return sums


def _check_replaceable(path: Path, sums: set[str]) -> None:
    """See that a file is not there, or is what an export wrote.

    Raises:
        UserError: it is somebody's own.
    """
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() not in sums:
        what = "this file was changed since the export, or is not of one: it would be lost"
        raise UserError(what, str(path.absolute()), f"move it away, or {_HINT}")


def _write_sums(folder: Path, sums: Mapping[str, set[str]]) -> None:
    lines = [f"{digest}  {name}\n" for name in sorted(sums) for digest in sorted(sums[name])]
    write_atomically(folder / SUMS, "".join(lines), _HINT)
    remove_partial(folder / SUMS)
