"""One process at a time computes a cell, by a lock that the system releases when its holder ends for any reason."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from diffcut_bench.store.atomic import make_folder, unwritable

fcntl: Any = None
with contextlib.suppress(ImportError):  # Windows
    import fcntl

_LOOK_S = 0.2


class CellLock:
    """The right to write a cell.

    It is ``flock`` on a file: the kernel releases it when the holder ends, also by ``kill -9`` or a power cut, so that
    nothing has to be cleaned up. It works between the processes of one machine on every local file system, and between
    machines where the file system shares such locks (NFS 4, NFS 3 with its lock daemon, GPFS, CephFS, Lustre mounted
    with ``flock``). Where it does not (Lustre's ``localflock``), two machines may both compute a cell; what is
    published is still checked to be whole. A file system without any locks gets a file that names the holder instead;
    if a holder on another machine dies, that file stays until somebody deletes it.

    Args:
        path: of the lock; the file exists while a process holds the lock or waits for it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._note = path.with_suffix(".holder.json")
        self._lock = FileLock(path, blocking=False)

    def acquire(self) -> bool:
        """Take the lock if nobody holds it.

        Raises:
            UserError: the folder can't be written.
        """
        try:
            make_folder(self._path.parent)
            self._lock.acquire()
            note = {"host": socket.gethostname(), "process": os.getpid(), "since": time.time()}
            self._note.write_text(json.dumps(note))
        except Timeout:
            return False
        except (OSError, NotImplementedError) as error:
            self._lock.release(force=True)
            raise unwritable(self._path, error if isinstance(error, OSError) else OSError(str(error))) from error
        return True

    def wait(self, waiting: Callable[[str], None]) -> None:
        """Take the lock as soon as its holder gives it back or dies.

        Args:
            waiting: called once with a line on its holder, if there is one.
        """
        if not self.acquire():
            waiting(self.holder())
            while not self.acquire():
                time.sleep(_LOOK_S)

    def holder(self) -> str:
        """Who holds the lock, in words."""
        try:
            note = json.loads(self._note.read_text())
            since = datetime.fromtimestamp(note["since"]).strftime("%Y-%m-%d %H:%M:%S")
            return f"process {note['process']} on {note['host']}, since {since}"
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            return "another process"

    def is_held(self) -> bool:
        """Whether a process holds the lock; False where that can't be told without waiting for it or writing."""
        if fcntl is None or not self._path.is_file():
            return False
        try:
            with self._path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def release(self) -> None:
        """Give the lock back, so that a waiting process takes it. Nothing happens if it is not held."""
        if not self._lock.is_locked:
            return
        # Deleted before the release, so that it is not another holder's file; who waits sees that the file has changed.
        with contextlib.suppress(OSError):
            self._note.unlink(missing_ok=True)
            self._path.unlink(missing_ok=True)
        self._lock.release(force=True)
