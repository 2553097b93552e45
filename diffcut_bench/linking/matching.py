"""Counts of every image after one matching of the clusters of all segments to classes."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from diffcut_bench.evaluation import Counts, assign_clusters


class Entries(NamedTuple):
    """What contingency tables of several images hold, an entry for each pair of class and segment that share pixels.

    Attributes:
        images, classes: of each entry.
        segments: of all images, counted on.
        pixels: shared.
    """

    images: Int[Tensor, " entries"]
    classes: Int[Tensor, " entries"]
    segments: Int[Tensor, " entries"]
    pixels: Int[Tensor, " entries"]


def count_linked(
    entries: Entries, linked: Int[Tensor, " segments"], images: int, num_classes: int, **assignment: Any
) -> Counts:
    """TP, FP, FN of each image [images, classes], where segments of one cluster are one for all images.

    Each class is given one cluster (`assign_clusters`, of all images together). Where there are more clusters than
    classes, each that is left over goes to the class that most of its pixels have.

    Args:
        entries: of the images' tables.
        linked: cluster of each segment.
        images, num_classes: how many there are.
        assignment: choices of the matching, see `Protocol.assignment`.
    """
    clusters = int(linked.max()) + 1 if len(linked) else 0
    cluster = linked[entries.segments]
    table = _sums(entries.pixels, (entries.classes, cluster), (num_classes, max(clusters, num_classes)))
    columns = assign_clusters(table, **assignment)
    given = columns >= 0
    becomes = torch.full((table.shape[1],), -1)
    if clusters > num_classes:
        becomes = table.argmax(dim=0)
    becomes[columns[given]] = torch.arange(num_classes)[given]
    predicted = becomes[cluster]
    counted, right = predicted >= 0, predicted == entries.classes
    size = (images, num_classes)
    tp = _sums(entries.pixels[right], (entries.images[right], predicted[right]), size)
    predicted_pixels = _sums(entries.pixels[counted], (entries.images[counted], predicted[counted]), size)
    return Counts(tp, predicted_pixels - tp, _sums(entries.pixels, (entries.images, entries.classes), size) - tp)


def _sums(pixels: Tensor, cells: tuple[Tensor, Tensor], size: tuple[int, int]) -> Tensor:
    """Sums of pixels in each cell of a table."""
    return pixels.new_zeros(size).index_put_(cells, pixels, accumulate=True)
