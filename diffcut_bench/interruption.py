"""How a run ends early: signals that ask for it, and processes that end with the one that started them."""

import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess
from types import FrameType
from typing import Any, NoReturn

# What a terminal and a scheduler send; Windows has no SIGHUP.
_ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
# A terminal, torchrun and a scheduler may send one end several times.
_SAME_EVENT_S = 1.0
# Children have this long to end by themselves, and then are killed.
_GRACE_S = 1.5
# A job that was asked to end stays this long: loky kills all its workers as soon as it misses one, and they may write.
_WRITING_S = 0.8
_LOOK_S = 0.1


class Interrupted(KeyboardInterrupt):
    """A signal asked this process to end."""


class Ending:
    """What a signal does to this process: its children end, then `Interrupted` is raised in the main thread.

    A second signal ends the process at once: everything is written whole or not at all, so that nothing is damaged.

    Attributes:
        signal: that came; None: none yet.
        since: when, on the monotonic clock.
        held: the exception waits, see `held_back`.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.since = 0.0
        self.held = False

    @property
    def code(self) -> int:
        """Exit code after the signal, as shells have it."""
        return 128 + (self.signal or signal.SIGINT)

    @property
    def words(self) -> str:
        """What a user is told."""
        name = (self.signal or signal.SIGINT).name
        return f"interrupted ({name}); what is done is kept, and the same command goes on from here"

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self.since = signal.Signals(number), time.monotonic()
            end_children()
            self.raise_if_due()
        elif time.monotonic() - self.since > _SAME_EVENT_S:
            os._exit(self.code)

    def end(self, code: int) -> NoReturn:
        """End this process now, as everything is written: no thread is waited for, and libraries only for a moment."""
        latest = max(self.since + _GRACE_S - time.monotonic(), _LOOK_S)
        deadline = threading.Timer(latest, os._exit, (code,))
        deadline.daemon = True
        deadline.start()
        with contextlib.suppress(Exception):
            atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # a terminal that hung up
                stream.flush()
        os._exit(code)

    def raise_if_due(self) -> None:
        """Raise what `held_back` kept waiting."""
        if self.signal is not None and not self.held:
            raise Interrupted(self.words)


_ending: Ending | None = None  # of this process, while signals are raised
_follows = False  # whether this process ends with its parent


@contextmanager
def signals_raised() -> Iterator[Ending]:
    """Within, SIGINT, SIGTERM and SIGHUP raise `Interrupted` in the main thread; a nested one changes nothing.

    A signal that is ignored (``nohup``, a shell's ``&``) or has a handler of another library keeps what it has. In
    another thread than the main one nothing is changed.
    """
    global _ending
    if _ending is not None or threading.current_thread() is not threading.main_thread():
        yield _ending or Ending()
        return
    ours = Ending()
    before = {number: signal.getsignal(number) for number in _ENDING}
    replaced = [number for number, now in before.items() if now in (signal.SIG_DFL, signal.default_int_handler)]
    _ending = ours
    try:
        for number in replaced:
            signal.signal(number, ours)
        yield ours
    finally:
        for number in replaced:
            signal.signal(number, before[number])
        _ending = None


@contextmanager
def held_back() -> Iterator[None]:
    """Within, a signal waits: for what has to be written once begun."""
    ending = _ending
    if ending is None or ending.held:
        yield
        return
    ending.held = True
    try:
        yield
    finally:
        ending.held = False
        ending.raise_if_due()


def is_interrupted() -> bool:
    """Whether a signal asked this process to end."""
    return _ending is not None and _ending.signal is not None


def end_children() -> None:
    """Ask processes that multiprocessing or loky started here to end, and kill those that do not in time."""
    children = multiprocessing.active_children()
    for child in children:
        child.terminate()
    latest = time.monotonic() + _GRACE_S
    for child in children:
        child.join(max(latest - time.monotonic(), 0))
        if child.exitcode is None and child.pid is not None:
            with contextlib.suppress(OSError):
                os.kill(child.pid, getattr(signal, "SIGKILL", signal.SIGTERM))


def end_with(parent: int) -> None:
    """From now on, end this process soon after its parent has ended, however that ended (POSIX)."""
    global _follows
    if _follows or os.name != "posix":
        return
    _follows = True

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_S)
        os.kill(os.getpid(), signal.SIGTERM)  # one that can write what it has does so
        time.sleep(_GRACE_S)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


@contextmanager
def job() -> Iterator[None]:
    """Within, this process works for a launcher: a signal, or the end of its parent, ends it once it has written."""
    end_with(os.getppid())
    with signals_raised() as ending:
        try:
            yield
        except BaseException:
            if ending.signal is None:
                raise
            time.sleep(max(ending.since + _WRITING_S - time.monotonic(), 0))
            ending.end(ending.code)


class _Process(SpawnProcess):
    """A process that follows its parent from its first moment on: long before what it works with is imported."""

    def __reduce__(self) -> tuple[Callable[[int], "_Process"], tuple[int], dict[str, Any]]:
        return _born, (os.getpid(),), self.__dict__


def _born(parent: int) -> _Process:
    """In the new process: the first of what was sent to it."""
    end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent ends the others
    return _Process.__new__(_Process)


class _Context(SpawnContext):
    Process = _Process


def process_context() -> SpawnContext:
    """How worker processes are started.

    Not by fork: a forked child inherits torch's and arrow's threads in whatever state they are.
    """
    return _Context()
