"""Whole tracebacks of errors in code of the user's, in a file of the output folder."""

import secrets
import shlex
import sys
from contextlib import suppress
from datetime import datetime
from functools import cache
from pathlib import Path

from diffcut_bench.errors import UserError, without_credentials
from diffcut_bench.store.atomic import write_atomically
from diffcut_bench.traces import CodeError, Trace

_MOST = 50  # tracebacks of a process; those of one bug are one


class _Log:
    """The file of this process in a folder. No other process has its name."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{secrets.token_hex(4)}.log"
        self.entries: dict[str, str] = {}  # by where they come from

    def add(self, trace: Trace, what: str) -> None:
        if self.path.is_file() and (trace.text in self.entries or len(self.entries) == _MOST):
            return
        time = datetime.now().isoformat(" ", "seconds")
        self.entries[trace.text] = f"{time}  {without_credentials(what)}\n{trace.text}"
        command = without_credentials(shlex.join(sys.argv))
        text = "\n".join([f"{command}\n", *self.entries.values()])
        write_atomically(self.path, text.encode(errors="backslashreplace"))  # names of files may be no Unicode


_log_in = cache(_Log)


def log_error(output_dir: Path, error: Exception | None) -> None:
    """Keep the traceback of a `CodeError` that is in no log yet, and let the error name the file."""
    if isinstance(error, CodeError) and error.log is None:
        error.log = log_trace(output_dir, error.trace, error.where)


def log_trace(output_dir: Path, trace: Trace, what: str) -> Path | None:
    """Keep a traceback in the log of this process, ``logs/TIME_….log`` of an output folder.

    Args:
        output_dir: of the run.
        trace: what is kept of the error; one that is there already is not written again.
        what: it came up at, such as an image.

    Returns:
        The file; None where it can't be written.
    """
    log = _log_in((output_dir / "logs").absolute())
    with suppress(UserError):
        log.add(trace, what)
        return output_dir / "logs" / log.path.name
    return None
