"""A file that grows by a checked line at a time: what is written stays, whatever happens to the program."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from diffcut_bench.store.atomic import sync_folder

_CHECK = "sha256"


def append_line(path: Path, entry: dict[str, Any], whose: str) -> None:
    """Add an entry as one line, and see it to the disk.

    Args:
        path: of the journal, in a folder that exists.
        entry: for JSON; it has no key ``sha256``.
        whose: journal it is: a line of another one is not taken for one of this.
    """
    is_new = not path.exists()
    with path.open("ab") as file:
        # A leading newline ends a line that an earlier kill cut off.
        file.write(b"\n" + json.dumps(entry | {_CHECK: _digest(entry, whose)}).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        sync_folder(path.parent)


def parse_lines(data: bytes, whose: str) -> list[dict[str, Any] | None]:
    """The entries of a journal's text; None in the place of a line that is not as it was written."""
    return [_parsed(line, whose) for line in data.split(b"\n") if line]


def _parsed(line: bytes, whose: str) -> dict[str, Any] | None:
    try:
        entry: dict[str, Any] = json.loads(line)
        return entry if entry.pop(_CHECK) == _digest(entry, whose) else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _digest(entry: dict[str, Any], whose: str) -> str:
    return hashlib.sha256(f"{whose} {json.dumps(entry)}".encode()).hexdigest()
