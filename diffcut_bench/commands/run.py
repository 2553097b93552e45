"""``diffcut-bench run``: one cell, or a sweep (``-m``)."""

import argparse
from collections.abc import Sequence

from diffcut_bench.commands.hydra_flags import shown_instead
from diffcut_bench.commands.passes import TerminalObserver, columns_of, open_tracker, say_cells, say_failures, tell
from diffcut_bench.commands.terminal import console, say, warn
from diffcut_bench.config import is_sweeper, load_config
from diffcut_bench.errors import UserError
from diffcut_bench.reporting import results_table, sweep_figures, write_figure
from diffcut_bench.scoring.passes import run_cell
from diffcut_bench.scoring.study import plan_study
from diffcut_bench.scoring.sweep import Sweep, plan_sweep
from diffcut_bench.scoring.workers import workers
from diffcut_bench.traces import TRACE


def run(options: argparse.Namespace) -> int:
    """Score one cell, or every cell of a sweep; 2 where a cell of the sweep failed."""
    if shown_instead(options):
        return 0
    chosen = [word for word in options.overrides if is_sweeper(word) and word.lstrip("+") != "hydra/sweeper=basic"]
    if options.multirun:
        return (_study if chosen else _sweep)(options.overrides)
    config = load_config(options.overrides)
    say_cells([run_cell(config, TerminalObserver())], config)
    return 0


def _sweep(overrides: list[str]) -> int:
    sweep = plan_sweep([word for word in overrides if not is_sweeper(word)])
    say(sweep.summary)
    broken = sweep.run(TerminalObserver(sweep.folder.name))
    return workers().on_leader(lambda: _say_sweep(sweep, broken))


def _say_sweep(sweep: Sweep, broken: BaseException | None) -> int:
    """The table and figures of a sweep, and what failed; 2 where something did."""
    finished, failed = sweep.ended(broken)
    results, config = [result for _, result in finished], sweep.cells[0].config
    if results:
        results_table(finished, **columns_of(config)).print(console)
        say_failures(results)
        try:
            for drawn in sweep_figures(results, config.score):
                for path in write_figure(drawn.figure, sweep.folder, drawn.name):
                    say(f"figure   {path}")
        except UserError as error:  # matplotlib is an extra; the cells are there without it
            say(f"figure   none: {error.what}; {error.hint}")
        tracker = open_tracker(config)
        if tracker is not None:
            tell(sweep.folder.name, lambda: tracker.log_sweep(sweep.folder.name, results))
    _say_failed("cell", failed)
    return 2 if failed else 0


def _study(overrides: list[str]) -> int:
    """Trials that a sweeper chooses; their table, the best first."""
    study = plan_study(overrides)
    say(study.summary)
    finished, failed = study.ended(study.run(TerminalObserver(study.folder.name)))
    if finished:
        folder, best = finished[0]
        results_table(finished, score=study.metric.name).print(console)
        say_failures([result for _, result in finished])
        say(f"best     {study.settings(best)}: {study.metric.heading} {study.metric.text(study.value(best))}")
        say(f"result   {folder / 'result.json'}")
        say(f"record   {study.folder / 'optimization_results.yaml'}")
    _say_failed("trial", failed)
    return 2 if failed else 0


def _say_failed(what: str, failed: Sequence[tuple[Sequence[str], str]]) -> None:
    """Overrides and error of each; cells that ended in one bug are listed above one error, with its lines of code."""
    alike: dict[str, list[int]] = {}
    for number, (_, error) in enumerate(failed):
        told, is_bug, _ = error.partition(TRACE)
        alike.setdefault(told if is_bug else str(number), []).append(number)
    for numbers in alike.values():
        lines = [f"{what} {' '.join(failed[number][0])}" for number in numbers]
        warn("\n".join([*lines, failed[numbers[0]][1]]))
