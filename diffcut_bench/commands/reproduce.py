"""``diffcut-bench reproduce``: a table or figure of the paper: published, ours, tolerance, verdict."""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffcut_bench.coherence import SamplingOptions, measure_coherence
from diffcut_bench.commands.budget import TFLOPS, print_budget, print_status
from diffcut_bench.commands.coherence import print_coherence
from diffcut_bench.commands.passes import TerminalObserver, say_failures
from diffcut_bench.commands.terminal import console, say
from diffcut_bench.commands.tune import tune_setting
from diffcut_bench.config import RunConfig, load_config
from diffcut_bench.environment import choose_device
from diffcut_bench.errors import UserError
from diffcut_bench.paths import expanded
from diffcut_bench.reporting import Table, paper_order, stored_curves, write_figure
from diffcut_bench.reproduction import (
    Measured,
    PlannedCell,
    Reproduction,
    average_seeds,
    figure_curves,
    known_reproductions,
    load_reproduction,
    plan_cells,
    redraw,
    resolve_under,
)
from diffcut_bench.scoring.cell import FinishedCell
from diffcut_bench.scoring.passes import pass_key, run_cells
from diffcut_bench.store import unwritable, write_atomically

_MOST_SEEDS = 1000  # more is a slip of the keyboard, and would be planned


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own flags."""
    parser.add_argument(
        "name", metavar="NAME", help=f"one of {', '.join(sorted(known_reproductions(), key=paper_order))}"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the cells, what they need and how long it takes")
    parser.add_argument(
        "--tflops", metavar="N", type=float, default=TFLOPS, help="10^12 operations a second of the GPU of --dry-run"
    )
    parser.add_argument("--status", action="store_true", help="print how far each cell is")
    parser.add_argument(
        "--under", metavar="A,B", help="protocols and background rules to score under, side by side; or all"
    )
    parser.add_argument(
        "--predictions", metavar="ROW=DIR", action="append", default=[], help="segmentations of a row: DIR/COLUMN/*.png"
    )
    parser.add_argument(
        "--seeds", metavar="N", type=int, help="run what draws noise with N seeds: their mean and deviation"
    )
    parser.add_argument(
        *("--for",),
        dest="of_part",
        nargs=2,
        metavar=("PART", "KEY=VALUE"),
        action="append",
        default=[],
        help="override for one column's or row's cells, such as --for voc dataset.root=DIR",
    )


def reproduce(options: argparse.Namespace) -> int:
    """Run what can be run, print the table redrawn, write it and its figures.

    Raises:
        UserError: the name, a row, a column or an override is unknown.
    """
    if options.seeds is not None and not 2 <= options.seeds <= _MOST_SEEDS:
        what = f"a deviation takes 2 to {_MOST_SEEDS} seeds"
        raise UserError(what, f"--seeds {options.seeds}", "such as --seeds 3")
    if not 0 < options.tflops < math.inf:
        raise UserError(f"{options.tflops:g} is no rate of operations", "--tflops", "a number above 0, such as 100")
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
        if options.dry_run:
            print_budget(reproduction, cells, options.tflops)
        else:
            print_status(reproduction, cells)
        return 0
    devices = {cell.config.device for cell in cells if cell.config is not None}
    if len(devices) == 1:
        choose_device(devices.pop())  # before a table is printed in which no cell could be run
    folder = _output_dir(cells, options.overrides) / "reproductions" / reproduction.name
    try:
        folder.mkdir(parents=True, exist_ok=True)  # before any work, so that an unwritable folder costs nothing
    except OSError as error:
        raise unwritable(folder, error) from error
    measured, failed = _measure(reproduction, cells)
    results = [ours.result for ours in measured.values() if ours.result is not None]
    cells, measured, failed = average_seeds(cells, measured, failed)
    tables = redraw(reproduction, cells, measured, failed)
    curves = figure_curves(reproduction, cells, measured) if reproduction.sweep else None
    for name in ("table", "claims"):
        if name in tables:
            tables[name].print(console)
    say_failures(results)
    _write(folder, reproduction, tables, curves)
    runnable = any(not cell.not_run for cell in cells)
    return 2 if runnable and not measured else 0


def _measure(reproduction: Reproduction, cells: Sequence[PlannedCell]) -> tuple[dict[int, Measured], dict[int, str]]:
    """Our value of every cell that could be run, and why the others could not, by place."""
    measured: dict[int, Measured] = {}
    failed: dict[int, str] = {}
    together: dict[str, list[int]] = {}
    for place, cell in enumerate(cells):
        if cell.config is None:
            continue
        if cell.row.tune is not None or reproduction.measure == "auc":
            try:
                measured[place] = _tuned(cell) if cell.row.tune is not None else _coherence(cell)
            except UserError as error:
                failed[place] = _reason(error)
        else:
            together.setdefault(pass_key(cell.config), []).append(place)
    for places in together.values():
        for place, end in zip(
            places, _run([_config(cells[place]) for place in places], reproduction.name), strict=True
        ):
            if isinstance(end, UserError):
                failed[place] = _reason(end)
            else:
                deviations = cells[place].deviations_with(end.result.identity.get("backbone", {}))
                measured[place] = Measured.of(end.result, deviations, reproduction.measure, end.folder)
    return measured, failed


def _run(configs: Sequence[RunConfig], group: str) -> Sequence[FinishedCell | UserError]:
    """One pass; what its cells share and can't be had is the fate of each."""
    try:
        return run_cells(configs, TerminalObserver(group))
    except UserError as error:
        return [error] * len(configs)


def _tuned(cell: PlannedCell) -> Measured:
    assert cell.row.tune is not None
    tuning = cell.row.tune
    tuned = tune_setting(cell.overrides, tuning.setting, tuning.grid, tuning.images)
    setting, paper = tuning.setting.rpartition(".")[2], cell.row.chosen.get(cell.column)
    remark = f"{setting} {tuned.chosen:g} chosen" + (f", published {paper:g}" if paper is not None else "")
    deviations = cell.deviations_with(tuned.cell.result.identity.get("backbone", {}))
    measured = Measured.of(tuned.cell.result, deviations, folder=tuned.cell.folder)
    searched = min(each.result.dataset.n_images - len(each.result.failures) for each in tuned.training)
    few = (f"{searched} of {tuning.images} training images",) if searched < tuning.images else ()
    return replace(measured, limits=(*few, *measured.limits), remark=remark)


def _coherence(cell: PlannedCell) -> Measured:
    config = _config(cell)
    found = measure_coherence([config], SamplingOptions(seed=config.seed), observer=TerminalObserver())
    print_coherence(found)
    (backbone,), dataset = found.record["backbones"], found.record["dataset"]
    limits = list(cell.deviations_with(backbone["fingerprint"]))
    if dataset["n_expected"] and dataset["n_images"] < dataset["n_expected"]:
        limits.insert(0, f"{dataset['n_images']} of {dataset['n_expected']} images")
    low, high = backbone["auc_ci95"]
    return Measured(backbone["auc"], (low, high), tuple(limits))


def _write(
    folder: Path, reproduction: Reproduction, tables: Mapping[str, Table], curves: dict[str, Any] | None
) -> None:
    record = {"schema_version": 1, "name": reproduction.name, "title": reproduction.title, "curves": curves}
    record |= {name: table.to_dict() for name, table in tables.items()}
    write_atomically(folder / "reproduction.json", json.dumps(record, indent=1) + "\n")
    paths = [path for table in tables.values() for path in table.write(folder)]
    figure = stored_curves(curves)
    if figure is not None:
        paths += write_figure(figure, folder, reproduction.name)
    for path in paths:
        say(f"written  {path}")


def _config(cell: PlannedCell) -> RunConfig:
    assert cell.config is not None
    return cell.config


def _reason(error: UserError) -> str:
    return f"{error.what} ({error.where})"


def _output_dir(cells: Sequence[PlannedCell], overrides: Sequence[str]) -> Path:
    for cell in cells:
        if cell.config is not None:
            return Path(cell.config.output_dir)
    # Overrides that only a cell's options know are no matter here.
    return Path(load_config([word for word in overrides if word.startswith(("output_dir=", "hydra."))]).output_dir)


def _folders(texts: Sequence[str]) -> dict[str, Path]:
    """Folder of predictions of each row."""
    folders = {}
    for text in texts:
        row, separator, folder = text.rpartition("=")
        if not separator or not row or not folder:
            raise UserError(f"{text!r} names no folder", "--predictions", 'write --predictions "ROW=DIR"')
        folders[row] = Path(expanded(folder, "--predictions"))
    return folders
