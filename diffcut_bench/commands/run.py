"""``diffcut-bench run``: one cell, or a sweep."""

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from diffcut_bench.commands.terminal import console, errors
from diffcut_bench.config import (
    GROUPS,
    RunConfig,
    build_protocol,
    check_config,
    conf_dir,
    load_config,
    quote_if_needed,
    quoted,
)
from diffcut_bench.errors import UserError
from diffcut_bench.experiment import (
    FinishedCell,
    run_cell,
)
from diffcut_bench.reporting import draw_outcome, print_results
from diffcut_bench.store import Result, write_atomically


def run(options: argparse.Namespace) -> int:
    """Score one cell, or every cell of a sweep; 2 where a cell of the sweep failed."""
    if options.multirun:
        return _sweep(options.overrides)
    config = load_config(options.overrides)
    cell = _run_with_progress(config)
    _say_cell(cell)
    print_results(console, [(cell.folder, cell.result)])
    _say_failures([cell.result])
    return 0


def _run_with_progress(config: RunConfig) -> FinishedCell:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=False) as progress:
        task = progress.add_task(
            f"{config.choices.get('dataset')} · {config.choices.get('backbone')} · {config.choices.get('segmenter')}",
            total=None,
            speed="",
            visible=False,
        )
        first: list[int] = []

        def report(done: int, total: int) -> None:
            first.append(done)
            elapsed = progress.tasks[0].elapsed or 0.0
            speed = f"{(done - first[0]) / elapsed:.2f} images/s" if elapsed and done > first[0] else ""
            progress.update(task, total=total, completed=done, speed=speed, visible=True)

        preparation = progress.add_task("preparing the data set", total=None, speed="", visible=False)

        def preparing(done: int, total: int) -> None:
            progress.update(preparation, total=total, completed=done, visible=True)

        def say(line: str) -> None:
            console.print(line, highlight=False, markup=False, soft_wrap=True)

        cell = run_cell(config, draw_outcome, report, preparing, say)
        if cell.skipped:
            images = cell.result.dataset.n_images
            progress.update(task, total=images, completed=images, speed="finished before", visible=True)
        return cell


def _say_cell(cell: FinishedCell) -> None:
    if cell.skipped:
        console.print("skipped: this cell is finished already (if_exists=overwrite computes it again)")
    console.print(f"result   {cell.folder / 'result.json'}", soft_wrap=True, highlight=False, markup=False)
    pictures = sorted((cell.folder / "pictures").glob("*.png"))
    for path in pictures:
        console.print(f"picture  {path}", soft_wrap=True, highlight=False, markup=False)


def _say_failures(results: Sequence[Result]) -> None:
    failures = {(failure.id, failure.error) for result in results for failure in result.failures}
    if failures:
        errors.print(f"{len(failures)} failed and counted nowhere:", style="yellow")
        for name, error in sorted(failures):
            errors.print(f"  {name}: {error}", highlight=False, markup=False, soft_wrap=True)


def _sweep(overrides: list[str]) -> int:
    """Every combination through Hydra's own launcher; all of them are checked before the first runs."""
    cells = expand_sweep(overrides)
    configs = [load_config(cell) for cell in cells]
    for config in configs:
        build_protocol(config.protocol)
    folder = Path(configs[0].output_dir) / "sweeps" / datetime.now().strftime("%Y-%m-%d_%H-%M-%S_%f")
    write_atomically(folder / "cells.json", json.dumps(cells, indent=1) + "\n")
    console.print(f"sweep of {len(cells)} cells", highlight=False)
    task = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(_sweep_cell)
    before = sys.argv
    sys.argv = ["diffcut-bench", "--multirun", f"hydra.sweep.dir={quoted(str(folder))}"]
    sys.argv += [quote_if_needed(override) for override in overrides]
    try:
        task()
    except SystemExit as ended:
        if ended.code:
            raise UserError("Hydra could not start the sweep; it says why above", str(folder), "see above") from ended
    finally:
        sys.argv = before
    records = [json.loads(path.read_text()) for path in sorted((folder / "cells").glob("*.json"))]
    finished = [Path(record["folder"]) for record in records if "folder" in record]
    results = [(path, Result.from_json((path / "result.json").read_text())) for path in finished]
    if results:
        print_results(console, results)
        _say_failures([result for _, result in results])
    for record in records:
        if "error" in record:
            errors.print(f"cell {' '.join(record['overrides'])}\n{record['error']}", markup=False, soft_wrap=True)
    return 2 if len(finished) < len(cells) else 0


def _sweep_cell(composed: DictConfig) -> None:
    """One cell of a sweep, in whatever process the launcher chose; its end is noted in the sweep's folder."""
    job = HydraConfig.get()
    overrides = [o for o in job.overrides.task if not o.startswith("hydra.")]
    config = check_config(composed, {group: job.runtime.choices[group] for group in GROUPS})
    console.print(f"cell {job.job.num + 1}: {' '.join(overrides)}", highlight=False, markup=False)
    record: dict[str, object] = {"overrides": overrides}
    try:
        cell = _run_with_progress(config)
        record["folder"] = str(cell.folder.absolute())
        if cell.skipped:
            console.print("skipped: this cell is finished already")
    except UserError as error:
        record["error"] = str(error)
    except Exception as error:  # the other cells of the sweep go on; the error is listed at the end
        record["error"] = f"{type(error).__name__}: {error}"
    path = Path(job.sweep.dir) / "cells" / f"{job.job.num:05d}.json"
    write_atomically(path, json.dumps(record, indent=1) + "\n")


def expand_sweep(overrides: Sequence[str]) -> list[list[str]]:
    """Overrides of every cell: the product of comma lists, ``choice()`` and ``range()``, in Hydra's order.

    Raises:
        UserError: an override can't be read.
    """
    alternatives = []
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(quote_if_needed(text))
            if override.is_sweep_override():
                key = override.get_key_element()
                alternatives.append([f"{key}={value}" for value in override.sweep_string_iterator()])
            else:
                alternatives.append([text])
        except HydraException as error:
            raise UserError(f"{text!r} is no override", text, "write overrides as key=value or key=a,b") from error
    return [list(cell) for cell in itertools.product(*alternatives)]
