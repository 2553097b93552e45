"""Speed of segmenters beside each other, in one run and on the same features: what table 11 asks, without encoders."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.timing import timed

_ENOUGH_S = 10.0  # of a segmenter; a slower one is not repeated


@dataclass(frozen=True)
class Speed:
    """One segmenter.

    Attributes:
        segmenter: name of the option.
        images: at a time.
        rows, cols: of the partition: patches, or pixels where it is finer.
        images_per_s: at the least time of the repeats; None where it failed.
        ratio: images/s as a multiple of the first segmenter's.
        segments: mean an image.
        error: what it raised, if it did.
    """

    segmenter: str
    images: int
    rows: int
    cols: int
    images_per_s: float | None
    ratio: float | None
    segments: float | None
    error: str | None = None


def measure_speeds(
    works: Mapping[str, Callable[[], Sequence[Tensor]]], device: torch.device | None = None, repeats: int = 2
) -> list[Speed]:
    """Time segmenters in turns; one that fails is a row without times and leaves the others alone.

    Args:
        works: by name; each gives the partition [rows, cols] of every image, ids contiguous from 0. The first is what
            the others are compared with.
        device: an accelerator is waited for.
        repeats: of each; the first also warms up.
    """
    found = timed([_guarded(work) for work in works.values()], repeats, device, _ENOUGH_S)
    rows: list[Speed] = []
    for name, one in zip(works, found, strict=True):
        if isinstance(one.result, Exception):
            error = f"{type(one.result).__name__}: {one.result}"
            rows.append(Speed(name, 0, 0, 0, None, None, None, error))
            continue
        partitions = list(one.result)
        speed = len(partitions) / one.seconds
        first = rows[0].images_per_s if rows else speed
        segments = sum(int(partition.max()) + 1 for partition in partitions) / len(partitions)
        height, width = partitions[0].shape
        rows.append(Speed(name, len(partitions), height, width, speed, first and speed / first, segments))
    return rows


def _guarded(work: Callable[[], Sequence[Tensor]]) -> Callable[[], Sequence[Tensor] | Exception]:
    """The work, or what it raised: an option of any origin may do so on features that it was not made for."""

    def run() -> Sequence[Tensor] | Exception:
        try:
            return work()
        except Exception as error:
            return error

    return run
