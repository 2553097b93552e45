"""What all commands print through: standard output, standard error, a progress bar."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.segment import Segment

from diffcut_bench.escaping import visible


class _WithoutControls(RenderHook):
    """Writes out control characters of whatever is printed: ids, class names and messages of data may hold sequences
    that a terminal obeys. Rich's own, for colours and bars, are added later."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Visible(renderable) for renderable in renderables]


@dataclass(frozen=True)
class _Visible:
    renderable: ConsoleRenderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self.renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text, kept="\n\t"))


def _new_console(*, stderr: bool = False) -> Console:
    made = Console(stderr=stderr)
    made.push_render_hook(_WithoutControls())
    return made


console = _new_console()
errors = _new_console(stderr=True)


def say(line: str, style: str | None = None) -> None:
    """A line as it is: paths and ids are neither marked up, coloured nor broken."""
    console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)


def warn(line: str, style: str | None = None) -> None:
    """The same on standard error."""
    errors.print(line, style=style, highlight=False, markup=False, soft_wrap=True)


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
