"""A limit on the time that a piece of work may take, for methods of others that may hang."""

import faulthandler
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from diffcut_bench.errors import UserError

# A call that Python can't interrupt is given this many times the limit; then the process ends.
_LAST_RESORT = 10


class TookTooLongError(Exception):
    """The work was interrupted at its limit."""


@contextmanager
def time_limit(max_seconds: float | None, images: Sequence[str], cells: int = 1) -> Iterator[None]:
    """Within, work that takes longer than ``max_seconds`` for each of its images and cells is interrupted.

    It is interrupted between two steps of Python, in the main thread. One call into compiled code that does not come
    back can't be: after ten times the limit the traceback of all threads is written to standard error, and the process
    ends with code 2.

    Args:
        max_seconds: for one image of one cell; None: no limit.
        images: ids of those that are worked on together; none: no limit.
        cells: that they are worked on for.

    Raises:
        TookTooLongError: it did.
    """
    if max_seconds is None or not images:
        yield
        return
    seconds = max_seconds * len(images) * cells
    last = threading.Timer(min(_LAST_RESORT * seconds, threading.TIMEOUT_MAX), _end_process, (max_seconds, images))
    last.daemon = True
    last.start()
    try:
        with _alarm(seconds, f"took longer than max_seconds={max_seconds:g}"):
            yield
    finally:
        last.cancel()


@contextmanager
def _alarm(seconds: float, message: str) -> Iterator[None]:
    """Raise `TookTooLongError` within, after this time; a timer that was set before is set again afterwards."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise TookTooLongError(message)

    handler = signal.signal(signal.SIGALRM, ring)
    start = time.monotonic()
    left, interval = signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6))  # 0 would be no alarm
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - start), 1e-3), interval)


def _end_process(max_seconds: float, images: Sequence[str]) -> None:
    hung = UserError(
        f"a segmenter hangs in a call that can't be interrupted (max_seconds={max_seconds:g}); its traceback is above",
        ", ".join(images),
        "leave this image out or take another segmenter; what is done is kept",
    )
    faulthandler.dump_traceback(2)
    os.write(2, f"{hung}\n".encode())
    os._exit(2)
