"""``diffcut-bench run``: one cell, or a sweep."""

import argparse

from diffcut_bench.commands.passes import TerminalObserver, say_cell, say_failures
from diffcut_bench.commands.sweep import sweep
from diffcut_bench.commands.terminal import console
from diffcut_bench.config import load_config
from diffcut_bench.errors import UserError
from diffcut_bench.reporting import results_table
from diffcut_bench.scoring.passes import run_cells


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flag beside the overrides."""
    text = "sweep: every combination of comma lists and ranges"
    parser.add_argument("-m", "--multirun", action="store_true", help=text)


def run(options: argparse.Namespace) -> int:
    """Score one cell, or every cell of a sweep; 2 where a cell of the sweep failed."""
    if options.multirun:
        return sweep(options.overrides)
    (cell,) = run_cells([load_config(options.overrides)], TerminalObserver())
    if isinstance(cell, UserError):
        raise cell
    say_cell(cell)
    results_table([(cell.folder, cell.result)]).print(console)
    say_failures([cell.result])
    return 0
