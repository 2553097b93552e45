"""What all commands print through: standard output, standard error, a progress bar."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, ConsoleRenderable, Group, RenderHook
from rich.live import Live
from rich.segment import Segment
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


def warn_left_out(path: Path, why: str) -> None:
    """That a result or folder is passed over."""
    warn(f"left out ({why}): {path}", style="yellow")


class Report(Protocol):
    """As that of `diffcut_bench.scoring.events`, whose import would take torch along."""

    def __call__(self, done: int, total: int | None, seconds: Mapping[str, float] | None = None) -> None: ...


@contextmanager
def progress(what: str, unit: str, *, transient: bool = False) -> Iterator[Report]:
    """A line at the bottom of the terminal that tells how far a walk is, its speed and the time left.

    It appears with the first report, which should say how many were done before: speed and time left count only what
    comes after it. It fits a terminal of 40 columns. Lines of `say` appear above it. Where there is no terminal, but a
    pipe, a file or a job of a cluster, it is printed anew every 30 seconds, or as often as ``DIFFCUT_BENCH_PROGRESS``
    says (seconds; 0: never). ::

        with progress("segmenting", "images") as report:
            report(0, len(paths))
            for done, path in enumerate(paths, start=1):
                ...
                report(done, len(paths))

    Args:
        what: is done, in one or two words.
        unit: of what is counted; ``bytes`` are told in MB.
        transient: whether the line goes away at the end.

    Yields:
        ``report(done, total)``, or ``report(done, total, seconds)`` with the seconds that each stage took so far, by
        its name: the longest is told.
    """
    with ProgressLines(transient) as lines:
        yield lines.add(what, unit)


class ProgressLines:
    """One or several lines as that of `progress`, below each other."""

    def __init__(self, transient: bool = False) -> None:
        self._walks: list[_Walk] = []
        self._live = Live(console=console, get_renderable=self._shown, transient=transient)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()
        if not console.is_interactive and self._shown().renderables and not self._live.transient:
            console.line()  # Rich's last line of what it has drawn has no end

    def add(self, what: str, unit: str) -> Report:
        """Another line; see `progress`."""
        moves = console.is_jupyter or (console.is_terminal and not console.is_dumb_terminal)
        self._walks.append(_Walk(what, unit, console.get_time, None if moves else _seconds_between_lines()))
        return self._walks[-1]

    def _shown(self) -> Group:
        return Group(*(walk.line(console.width) for walk in self._walks if walk.began is not None and walk.total != 0))


@dataclass
class _Walk:
    """How far a walk is, as a `Report` tells it."""

    what: str
    unit: str
    clock: Callable[[], float]
    every: float | None = None  # seconds after which it is printed anew; None: it is not
    printed: float = 0.0  # when that was last
    began: float | None = None  # when its first report came, which told of `first`
    first: int = 0
    at: float = 0.0  # when its last report came, which told of these:
    done: int = 0
    total: int | None = None
    slowest: str = ""

    def __call__(self, done: int, total: int | None, seconds: Mapping[str, float] | None = None) -> None:
        self.at, self.done, self.total = self.clock(), done, total
        if self.began is None:
            self.began = self.printed = self.at
            self.first = done
        if seconds and sum(seconds.values()) > 0:
            name, most = max(seconds.items(), key=lambda stage: stage[1])
            self.slowest = f"{_STAGES.get(name, name)} {100 * most / sum(seconds.values()):.0f} %"
        if self.every is not None and self.at - self.printed >= self.every and done != total:
            self.printed = self.at
            say(self.line(_LONG, with_bar=False).plain)

    def line(self, width: int, *, with_bar: bool = True) -> Text:
        """What there is to tell; what matters least is left out where the terminal is too narrow for all of it."""
        scale, unit, digits = (1e6, "MB", 1) if self.unit == "bytes" else (1, self.unit, 0)
        took, new = self.at - (self.began or 0.0), (self.done - self.first) / scale
        speed = new / took if took > 0 else 0.0
        time = ""
        if self.done == self.total and new:
            time = f"in {_clock(took)}"
        elif self.total is not None and speed:
            time = f"{_clock((self.total - self.done) / scale / speed - (self.clock() - self.at))} left"
        known = [number for number in (self.done, self.total) if number is not None]
        parts = {
            "what": self.what,
            "bar": _BAR * " " if self.total and with_bar else "",
            "count": "/".join(f"{number / scale:.{digits}f}" for number in known),
            "time": time,
            "speed": f"{speed:.{2 if speed < 10 else 0}f} {unit}/s" if speed else unit,
            "slowest": self.slowest,
        }
        for name in ("bar", "speed", "what", "slowest"):
            if cell_len(" ".join(filter(None, parts.values()))) > width:
                parts[name] = ""
        line = Text(no_wrap=True, overflow="ellipsis")
        for name, part in parts.items():
            if not part:
                continue
            line.append(" " if line else "")
            if name == "bar":
                full = int(_BAR * self.done / (self.total or 1))
                line.append("━" * full, "bar.finished" if full == _BAR else "bar.complete")
                line.append("━" * (_BAR - full), "bar.back")
            else:
                line.append(part)
        return line


def _seconds_between_lines() -> float | None:
    """Of `progress` where there is no terminal; None: no lines."""
    try:
        seconds = float(os.environ.get("DIFFCUT_BENCH_PROGRESS", ""))
    except ValueError:
        return 30.0
    return seconds if seconds > 0 else None


_BAR = 10  # characters
_LONG = 1000  # characters: a line of a file is as long as it is
_STAGES = {  # of a pass over images, by their names in `Timings`
    "read_s": "reading",
    "features_s": "features",
    "segment_s": "segmenting",
    "refine_s": "refining",
    "evaluate_s": "evaluating",
}


def _clock(seconds: float) -> str:
    minutes, second = divmod(max(int(seconds), 0), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
