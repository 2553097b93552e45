"""Rows of floors and ceilings, kept between runs: a folder of parquet files, each named by the SHA-256 of its content.

Nothing is ever changed, so that any number of processes may add at once. A file that is not what its name says is
passed over, and what it held is computed again.
"""

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from diffcut_bench.store.atomic import remove_leftovers, write_atomically
from diffcut_bench.store.published import rows_of_table, rows_to_parquet
from diffcut_bench.store.rows import ImageRow


def kept_rows(folder: Path, wanted: Callable[[int, int], bool]) -> list[ImageRow]:
    """Rows of a folder that are wanted; one that was kept twice comes twice.

    Args:
        folder: of the files; there may be none.
        wanted: tells by image's index and number of segments.
    """
    rows: list[ImageRow] = []
    for path in sorted(folder.glob("*.parquet")):
        try:
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != path.stem:
                continue
            table = pq.read_table(io.BytesIO(content))
            keys = zip(table["index"].to_pylist(), table["segments"].to_pylist(), strict=True)
            rows += rows_of_table(table.filter([wanted(*key) for key in keys]))
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
            continue
    return rows


def keep_rows(folder: Path, rows: Sequence[ImageRow]) -> None:
    """Add rows to a folder.

    Raises:
        UserError: the folder can't be written.
    """
    content = rows_to_parquet(rows)
    write_atomically(folder / f"{hashlib.sha256(content).hexdigest()}.parquet", content)
    remove_leftovers(folder)
