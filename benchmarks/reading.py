"""Speed of reading: worker processes, and the label look-up, as ratios within one run."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.cut import Comparison
from benchmarks.timing import timed


def compare_workers(load: Callable[[int], Iterable[Sequence[object]]]) -> Comparison:
    """Decoding and cropping in two worker processes (ours) against one (theirs).

    Args:
        load: from a number of workers to an iterator over batches of the same images. The first batch is not timed: it
            waits for the workers to start.
    """

    def images_per_s(workers: int) -> tuple[int, float]:
        batches = iter(load(workers))
        next(batches)
        (one,) = timed([lambda: sum(len(batch) for batch in batches)], 1)
        return one.result, one.result / one.least

    (images, alone), (_, together) = images_per_s(1), images_per_s(2)
    return Comparison(
        what="reading in 1 worker, ours in 2",
        images=images,
        segments=None,
        ours_s=1 / together,
        other_s=1 / alone,
        ratio=together / alone,
        agreement=None,
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

    ours, theirs = timed([by_table, by_pixel], repeats)
    return Comparison(
        what="label mapping pixel by pixel",
        images=len(labels),
        segments=None,
        ours_s=ours.least / len(labels),
        other_s=theirs.least / len(labels),
        ratio=theirs.least / ours.least,
        agreement=sum(map(np.array_equal, ours.result, theirs.result)) / len(labels),
    )
