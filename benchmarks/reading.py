"""Speed of reading: worker processes, and the label look-up, as ratios within one run."""

import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.cut import Comparison
from benchmarks.timing import least_times


def compare_workers(load: Callable[[int], Iterable[Sequence[object]]]) -> Comparison:
    """Decoding, cropping and resizing in two worker processes (ours) against one (theirs).

    Args:
        load: from a number of workers to an iterator over batches of the same images. The first batch is not timed: it
            waits for the workers to start.
    """
    seconds: dict[int, float] = {}
    images = 0
    for workers in (1, 2):
        batches = iter(load(workers))
        next(batches)
        start = time.perf_counter()
        images = sum(len(batch) for batch in batches)
        seconds[workers] = (time.perf_counter() - start) / images
    return Comparison(
        "reading in 1 worker, ours in 2", images, None, seconds[2], seconds[1], seconds[1] / seconds[2], None
    )


def compare_lookup(labels: Sequence[NDArray[np.integer]], lookup: NDArray[np.int64], repeats: int = 3) -> Comparison:
    """Raw label values to classes by look-up table against a dictionary asked pixel by pixel.

    Args:
        labels: raw values [height, width] of each image, all of them legal.
        lookup: class of each raw value.
        repeats: of each, in turns.
    """
    mapping = dict(enumerate(lookup.tolist()))

    def by_table() -> list[NDArray[np.int64]]:
        return [lookup[raw] for raw in labels]

    def by_pixel() -> list[NDArray[np.int64]]:
        return [np.array([[mapping[value] for value in row] for row in raw.tolist()]) for raw in labels]

    ours_s, theirs_s = least_times([by_table, by_pixel], repeats)
    equal = [np.array_equal(a, b) for a, b in zip(by_table(), by_pixel(), strict=True)]
    count = len(labels)
    return Comparison(
        "label mapping pixel by pixel",
        count,
        None,
        ours_s / count,
        theirs_s / count,
        theirs_s / ours_s,
        np.mean(equal).item(),
    )
