"""Scored images: what a metric is shown of one, and the table of what is kept of all."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from jaxtyping import Float, Int, Integer
from torch import Tensor

from diffcut_bench.evaluation.boundaries import BoundaryCounts


class ScoredImage(NamedTuple):
    """An image as it is scored, for metrics that look at more than its counts.

    Attributes:
        prediction: cluster ids from 0, after background rule and refiner, before the matching; class ids where segments
            are named. On the device of the run.
        label: class ids, −1 for pixels that are left out. Likewise.
        table: pixels of each class and cluster (`contingency_tables`), on the host.
        background: class of the background; None where the data set has none.
        clusters: cluster that the protocol's matching of this image gave each class, −1 for none; None where the
            matching comes later, or there is none.
        boundaries: pixels on and near boundaries (`count_boundaries`), on the host; None where they were not counted.
    """

    prediction: Integer[Tensor, "height width"]
    label: Integer[Tensor, "height width"]
    table: Int[Tensor, "classes clusters"]
    background: int | None = None
    clusters: Int[Tensor, " classes"] | None = None
    boundaries: BoundaryCounts | None = None


@dataclass(frozen=True)
class ImageTable:
    """What is kept of several images: what the statistics of all metrics are made from.

    Attributes:
        tp, fp, fn: pixels of each class.
        pixels: scored pixels.
        segments: segments of the partition.
        measured: by a metric's name, what it measured on every image.
    """

    tp: Int[Tensor, "images classes"]
    fp: Int[Tensor, "images classes"]
    fn: Int[Tensor, "images classes"]
    pixels: Int[Tensor, " images"]
    segments: Int[Tensor, " images"]
    measured: Mapping[str, Float[Tensor, "images columns"]] = field(default_factory=dict)

    def images_per_class(self) -> Int[Tensor, " classes"]:
        """In how many images each class is annotated."""
        return (self.tp + self.fn > 0).sum(dim=0)
