"""What all commands print through: standard output, standard error, a progress bar."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

console = Console()
errors = Console(stderr=True)


def say(line: str, style: str | None = None) -> None:
    """A line as it is: paths and ids are neither marked up, coloured nor broken."""
    console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def progress(what: str, unit: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar that shows itself with the first report."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} " + unit),
        TimeElapsedColumn(),
        console=console,
    ) as bars:
        task = bars.add_task(what, total=1, visible=False)

        def report(done: int, total: int | None) -> None:
            bars.update(task, completed=done, total=total or max(done, 1), visible=True)

        yield report
