"""How long and how much memory: the least time of several works in turns, and the most memory that one takes."""

import ctypes
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffcut_bench.environment import synchronize

_PROCESS = Path("/proc/self")
_HIGH_WATER_MARK = "5"  # proc(5): written to clear_refs, it resets VmHWM


@dataclass
class Timed:
    """Least seconds of a work, and what it returned the last time."""

    seconds: float = float("inf")
    result: Any = None


def timed(
    works: Sequence[Callable[[], object]],
    repeats: int,
    device: torch.device | None = None,
    enough: float = float("inf"),
) -> list[Timed]:
    """Least time of each, taken in turns, so that a busy moment of the machine does not hit one alone.

    Args:
        works: to be timed.
        repeats: of each, at least 1.
        device: an accelerator is waited for before and after.
        enough: seconds after which a work is not repeated any more.
    """
    found = [Timed() for _ in works]
    spent = [0.0] * len(works)
    for _ in range(repeats):
        for place, (work, one) in enumerate(zip(works, found, strict=True)):
            if spent[place] <= enough:
                synchronize(device)
                start = time.perf_counter()
                one.result = work()
                synchronize(device)
                seconds = time.perf_counter() - start
                spent[place] += seconds
                one.seconds = min(one.seconds, seconds)
    return found


def least_times(works: Sequence[Callable[[], object]], repeats: int, device: torch.device | None = None) -> list[float]:
    """Least seconds of each; see `timed`."""
    return [one.seconds for one in timed(works, repeats, device)]


def seconds_of(work: Callable[[], object], device: torch.device | None = None) -> float:
    """Seconds of one call."""
    return least_times([work], 1, device)[0]


def peak_bytes(work: Callable[[], object], device: torch.device) -> int | None:
    """Most memory that a call takes beyond what is held before it; None where the system does not tell.

    On an accelerator what its allocator holds, on the CPU resident memory of the process (Linux).
    """
    if device.type != "cpu":
        module = torch.get_device_module(device)
        if not hasattr(module, "max_memory_allocated"):
            return None
        module.reset_peak_memory_stats(device)
        before = module.memory_allocated(device)
        work()
        synchronize(device)
        return int(module.max_memory_allocated(device) - before)
    try:
        # The command line keeps freed memory in the process, where it would hide what the call takes.
        ctypes.CDLL(None).malloc_trim(0)
        (_PROCESS / "clear_refs").write_text(_HIGH_WATER_MARK)
        before = _status("VmRSS")
        work()
        return max(_status("VmHWM") - before, 0)
    except (OSError, AttributeError, TypeError, StopIteration):
        return None


def _status(name: str) -> int:
    """A line of /proc/self/status, bytes."""
    lines = (_PROCESS / "status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])
