"""Passes over the images with a progress bar, and lines on how their cells ended: for all commands that score."""

from collections.abc import Callable, Iterator, Sequence

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from diffcut_bench.commands.terminal import console, errors, say
from diffcut_bench.config import RunConfig, instantiate
from diffcut_bench.errors import UserError
from diffcut_bench.reporting import Tracker, draw_outcome
from diffcut_bench.scoring.cell import FinishedCell, RunningCell
from diffcut_bench.scoring.passes import run_cells
from diffcut_bench.scoring.pipeline import Outcome
from diffcut_bench.store import Result


def run_with_progress(configs: Sequence[RunConfig], group: str | None = None) -> list[FinishedCell | UserError]:
    """`run_cells` on the terminal, and in the tracker's books.

    Args:
        configs: cells of one pass.
        group: sweep or table that they belong to, for the tracker.
    """
    tracker = open_tracker(configs[0])

    def track(cell: RunningCell, end: FinishedCell) -> None:
        def shown(images: int) -> Iterator[Outcome]:
            return cell.outcomes(cell.images.indices[:images])

        if tracker is not None:
            tell(lambda: tracker.log_cell(end.folder, end.result, cell.images.dataset, shown, group))

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    choices = configs[0].choices
    segmenters = " ".join(dict.fromkeys(config.choices.get("segmenter", "own") for config in configs))
    with Progress(*columns, console=console, transient=False) as progress:
        task = progress.add_task(
            f"{choices.get('dataset')} · {choices.get('backbone')} · {segmenters}", total=None, speed="", visible=False
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

        cells = run_cells(configs, draw_outcome, report, preparing, say, track)
        done = [cell for cell in cells if isinstance(cell, FinishedCell)]
        if done and all(cell.skipped for cell in done) and len(done) == len(cells):
            images = done[0].result.dataset.n_images
            progress.update(task, total=images, completed=images, speed="finished before", visible=True)
        return cells


def open_tracker(config: RunConfig) -> Tracker | None:
    """The tracker of a config, if it has one.

    Raises:
        UserError: an option of it is out of range.
    """
    built: Tracker | None = instantiate("tracker", config.tracker) if config.tracker else None
    return built


def tell(log: Callable[[], Sequence[str]]) -> None:
    """Print what a tracker has to say; its own failure is a line too, never the end of a run."""
    try:
        lines = log()
    except Exception as error:
        lines = [f"tracker: {type(error).__name__}: {error}; the results are on disk"]
    for line in lines:
        say(line)


def say_cell(cell: FinishedCell) -> None:
    """Where a cell lies, and its pictures."""
    if cell.skipped:
        console.print("skipped: this cell is finished already (if_exists=overwrite computes it again)")
    say(f"result   {cell.folder / 'result.json'}")
    for path in sorted((cell.folder / "pictures").glob("*.png")):
        say(f"picture  {path}")


def say_failures(results: Sequence[Result]) -> None:
    """Every image that failed, once."""
    failures = {(failure.id, failure.error) for result in results for failure in result.failures}
    if failures:
        errors.print(f"{len(failures)} failed and counted nowhere:", style="yellow")
        for name, error in sorted(failures):
            errors.print(f"  {name}: {error}", highlight=False, markup=False, soft_wrap=True)
