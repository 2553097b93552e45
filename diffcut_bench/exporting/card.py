"""The card of an exported folder: README.md with the front matter by which the Hugging Face hub reads its tables."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from diffcut_bench.escaping import counted, markdown_cell
from diffcut_bench.evaluation import known_metrics

_PYTHON = """```python
from datasets import load_dataset

cells = load_dataset("OWNER/NAME", "cells", split="train")
```
"""
_SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
_TABLES = {
    "cells": "a row a cell: a data set with a backbone, a segmenter and their settings. A column is named as the "
    "override that sets it (`segmenter`, `segmenter.tau`); of each score there are `NAME`, `NAME_low` and `NAME_high` "
    "(95 % bootstrap interval over images) and `NAME_images`; fractions lie in 0..1",
    "classes": "a row for each cell, metric and class",
    "per_image": "a row for each cell and image: segments, scored pixels, and for each class the pixels that are true "
    "positives, false positives and false negatives. Every score but those of `measured.*` follows from them",
}


def data_card(board: Mapping[str, Any], tables: Mapping[str, int], licence: str, shards: int) -> str:
    """The text of README.md.

    Args:
        board: of `leaderboard`.
        tables: rows of each table, by name; one without rows is not there.
        licence: identifier of the hub's.
        shards: cells that are shards of cells that are not whole.
    """
    files = {"cells": "cells.parquet", "classes": "classes.parquet", "per_image": "per_image/*.parquet"}
    configs = [{"config_name": name, "data_files": files[name]} for name, rows in tables.items() if rows]
    most = max(tables.values())
    front = {
        "license": licence,
        "pretty_name": "Unsupervised segmentation results (diffcut_bench)",
        "task_categories": ["image-segmentation"],
        "tags": ["unsupervised-segmentation", "benchmark", "leaderboard", "diffcut"],
        "size_categories": [next((name for size, name in _SIZES.items() if most < size), "n>1M")],
        "configs": [{**config, "default": True} if config["config_name"] == "cells" else config for config in configs],
    }
    lines = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n",
        "# Unsupervised segmentation results\n",
        _wrapped(
            "Made by `diffcut-bench export`. `diffcut-bench` scores segmentations without labels or training under a "
            "protocol whose every choice is recorded; each row says which code, versions, device and settings gave it."
        ),
        "",
        *(_wrapped(f"* `{name}`: {_TABLES[name]} ({counted(rows, 'row')}).") for name, rows in tables.items() if rows),
        "* `leaderboard.json`: of each data set and protocol the cells, best first.\n",
        _PYTHON,
        *_best(board["boards"]),
    ]
    if shards:
        lines.append(
            f"\nShards that are not merged: {counted(shards, 'row')} of `cells` (column `shard`), on no board."
        )
    return "\n".join(lines) + "\n"


def _best(boards: Sequence[Mapping[str, Any]]) -> list[str]:
    """A pipe table of the best cell of each board."""
    if not boards:
        return []
    rows = ["| data set | protocol | images | score | best | backbone | segmenter |", "|---|---|---:|---|---:|---|---|"]
    metrics = known_metrics()
    for board in boards:
        best, dataset = board["cells"][0], board["dataset"]
        images = f"{dataset['images']}{' (limited)' if dataset['limited'] else ''}"
        own = best["settings"]
        cells = [dataset["name"], board["protocol"]["name"], images, board["metric"]["heading"]]
        cells += [
            metrics[board["metric"]["name"]].text(best["score"]),
            own.get("backbone", "?"),
            own.get("segmenter", "?"),
        ]
        rows.append(f"| {' | '.join(markdown_cell(str(cell)) for cell in cells)} |")
    return [*rows, "", "In this table fractions are in %; in the files they lie in 0..1."]


def _wrapped(text: str) -> str:
    """A paragraph or an item of a list, in lines of which a diff shows what has changed."""
    indent = "  " if text.startswith("* ") else ""
    return textwrap.fill(text, 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
