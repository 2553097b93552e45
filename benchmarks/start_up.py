"""What commands cost that should answer at once: ``python -m benchmarks.start_up`` prints a Markdown table.

CPU seconds (user and system) of the whole process, the least of five, and the packages that it imports.
"""

import resource
import subprocess
import sys
from importlib.metadata import packages_distributions

COMMANDS = ("--help", "run --help", "reproduce --help", "completion bash", "doctor --short")
_PROGRAM = """
import atexit, sys
atexit.register(lambda: print(*{name.partition(".")[0] for name in sys.modules}, file=sys.stderr))
from diffcut_bench.__main__ import program
program()
"""


def cpu_seconds(words: str) -> float:
    """Of one start of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _finished([sys.executable, "-m", "diffcut_bench", *words.split()])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def imported(words: str) -> list[str]:
    """Distributions of which a command imports a module, without this package."""
    names = _finished([sys.executable, "-c", _PROGRAM, *words.split()]).splitlines()[-1].split()
    known = packages_distributions()
    return sorted({known[name][0] for name in names if name in known and not name.startswith(("_", "diffcut_bench"))})


def _finished(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


if __name__ == "__main__":
    print("| command | CPU seconds | packages imported |\n| --- | ---: | --- |")  # noqa: T201
    for each in COMMANDS:
        least = min(cpu_seconds(each) for _ in range(5))
        found = imported(each)
        shown = ", ".join(found) if len(found) < 8 else f"{len(found)}, such as {', '.join(found[:3])}"
        print(f"| `{each}` | {least:.2f} | {shown} |")  # noqa: T201
