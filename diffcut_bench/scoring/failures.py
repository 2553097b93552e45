"""How a cell, a trial or a row of a table ends in which something was raised that is no user's mistake."""

from collections.abc import Sequence
from pathlib import Path

from diffcut_bench.errors import UserError
from diffcut_bench.interruption import raise_if_interrupted
from diffcut_bench.store import log_error
from diffcut_bench.traces import error_in_code, is_debugging


def logged_error(error: Exception, overrides: Sequence[str], output_dir: Path) -> UserError:
    """How a cell ended in which something was raised that is no user's mistake; its traceback is kept in a log.

    Raises:
        Exception: it itself, under ``--debug``.
        Interrupted: a signal asked this process to end.
    """
    raise_if_interrupted()
    if is_debugging():
        raise error
    told = error_in_code(error, " ".join(overrides))
    log_error(output_dir, told)
    return told
