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


@pytest.fixture
def clock(monkeypatch):
    """The clock of a console, 80 columns wide until that is changed; what it printed is `clock.text()`."""

    class Clock(Console):
        now = 0.0

        def text(self) -> str:
            return self.file.getvalue()

    clock = Clock(file=io.StringIO(), width=80, get_time=lambda: clock.now)
    monkeypatch.setattr(terminal, "console", clock)
    monkeypatch.setenv("DIFFCUT_BENCH_PROGRESS", "0")
    return clock


@pytest.mark.parametrize(
    ("width", "told"),
    [
        (120, "scoring ━━━━━━━━━━ 28287/118287 15:00 left 100 images/s segmenting 75 %"),
        (80, "scoring ━━━━━━━━━━ 28287/118287 15:00 left 100 images/s segmenting 75 %"),
        (60, "scoring 28287/118287 15:00 left 100 images/s segmenting 75 %"),
        (59, "scoring 28287/118287 15:00 left segmenting 75 %"),
        (40, "28287/118287 15:00 left segmenting 75 %"),
        (30, "28287/118287 15:00 left"),
    ],
)
def test_the_progress_line_tells_time_left_and_the_slowest_stage(clock, width, told):
    clock.width = width
    observer = TerminalObserver()
    observer.begin([load_config(["tracker=none"])])
    observer.preparing(118287, 118287)
    clock.now = 50.0  # the network loads: no time of the images
    observer.scored(18287, 118287)
    clock.now = 150.0
    observer.stages({"read_s": 5.0, "features_s": 20.0, "segment_s": 75.0})
    observer.scored(28287, 118287)
    observer.end([])
    what, preparing, scoring = clock.text().splitlines()
    assert what == "scoring  sample · efficientnet_lite0 · diffcut"
    assert "118287/118287 pairs" in preparing
    assert scoring == told


def test_a_finished_line_tells_how_long_it_took(clock):
    observer = TerminalObserver()
    observer.begin([load_config([])])
    observer.scored(0, 20)
    clock.now = 3610.0
    observer.scored(20, 20)
    clock.now = 7000.0
    observer.end([])
    assert "20/20 in 1:00:10 0.01 images/s" in clock.text()


def test_time_left_runs_down_between_two_reports(clock):
    with terminal.ProgressLines() as lines:
        report = lines.add("segmenting", "images")
        report(0, 10)
        clock.now = 10.0
        report(1, 10)
        clock.now = 40.0
        assert "1/10 1:00 left 0.10 images/s" in str(report.line(80))
        clock.now = 400.0
        assert "0:00 left" in str(report.line(80))


def minutes_of_lines(clock) -> list[str]:
    """What is printed in two minutes in which a batch is done every ten seconds."""
    with progress("scoring", "images", transient=True) as report:
        for number in range(13):
            clock.now = 10.0 * number
            report(4 * number, 48, {"read_s": 1.0, "segment_s": 3.0})
    return clock.text().splitlines()


def test_without_a_terminal_a_line_is_printed_every_half_minute(clock, monkeypatch):
    monkeypatch.delenv("DIFFCUT_BENCH_PROGRESS", raising=False)
    assert minutes_of_lines(clock) == [
        f"scoring {done}/48 {left} left 0.40 images/s segmenting 75 %"
        for done, left in ((12, "1:30"), (24, "1:00"), (36, "0:30"))
    ]


@pytest.mark.parametrize(("seconds", "lines"), [("60", 1), ("0", 0), ("10", 11), ("soon", 3)])
def test_the_user_says_how_often(clock, monkeypatch, seconds, lines):
    monkeypatch.setenv("DIFFCUT_BENCH_PROGRESS", seconds)
    assert len(minutes_of_lines(clock)) == lines


def test_a_terminal_gets_the_moving_line_alone(clock, monkeypatch):
    monkeypatch.setattr(type(clock), "is_terminal", True)
    lines = terminal.ProgressLines()
    report = lines.add("scoring", "images")
    for clock.now in (0.0, 100.0, 200.0):
        report(int(clock.now), 300)
    assert not clock.text()


@pytest.mark.parametrize(
    ("unit", "total", "told"),
    [
        ("bytes", 2_000_000_000, "500.0/2000.0 0:30 left 50 MB/s"),
        ("pairs", 2_000_000_000, "500000000/2000000000 0:30 left 50000000 pairs/s"),
        ("images", None, "500000000 50000000 images/s"),
    ],
)
def test_every_bar_fits(clock, unit, total, told):
    with progress("BSR_bsds500.tgz", unit) as report:
        report(0, total)
        clock.now = 10.0
        report(500_000_000, total)
    assert told in clock.text()
    assert max(map(len, clock.text().splitlines())) <= 80


def test_a_walk_that_never_reports_prints_nothing(clock):
    with progress("waiting", "images"):
        pass
    assert clock.text() == ""
