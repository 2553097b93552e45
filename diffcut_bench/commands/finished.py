"""Finished cells as commands read them."""

from pathlib import Path

from diffcut_bench.errors import UserError
from diffcut_bench.store import ImageRow, Result, read_rows


def rows_of(folder: Path, result: Result) -> list[ImageRow]:
    """Rows of a finished cell, with a count of each of its classes.

    Raises:
        UserError: they can't be read, or are those of other classes.
    """
    rows = read_rows(folder)
    classes = len(result.metrics.iou_per_class)
    if any(len(counts) != classes for row in rows for counts in (row.tp, row.fp, row.fn)):
        raise UserError(
            f"rows do not have the {classes} classes of result.json",
            str(folder / "per_image.parquet"),
            "compute the cell again with if_exists=overwrite",
        )
    return rows
