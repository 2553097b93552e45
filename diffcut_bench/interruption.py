"""How a run ends early: signals that stop it, and processes that end together with the one that started them."""

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

# The signals of terminals and schedulers; Windows has no SIGHUP.
_ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
# A terminal, torchrun and a scheduler may each send a signal for the same event.
_SAME_EVENT_S = 1.0
# Children are killed if they have not ended after this time.
_GRACE_S = 1.5
_BIRTH_S = 0.3
# After the signal, libraries have so long for what they do at the end of a process.
_CLEANING_S = 1.0
# A job waits so long before it ends: loky kills all workers as soon as one ends, and others may still write.
_WRITING_S = 0.5
_LOOK_S = 0.1


class Interrupted(KeyboardInterrupt):
    """A signal asked this process to end."""


class Ending:
    """What a signal does to this process: its children end, then `Interrupted` is raised in the main thread.

    A second signal ends the process at once: files are written whole or not at all, so that nothing is damaged.

    Attributes:
        signal: the one that came; None before.
        since: when it came, on the monotonic clock.
        held: the exception waits, see `held_back`.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.since = 0.0
        self.held = False

    @property
    def code(self) -> int:
        """Exit code after the signal, as in shells."""
        return 128 + (self.signal or signal.SIGINT)

    @property
    def words(self) -> str:
        """The message to the user."""
        name = (self.signal or signal.SIGINT).name
        return f"interrupted ({name}); what is done is kept, and the same command continues from here"

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self.since = signal.Signals(number), time.monotonic()
            threading.excepthook = lambda thread: None  # errors of threads whose child process ended are not shown
            end_children()
            self.raise_if_due()
        elif time.monotonic() - self.since > _SAME_EVENT_S:
            os._exit(self.code)

    def end(self, code: int) -> NoReturn:
        """End this process now that everything is written: wait for no thread, and for libraries only a moment."""
        latest = max(self.since + _CLEANING_S - time.monotonic(), _LOOK_S)
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
        """Raise `Interrupted` if a signal came and is not held back."""
        if self.signal is not None and not self.held:
            raise Interrupted(self.words)


_ending: Ending | None = None  # of this process, while signals are raised
_follows = False  # whether this process ends with its parent


@contextmanager
def signals_raised() -> Iterator[Ending]:
    """Within, SIGINT, SIGTERM and SIGHUP raise `Interrupted` in the main thread; a nested use changes nothing.

    A signal that is ignored (``nohup``, a shell's ``&``) or handled by another library stays so. In threads other than
    the main one nothing is changed.
    """
    global _ending
    if _ending is not None or threading.current_thread() is not threading.main_thread():
        yield _ending or Ending()
        return
    ours = Ending()
    before, excepthook = {number: signal.getsignal(number) for number in _ENDING}, threading.excepthook
    replaced = [number for number, now in before.items() if now in (signal.SIG_DFL, signal.default_int_handler)]
    _ending = ours
    try:
        for number in replaced:
            signal.signal(number, ours)
        yield ours
    finally:
        for number in replaced:
            signal.signal(number, before[number])
        threading.excepthook = excepthook
        _ending = None


@contextmanager
def held_back() -> Iterator[None]:
    """Within, a signal waits: for writes that have to be finished once begun."""
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


def raise_if_interrupted() -> None:
    """Raise `Interrupted` again, in case a library has swallowed it, such as one that calls back into Python."""
    if _ending is not None:
        _ending.raise_if_due()


def end_children() -> None:
    """Ask the processes that multiprocessing or loky started here to end, and kill those that do not end in time."""
    children = multiprocessing.active_children()
    start = time.monotonic()
    # Twice: a process that is just starting misses the first request.
    for patience in (_BIRTH_S, _GRACE_S):
        for child in children:
            child.terminate()
        for child in children:
            child.join(max(start + patience - time.monotonic(), 0))
    for child in children:
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
        os.kill(os.getpid(), signal.SIGTERM)  # the handler, if there is one, writes what is done
        time.sleep(_GRACE_S)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


@contextmanager
def job() -> Iterator[None]:
    """Within, this process works for a launcher: on a signal, or when its parent ends, it writes and ends."""
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
    """A process that watches its parent from the start, before the modules it works with are imported."""

    def __reduce__(self) -> tuple[Callable[[int], "_Process"], tuple[int], dict[str, Any]]:
        return _born, (os.getpid(),), self.__dict__


def _born(parent: int) -> _Process:
    """In the new process: the first object that is unpickled."""
    end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent ends the others
    return _Process.__new__(_Process)


class _Context(SpawnContext):
    Process = _Process


def process_context() -> SpawnContext:
    """How worker processes are started.

    Not by fork: a forked child inherits the threads of torch and arrow in an undefined state.
    """
    return _Context()
