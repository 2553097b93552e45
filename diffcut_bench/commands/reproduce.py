"""``diffcut-bench reproduce``: a table or figure of the paper: published, ours, tolerance, verdict."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from diffcut_bench.commands.coherence import print_coherence
from diffcut_bench.commands.passes import TerminalObserver, say_failures
from diffcut_bench.commands.terminal import console, say
from diffcut_bench.config import load_config
from diffcut_bench.environment import choose_device
from diffcut_bench.errors import UserError
from diffcut_bench.paths import expanded
from diffcut_bench.reproduction import (
    TFLOPS,
    PlannedCell,
    average_seeds,
    figure_curves,
    load_reproduction,
    measure_cells,
    plan_budget,
    plan_cells,
    redraw,
    resolve_under,
    told_by,
    write_reproduction,
)
from diffcut_bench.store import unwritable

_MOST_SEEDS = 1000  # more is a slip of the keyboard, and would be planned


def reproduce(options: argparse.Namespace) -> int:
    """Run what can be run, print the table redrawn, write it and its figures.

    Raises:
        UserError: the name, a row, a column or an override is unknown.
    """
    if options.seeds is not None and not 2 <= options.seeds <= _MOST_SEEDS:
        what = f"a deviation takes 2 to {_MOST_SEEDS} seeds"
        raise UserError(what, f"--seeds {options.seeds}", "such as --seeds 3")
    tflops = TFLOPS if options.tflops is None else options.tflops
    if not 0 < tflops < math.inf:
        raise UserError(f"{tflops:g} is no rate of operations", "--tflops", "a number above 0, such as 100")
    reproduction = load_reproduction(options.name, options.overrides)
    of_part: dict[str, list[str]] = {}
    for part, override in options.of_part:
        of_part.setdefault(part, []).append(override)
    cells = plan_cells(
        reproduction,
        options.overrides,
        under=resolve_under(options.under.split(",")) if options.under else None,
        predictions=_folders(options.predictions),
        of_part=of_part,
        seeds=options.seeds or 1,
    )
    if options.dry_run or options.status:
        table, lines = plan_budget(reproduction, cells, tflops if options.dry_run else None)
        table.print(console)
        for line in lines:
            say(line)
        return 0
    scores = {cell.config.score for cell in cells if cell.config is not None}
    if len(scores) == 1:
        reproduction, cells = told_by(reproduction, cells, scores.pop())
    devices = {cell.config.device for cell in cells if cell.config is not None}
    if len(devices) == 1:
        choose_device(devices.pop())  # before a table is printed in which no cell could be run
    folder = _output_dir(cells, options.overrides) / "reproductions" / reproduction.name
    try:
        folder.mkdir(parents=True, exist_ok=True)  # before any work, so that an unwritable folder costs nothing
    except OSError as error:
        raise unwritable(folder, error) from error
    outcomes = measure_cells(reproduction, cells, TerminalObserver(reproduction.name), print_coherence)
    means = average_seeds(outcomes)
    tables = redraw(reproduction, means)
    curves = figure_curves(reproduction, means) if reproduction.sweep else None
    for name in ("table", "claims"):
        if name in tables:
            tables[name].print(console)
    ran = [each.ours for each in outcomes if each.ours is not None]
    say_failures([ours.result for ours in ran if ours.result is not None])
    for path in write_reproduction(folder, reproduction, tables, curves):
        say(f"written  {path}")
    return 2 if not ran and any(cell.config is not None for cell in cells) else 0


def _output_dir(cells: Sequence[PlannedCell], overrides: Sequence[str]) -> Path:
    config = next((cell.config for cell in cells if cell.config is not None), None)
    # Overrides that only a cell's options know are no matter here.
    config = config or load_config([word for word in overrides if word.startswith(("output_dir=", "hydra."))])
    return Path(config.output_dir)


def _folders(texts: Sequence[str]) -> dict[str, Path]:
    """Folder of predictions of each row."""
    folders = {}
    for text in texts:
        row, separator, folder = text.rpartition("=")
        if not separator or not row or not folder:
            raise UserError(f"{text!r} names no folder", "--predictions", 'write --predictions "ROW=DIR"')
        folders[row] = Path(expanded(folder, "--predictions"))
    return folders
