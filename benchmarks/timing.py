"""How long and how much memory: seconds of several works in turns, and the most memory that one takes."""

import ctypes
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

from diffcut_bench.environment import synchronize

_PROCESS = Path("/proc/self")
_HIGH_WATER_MARK = "5"  # proc(5): written to clear_refs, it resets VmHWM


@dataclass
class Timed:
    """Seconds of each call of a work, and what it returned the last time."""

    seconds: list[float] = field(default_factory=list)
    result: Any = None

    @property
    def least(self) -> float:
        """Seconds of the quickest call."""
        return min(self.seconds)

    @property
    def median(self) -> float:
        """Seconds of the call in the middle."""
        return median(self.seconds)


def timed(
    works: Sequence[Callable[[], object]],
    repeats: int,
    device: torch.device | None = None,
    enough: float = float("inf"),
) -> list[Timed]:
    """Time each work, taken in turns, so that a busy moment of the machine does not hit one alone.

    Args:
        works: to be timed.
        repeats: of each, at least 1.
        device: an accelerator is waited for before and after.
        enough: seconds after which a work is not repeated any more.
    """
    found = [Timed() for _ in works]
    for _ in range(repeats):
        for work, one in zip(works, found, strict=True):
            if not one.seconds or sum(one.seconds) <= enough:
                synchronize(device)
                start = time.perf_counter()
                one.result = work()
                synchronize(device)
                one.seconds.append(time.perf_counter() - start)
    return found


def allocator(device: torch.device) -> Any:
    """The module of an accelerator that tells what its allocator holds; None where the device does not tell."""
    module = torch.get_device_module(device)
    return module if hasattr(module, "max_memory_allocated") else None


def peak_bytes(work: Callable[[], object], device: torch.device) -> int | None:
    """Most memory that a call takes beyond what is held before it; None where the system does not tell.

    On an accelerator what its allocator holds, on the CPU resident memory of the process (Linux).
    """
    if device.type != "cpu":
        memory = allocator(device)
        if memory is None:
            return None
        memory.reset_peak_memory_stats(device)
        before = memory.memory_allocated(device)
        work()
        synchronize(device)
        return int(memory.max_memory_allocated(device) - before)
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
