"""``diffcut-bench verify``: is everything in an output folder what was written?"""

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from diffcut_bench.commands.features import say_damaged
from diffcut_bench.commands.terminal import console, say
from diffcut_bench.commands.words import output_folder
from diffcut_bench.config import build_protocol, load_config
from diffcut_bench.errors import UserError
from diffcut_bench.evaluation import known_metrics
from diffcut_bench.scoring.summary import match_rows, summarise
from diffcut_bench.store import SUMS, ImageRow, Result, cell_key, check_published, check_sums, list_sets, read_journal

_RECORDS = ("sweeps/*/cells.json", "sweeps/*/cells/*.json", "reproductions/*/reproduction.json", "segments/*.json")


def verify(options: argparse.Namespace) -> int:
    """Check results, journals, features and records of an output folder; 1 where something is damaged.

    Raises:
        UserError: there is no such folder.
    """
    folder, overrides = output_folder(options.overrides)
    load_config(overrides)  # which checks them
    if not folder.is_dir():
        raise UserError("no such folder", str(folder.absolute()), "diffcut-bench verify DIR, or output_dir=DIR")
    problems = [*_check_results(folder), *_check_journals(folder), *_check_records(folder)]
    for problem in problems:
        say(problem)
    damaged = len(problems) + say_damaged(list_sets(folder / "features"))
    if damaged:
        console.print("what is damaged is not used: the next run of a cell computes it again")
    else:
        say(f"fine: everything in {folder} is what was written")
    return 1 if damaged else 0


def _check_results(folder: Path) -> Iterator[str]:
    """A line for each finished cell that is not whole; lines on how many there are and how many have no checksums."""
    cells = sorted(path for path in folder.glob("results/*") if path.is_dir())
    unsummed = 0
    for cell in cells:
        try:
            result, rows = check_published(cell, prototypes=True)
            check_sums(cell)
            unsummed += not (cell / SUMS).is_file()
            _check_scores(result, rows)
        except UserError as error:
            yield f"result   {error.where}: {error.what}"
        except ValueError as error:
            yield f"result   {cell}: {error}"
    say(f"results: {len(cells)}, of which {unsummed} are of an older version and have no checksums")


def _check_scores(result: Result, rows: Sequence[ImageRow]) -> None:
    """See that key and scores are those of the identity and the rows.

    Raises:
        ValueError: they are not.
    """
    if result.identity and cell_key(result.identity) != result.key:
        raise ValueError("its key is not the digest of its identity")
    if not result.protocol or not rows:
        return
    protocol, names = build_protocol(result.protocol), result.class_names
    if result.linking is None:  # clustered again, on another machine, segments may be linked otherwise
        rows = match_rows(rows, len(names), protocol)
    found = summarise(rows, names, result.protocol, result.environment.seed)
    for name, metric in known_metrics().items():
        if name not in result.scores:
            continue
        if name not in found:
            raise ValueError(f"it has the score {metric.heading}, which its rows do not give")
        told, due = (_numbers(asdict(score)) for score in (result.scores[name], found[name]))
        if result.schema_version == 1:  # its intervals are of whatever rule was in force
            told = {"value": told["value"]} if "value" in told else {}
        for path, number in told.items():
            if abs(number - due.get(path, math.inf)) > 1e-9:
                raise ValueError(f"its {metric.heading} ({path}) is {number}, and that of its rows {due.get(path)}")


def _numbers(node: object, name: str = "") -> dict[str, float]:
    """Every number below a node of JSON, by its path."""
    if isinstance(node, (dict, list, tuple)):
        inner = node.items() if isinstance(node, dict) else enumerate(node)
        return {path: n for key, each in inner for path, n in _numbers(each, f"{name}.{key}".lstrip(".")).items()}
    return {name: float(node)} if isinstance(node, (int, float)) else {}


def _check_journals(folder: Path) -> Iterator[str]:
    journals = sorted(folder.glob("unfinished/*/journal*.jsonl"))
    images = 0
    for journal in journals:
        progress = read_journal(journal)
        images += len(progress.rows)
        if progress.damaged:
            yield f"journal  {journal}: {progress.damaged} lines cut off or changed; their images are computed again"
    cells = len({journal.parent for journal in journals})
    say(f"unfinished cells: {cells}, with {images} images done")


def _check_records(folder: Path) -> Iterator[str]:
    records = sorted(path for pattern in _RECORDS for path in folder.glob(pattern))
    for record in records:
        try:
            json.loads(record.read_text())
        except (OSError, ValueError, RecursionError) as error:
            yield f"record   {record}: can't be read ({error})"
    say(f"records of sweeps, reproductions and segments: {len(records)}")
