"""``diffcut-bench tune``: choose a setting on training images, report on the validation split (table 10)."""

import argparse

from diffcut_bench.commands.passes import TerminalObserver, say_cell, say_failures
from diffcut_bench.commands.terminal import console, say
from diffcut_bench.errors import UserError
from diffcut_bench.reporting import results_table
from diffcut_bench.reproduction import Tuning, tune_setting


def tune(options: argparse.Namespace) -> int:
    """Search, print both tables, keep the record."""
    try:
        grid = [float(value) for value in options.grid.split(",")]
    except ValueError as error:
        raise UserError(f"{options.grid!r} are no numbers", "--grid", "write --grid 0.35,0.55,0.75") from error
    tuning = Tuning(options.images, grid, options.setting, options.draw, options.train)
    tuned = tune_setting(options.overrides, tuning, TerminalObserver())
    title = f"{tuning.setting} on {tuning.images} training images"
    training = [(cell.folder, cell.result) for cell in tuned.training]
    results_table(training, "training", title, score=tuned.score).print(console)
    say(f"chosen   {tuning.setting}={tuned.chosen:g}")
    say_cell(tuned.cell)
    results_table([(tuned.cell.folder, tuned.cell.result)], score=tuned.score).print(console)
    say_failures([cell.result for cell in (*tuned.training, tuned.cell)])
    say(f"record   {tuned.write()}")
    return 0
