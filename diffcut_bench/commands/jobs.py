"""Processes that Hydra's launchers start for the passes of a sweep."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffcut_bench.heap import keep_freed_memory
from diffcut_bench.interruption import end_with, job

_launching = False  # whether this process is the one that asked for jobs


@contextmanager
def launched_job(folder: Path) -> Iterator[None]:
    """Within, a process that a launcher started is like the one that asked for it; ``folder`` is the one it was in."""
    if _launching:  # joblib with one worker
        yield
        return
    with job():
        os.chdir(folder)
        keep_freed_memory()
        os.environ["TERM"] = "dumb"  # moving bars of several jobs would write over each other
        yield


@contextmanager
def launching() -> Iterator[None]:
    """Within, a launcher may start jobs; joblib's workers end with this process, also those that wait for a pass."""
    global _launching
    _launching = True
    try:
        with _loky_follows():
            yield
    finally:
        _launching = False


@contextmanager
def _loky_follows() -> Iterator[None]:
    try:
        from joblib.parallel import BACKENDS, register_parallel_backend  # type: ignore[import-untyped, unused-ignore]
    except ImportError:  # it comes with its launcher
        yield
        return
    loky = BACKENDS["loky"]

    class Following(loky):  # type: ignore[misc, valid-type]
        def configure(self, *args: Any, **settings: Any) -> Any:
            return super().configure(*args, **{"initializer": end_with, "initargs": (os.getpid(),), **settings})

    register_parallel_backend("loky", Following)
    try:
        yield
    finally:
        register_parallel_backend("loky", loky)
