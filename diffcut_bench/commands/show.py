"""``diffcut-bench show``: one finished cell in detail."""

import argparse
from pathlib import Path

from diffcut_bench.commands.terminal import console, say
from diffcut_bench.commands.words import find_cell
from diffcut_bench.config import load_config
from diffcut_bench.errors import UserError
from diffcut_bench.reporting import class_table, leading_metric, rank_table, results_table, score_table
from diffcut_bench.store import check_published


def show(options: argparse.Namespace) -> int:
    """One finished cell: every score and every class with its interval, the worst and best images.

    Raises:
        UserError: the cell is not found.
    """
    if options.images < 0:
        raise UserError("--images takes a number from 0 on", f"--images {options.images}", "such as --images 3")
    config = load_config(options.overrides)
    folder, result = find_cell(options.cell, Path(config.output_dir))
    _, rows = check_published(folder)
    results_table([(folder, result)], score=config.score).print(console)
    score_table(result, rows, config.score).print(console)
    if result.class_names:
        class_table(result, rows, score=config.score).print(console)
    rank_table(rows, options.images, leading=leading_metric(config.score, [result])).print(console)
    say(f"result   {folder / 'result.json'}")
    return 0
