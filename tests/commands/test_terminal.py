"""What data says is printed, and a terminal obeys none of it."""

import io

import pytest
from rich.console import Console

from diffcut_bench.commands import terminal
from diffcut_bench.commands.passes import TerminalObserver
from diffcut_bench.commands.terminal import console, errors, progress, say
from diffcut_bench.config import load_config
from diffcut_bench.errors import UserError
from diffcut_bench.reporting import Column, Table

EVIL = "a\x1b]0;title\x07\x1b[2Jb\x9b31mc\rd\u202ee\ud800"


def test_no_control_character_reaches_the_terminal(capsys):
    say(f"path {EVIL}\nsecond line", style="bold")
    console.print(EVIL, markup=False)
    console.print(Table("x", EVIL, (Column(EVIL),), ((EVIL,),), (EVIL,), EVIL).to_markdown(), markup=False)
    Table("x", EVIL, (Column(EVIL),), ((EVIL,),), (EVIL,), EVIL).print(console)
    errors.print(str(UserError(EVIL, EVIL, EVIL)), markup=False, highlight=False, soft_wrap=True)
    with progress("working", "images") as report:
        report(1, 2)
        say(EVIL)
    printed = capsys.readouterr()
    for text in printed:
        assert text
        assert not set(text) & set("\x1b\x07\x9b\r\u202e\ud800")
    assert r"\x1b[2Jb\x9b31mc" in printed.out
    assert len(printed.err.splitlines()) == 3
    assert "path a" in printed.out
    assert "\nsecond line\n" in printed.out


@pytest.mark.parametrize("text", ["plain", "–│━ ├ 日本", "tab\tend"])
def test_other_text_is_left_alone(capsys, text):
    say(text)
    assert capsys.readouterr().out.expandtabs() == f"{text.expandtabs()}\n"


class Clock:
    """A console's clock that stands still until it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """The clock of a console of 80 columns; what it printed is `clock.text()`."""
    clock = Clock()
    shown = Console(file=io.StringIO(), width=80, get_time=clock)
    clock.text = shown.file.getvalue
    monkeypatch.setattr(terminal, "console", shown)
    return clock


def test_the_progress_line_tells_time_left_and_the_slowest_stage(clock):
    observer = TerminalObserver()
    observer.begin([load_config(["tracker=none"])])
    observer.preparing(118287, 118287)
    clock.now = 50.0  # the network loads: no time of the images
    observer.scored(18287, 118287)
    clock.now = 150.0
    observer.stages({"read_s": 5.0, "features_s": 20.0, "segment_s": 75.0})
    observer.scored(28287, 118287)
    observer.end([])
    lines = clock.text().splitlines()
    assert "sample · efficientnet_lite0 · diffcut" in lines[0]
    (line,) = [line for line in lines[1:] if line.startswith("scoring")]
    assert max(map(len, lines)) <= 80
    assert "…" not in line
    for text in ("28287/118287", "0:15:00 left", "100.00 images/s", "segmenting 75 %"):
        assert text in line


def test_a_finished_line_tells_how_long_it_took(clock):
    observer = TerminalObserver()
    observer.begin([load_config([])])
    observer.scored(0, 20)
    clock.now = 10.0
    observer.scored(20, 20)
    clock.now = 70.0
    observer.end([])
    assert "20/20 in 0:00:10 2.00 images/s" in clock.text()


@pytest.mark.parametrize(
    ("unit", "total", "told"),
    [
        ("bytes", 2_000_000_000, "500.0/2000.0 0:00:30 left MB"),
        ("pairs", 2_000_000_000, "500000000/2000000000 0:00:30 left pairs"),
        ("images", None, "500000000  images"),
    ],
)
def test_every_bar_fits(clock, unit, total, told):
    with progress("BSR_bsds500.tgz", unit) as report:
        clock.now = 10.0
        report(500_000_000, total)
    assert told in clock.text()
    assert max(map(len, clock.text().splitlines())) <= 80
