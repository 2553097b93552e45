"""An output folder's results as a folder that can be given away."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffcut_bench.errors import UserError
from diffcut_bench.escaping import file_stem
from diffcut_bench.exporting.card import data_card
from diffcut_bench.exporting.folder import write_folder
from diffcut_bench.exporting.leaderboard import leaderboard
from diffcut_bench.exporting.tidy import cells_table, classes_table, images_table, measured_names, to_csv, to_parquet
from diffcut_bench.store import Found, ImageRow, Result, check_published, finished_cells, without_covered


@dataclass(frozen=True)
class Exported:
    """What was written: cells, boards, rows of images; and the shards of merged cells that were not."""

    cells: int
    boards: int
    images: int
    covered: int


def export_results(
    folders: Sequence[Path], target: Path, score: str, licence: str, left_out: Callable[[Path, str], None]
) -> Exported:
    """Write ``cells``, ``classes`` and ``per_image`` tables, ``leaderboard.json`` and a card.

    The same results give the same bytes, wherever they lie: the order is that of their names and keys.

    Args:
        folders: output folders; of a cell that several hold the first one's is taken.
        target: a new or empty folder, or one of an earlier export.
        score: that ranks.
        licence: of the card, an identifier of the hub's.
        left_out: is told what can't be read, and why.

    Raises:
        UserError: there are no results, or the target can't be written.
    """
    by_key: dict[str, Found] = {}
    for folder in folders:
        for path, result in finished_cells(folder, left_out):
            by_key.setdefault(result.key, (path, result))
    found = without_covered([*by_key.values()])
    if not found:
        where = ", ".join(f"{folder / 'results'}" for folder in folders)
        raise UserError("no results to export", where, "diffcut-bench run first, or name the folder: output_dir=DIR")
    found.sort(key=lambda cell: _place(*cell))
    results = [result for _, result in found]
    cells, classes = cells_table([(path.name, result) for path, result in found]), classes_table(results)
    board = leaderboard(results, score)
    contents = {
        "cells.csv": to_csv(cells).encode(),
        "cells.parquet": to_parquet(cells),
        "leaderboard.json": (json.dumps(board, indent=1, allow_nan=False) + "\n").encode(),
    }
    if len(classes):
        contents |= {"classes.csv": to_csv(classes).encode(), "classes.parquet": to_parquet(classes)}
    images, measured = 0, {name for path, _ in found for name in measured_names(path)}
    for path, result in found:  # one after the other: rows of images are much the largest part
        rows = _rows(path, left_out)
        images += len(rows)
        if rows:
            contents[f"per_image/{file_stem(result.key)}.parquet"] = to_parquet(
                images_table(result.key, rows, measured)
            )
    tables = {"cells": len(cells), "classes": len(classes), "per_image": images}
    shards = sum(result.shard is not None for result in results)
    contents["README.md"] = data_card(board, tables, licence, shards).encode()
    write_folder(target, contents)
    return Exported(len(cells), len(board["boards"]), images, len(by_key) - len(found))


def _place(folder: Path, result: Result) -> tuple[str, str, str]:
    """What cells are ordered by."""
    return result.dataset.name, folder.name.rpartition("-")[0], result.key


def _rows(folder: Path, left_out: Callable[[Path, str], None]) -> list[ImageRow]:
    try:
        return check_published(folder)[1]
    except UserError as error:
        left_out(folder, f"its images: {error.what}")
        return []
