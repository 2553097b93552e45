"""Processes that share a pass over the images, as ``torchrun`` starts them: who one is, and how results come together.

Nothing but small Python objects travels (counts of images, not tensors), so gloo serves on every machine.
"""

import atexit
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch.distributed as dist

from diffcut_bench.traces import described

T = TypeVar("T")
# The slowest process may lag by its last batches, or by reading weights: not by a day.
_PATIENCE = timedelta(days=1)


@dataclass(frozen=True)
class Workers:
    """The processes of a run; one, unless ``torchrun`` started more.

    Attributes:
        rank: of this process, from 0.
        count: of processes.
        local_rank: among the processes of this machine, which is the accelerator to take.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """Every process's value, by rank. All processes have to call it."""
        if self.count == 1:
            return [value]
        values: list[T | None] = [None] * self.count
        dist.all_gather_object(values, value)
        return cast(list[T], values)

    def on_leader(self, work: Callable[[], T]) -> T:
        """What ``work`` gives on the leader, everywhere; what it raises there is raised everywhere."""
        if self.count == 1:
            return work()
        value, error = _tried(work) if self.leads else (None, None)
        sent: list[Any] = [value, error and _portable(error)]
        dist.broadcast_object_list(sent, src=0)
        if sent[1] is not None:
            raise sent[1]
        return cast(T, sent[0])

    def together(self, work: Callable[[], T]) -> T:
        """What ``work`` gives here; what it raises on one process is raised on all, so that none waits for it."""
        if self.count == 1:
            return work()
        done, raised = _tried(work)
        errors = [error for error in self.gather(raised and _portable(raised)) if error is not None]
        if errors:
            raise raised or errors[0]
        return cast(T, done)


def _tried(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """What the work gives, or raises."""
    try:
        return work(), None
    except Exception as error:
        return None, error


def _portable(error: Exception) -> Exception:
    """An exception that another process can read."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(described(error))
    return error


def workers() -> Workers:
    """Who this process is among those that ``torchrun`` started; joins them when first asked."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    # Other launchers set WORLD_SIZE too; only torchrun says where its processes meet.
    if count == 1 or "TORCHELASTIC_RUN_ID" not in os.environ:
        return Workers()
    if not dist.is_initialized():
        dist.init_process_group("gloo", timeout=_PATIENCE)
        # Left to the interpreter's end, gloo's threads abort the process one time in three: a failed run.
        atexit.register(dist.destroy_process_group)
    return Workers(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))
