"""Passes over the images on the terminal, and lines on how their cells ended: for all commands that score."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from diffcut_bench.commands.terminal import ProgressLines, Report, console, progress, say, warn
from diffcut_bench.config import RunConfig, instantiate
from diffcut_bench.datasets import SegmentationDataset
from diffcut_bench.errors import UserError
from diffcut_bench.escaping import one_line
from diffcut_bench.reporting import Tracker, draw_outcome, explore_outcome, results_table
from diffcut_bench.scoring.events import FinishedCell, Observer
from diffcut_bench.scoring.pipeline import Outcome
from diffcut_bench.scoring.stages import Pipeline
from diffcut_bench.scoring.time_limit import TookTooLongError
from diffcut_bench.store import Result, write_atomically
from diffcut_bench.traces import Trace, described, is_debugging


class TerminalObserver(Observer):
    """Bars and lines on the terminal, pictures, and the books of the config's tracker.

    Args:
        group: sweep or table that the cells belong to, for the tracker.
    """

    draws = True

    def __init__(self, group: str | None = None) -> None:
        self._group = group

    def begin(self, configs: Sequence[RunConfig]) -> None:
        self._tracker = open_tracker(configs[0])
        self._lines = ProgressLines()
        self._preparing, self._scoring = self._lines.add("preparing", "pairs"), self._lines.add("scoring", "images")
        choices = configs[0].choices
        segmenters = " ".join(dict.fromkeys(config.choices.get("segmenter", "own") for config in configs))
        self._what = f"scoring  {choices.get('dataset')} · {choices.get('backbone')} · {segmenters}"
        self._seconds: Mapping[str, float] = {}
        self._lines.__enter__()

    def say(self, line: str) -> None:
        say(line)

    def progress(self, what: str, unit: str) -> AbstractContextManager[Report]:
        return progress(what, unit)

    def preparing(self, done: int, total: int) -> None:
        self._preparing(done, total)

    def stages(self, seconds: Mapping[str, float]) -> None:
        self._seconds = seconds

    def scored(self, done: int, total: int) -> None:
        if self._what:  # once
            say(self._what)
            self._what = ""
        self._scoring(done, total, self._seconds)

    def draw(self, outcome: Outcome, dataset: SegmentationDataset, path: Path) -> None:
        draw_outcome(outcome, dataset, path)

    def explore(self, outcome: Outcome, pipeline: Pipeline, dataset: SegmentationDataset, path: Path) -> None:
        try:
            write_atomically(path, explore_outcome(outcome, pipeline, dataset).page(outcome.example.id))
        except (TookTooLongError, ValueError) as error:  # to this page's greatest tau: the cell's own was reached
            warn(f"no explorer of {outcome.example.id}: {error}")

    def finished(
        self, cell: FinishedCell, dataset: SegmentationDataset, outcomes: Callable[[int], Iterator[Outcome]]
    ) -> None:
        tracker = self._tracker
        if tracker is not None:
            tell(cell.folder.name, lambda: tracker.log_cell(cell.folder, cell.result, dataset, outcomes, self._group))

    def end(self, ended: Sequence[FinishedCell | UserError]) -> None:
        if ended and all(isinstance(cell, FinishedCell) and cell.skipped for cell in ended):
            say(f"{self._what}, finished before")
        self._lines.__exit__()


def open_tracker(config: RunConfig) -> Tracker | None:
    """The tracker of a config, if it has one.

    Raises:
        UserError: an option of it is out of range.
    """
    built: Tracker | None = instantiate("tracker", config.tracker) if config.tracker else None
    return built


def tell(what: str, log: Callable[[], Sequence[str]]) -> None:
    """Let a tracker log something, and print its lines; its failure is a line too, never the end of a run."""
    try:
        lines = log()
    except (Exception, SystemExit) as error:  # a library may want to end the program
        if is_debugging():
            raise
        reason = one_line(described(error))[:300]
        lines = [f"tracker: {what} is not logged ({reason}); its results on disk are complete"]
        trace = Trace.of(error)
        lines += [trace.excerpt] if trace is not None and trace.of_user else []
    for line in lines:
        say(line)


def say_cell(cell: FinishedCell) -> None:
    """Where a cell lies, its pictures and explorers."""
    if cell.skipped:
        console.print("skipped: this cell is finished already (if_exists=overwrite computes it again)")
    say(f"result   {cell.folder / 'result.json'}")
    for what, suffix in (("picture", "png"), ("explorer", "html")):
        for path in sorted((cell.folder / "pictures").glob(f"*.{suffix}")):
            say(f"{what:8} {path}")


def columns_of(config: RunConfig) -> dict[str, Any]:
    """What a config says of tables of results, as arguments of `results_table`."""
    return {"score": config.score, "reference": config.reference == "shown"}


def say_failures(results: Sequence[Result]) -> None:
    """Every image that failed, once."""
    failures = {(failure.id, failure.error) for result in results for failure in result.failures}
    if failures:
        warn(f"{len(failures)} failed and counted nowhere:", style="yellow")
        for name, error in sorted(failures):
            warn(f"  {one_line(f'{name}: {error}')}")


def say_cells(cells: Sequence[FinishedCell], config: RunConfig) -> None:
    """Where cells lie, their scores as a config wants them told, and every image that failed."""
    for cell in cells:
        say_cell(cell)
    results_table([(cell.folder, cell.result) for cell in cells], **columns_of(config)).print(console)
    say_failures([cell.result for cell in cells])
