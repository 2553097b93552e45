"""The program: ``diffcut-bench``, or ``python -m diffcut_bench``."""

import contextlib
import os
import sys
from typing import NoReturn

from diffcut_bench.interruption import end_with, signals_raised


def program() -> NoReturn:
    """Run the command line and end the process."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with(os.getppid())
    with signals_raised() as ending:
        try:
            # Not at the top: it takes seconds in which a signal may come, and worker processes import this file too.
            from diffcut_bench.cli import main

            code = main()
        except BaseException:
            if ending.signal is None:
                raise
            code = ending.code
            with contextlib.suppress(OSError):  # a terminal that hung up
                sys.stderr.write(f"{ending.words}\n")
        if ending.signal is not None:
            ending.end(code)
    raise SystemExit(code)


if __name__ == "__main__":
    program()
