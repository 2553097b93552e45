"""What all commands print through: standard output, standard error, a progress bar."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.segment import Segment
from rich.table import Column
from rich.text import Text

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


class _TimeLeft(ProgressColumn):
    """Time left at the mean speed so far, or how long it took; nothing where that is not known."""

    def __init__(self) -> None:
        super().__init__(Column(no_wrap=True))
        self._ends: dict[TaskID, tuple[float, float]] = {}  # how many were done, and when all will be

    def render(self, task: Task) -> Text:
        if task.total is None or task.elapsed is None:
            return Text("")
        if task.finished:
            return Text(f"in {_clock(task.finished_time or 0.0)}")
        new = task.completed - task.fields.get("first", 0)
        if new <= 0:
            return Text("")
        done, end = self._ends.get(task.id, (-1.0, 0.0))
        if done != task.completed:
            end = task.get_time() + task.elapsed * (task.total - task.completed) / new
            self._ends[task.id] = task.completed, end
        return Text(f"{_clock(max(end - task.get_time(), 0.0))} left")


def _clock(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"


def bars() -> Progress:
    """Bars of 80 columns or less, of tasks with a description of up to 20 characters.

    Fields of a task: ``count``, how many of how many; ``told``, up to 32 characters at the end of its line; ``first``,
    how many were done when its clock began (0 where it is not there).
    """
    texts = [TextColumn(f"{{task.{field}}}") for field in ("description", "fields[count]", "fields[told]")]
    return Progress(texts[0], BarColumn(10), texts[1], _TimeLeft(), texts[2], console=console)


@contextmanager
def progress(what: str, unit: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar that shows itself with the first report."""
    with bars() as shown:
        task = shown.add_task(what, total=None, visible=False, count="", told="MB" if unit == "bytes" else unit)

        def report(done: int, total: int | None) -> None:
            each = [f"{number / 1e6:.1f}" if unit == "bytes" else str(number) for number in (done, total) if number]
            shown.update(task, completed=done, total=total, visible=True, count="/".join(each))

        yield report
