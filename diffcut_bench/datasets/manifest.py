"""What a prepared folder was made from, beside its rows."""

import json
from dataclasses import dataclass
from pathlib import Path

FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """What a prepared folder was made from.

    Attributes:
        source: see `Benchmark`.
        origin: digest of ids, sizes and times of the original files, so that a change there is noticed.
        root: folder of the original files.
        pairs: number of rows.
        format: of the folder.
    """

    source: str
    origin: str
    root: str
    pairs: int
    format: int = FORMAT


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a prepared folder; None if nothing prepared is there."""
    try:
        return parse_manifest((folder / "manifest.json").read_text())
    except (OSError, ValueError, TypeError):
        return None


def parse_manifest(text: str) -> Manifest:
    """A manifest from its JSON.

    Raises:
        ValueError, TypeError: it is none, or of another format.
    """
    manifest = Manifest(**json.loads(text))
    if manifest.format != FORMAT:
        raise ValueError(f"prepared in format {manifest.format}, not {FORMAT}")
    return manifest
