"""Starts the command line as processes that are to be killed: one import, then a fork and a session for each start."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from diffcut_bench import cli  # noqa: F401 - imported before the forks
from diffcut_bench.__main__ import program

PATIENCE_S = 120.0


def start(arguments: list[str], errors: Path, ignored: signal.Signals | None = None) -> int:
    """Process id, which is the session's too, of a command; what it prints on standard error is in a file."""
    child = os.fork()
    if child == 0:
        os.setsid()
        for stream, place in ((1, os.devnull), (2, errors)):
            os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666), stream)
        if ignored is not None:
            signal.signal(ignored, signal.SIG_IGN)
        sys.argv = ["diffcut-bench", *arguments]
        try:
            program()
        except SystemExit as end:
            os._exit(end.code if isinstance(end.code, int) else 1)
        except BaseException:
            os._exit(70)
    return child


def wait_for(condition: Callable[[], object]) -> None:
    """Until it holds; an error after a time that no slow machine needs."""
    latest = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > latest:
            raise TimeoutError
        time.sleep(0.002)


def processes(session: int) -> list[int]:
    """Those of a session that still run."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, _, rest = place.read_text().partition(" ")
        except OSError:  # ended meanwhile
            continue
        state, _, _, its_session = rest.rpartition(")")[2].split()[:4]
        if int(its_session) == session and state not in "ZX":
            found.append(int(pid))
    return found


def end(session: int, number: signal.Signals | None = None) -> tuple[int, float]:
    """Send a signal to a start, or to none; its exit code, and seconds until nothing of its session ran any more."""
    begin = time.monotonic()
    if number is not None:
        os.kill(session, number)
    code = os.waitstatus_to_exitcode(os.waitpid(session, 0)[1])
    wait_for(lambda: not processes(session))
    return code, time.monotonic() - begin


def journalled(out: Path) -> int:
    """Batches with rows in the journals of a folder that are not finished."""
    lines = 0
    for journal in out.glob("unfinished/*/journal*.jsonl"):
        try:
            lines += journal.read_bytes().count(b'"rows": [{')
        except FileNotFoundError:  # moved meanwhile
            continue
    return lines
