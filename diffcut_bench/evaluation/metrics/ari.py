"""Adjusted Rand index (Hubert & Arabie 1985): agreement of two partitions on pairs of pixels, above that of chance.

1 for equal partitions, 0 on average for random ones with the same sizes of regions and segments; it can be negative.
The score is the mean over images; one without a scored pixel is left out.
"""

from typing import NamedTuple

from jaxtyping import Int
from torch import Tensor

from diffcut_bench.evaluation.images import ScoredImage
from diffcut_bench.evaluation.metrics import Metric, ratio


class PairCounts(NamedTuple):
    """Ordered pairs of pixels by whether they share a segment (positive) and a region (true positive, false negative).

    Python's integers, which have no largest one: products of them leave 64 bits.
    """

    tp: int
    fp: int
    fn: int
    tn: int


def count_pairs(table: Int[Tensor, "classes clusters"]) -> PairCounts:
    """Pairs of different pixels of a contingency table."""
    counts = table.numpy()
    regions, segments = counts.sum(axis=1), counts.sum(axis=0)
    pixels, together = int(regions.sum()), int((counts * counts).sum())
    fp, fn = int((segments * segments).sum()) - together, int((regions * regions).sum()) - together
    return PairCounts(together - pixels, fp, fn, pixels * pixels - together - fp - fn)


def adjusted_rand(table: Int[Tensor, "classes clusters"]) -> tuple[float, float]:
    """The index of a contingency table, and 1; zeros for a table without pixels.

    Two partitions that agree on every pair have an index of 1, also where each is of one region.
    """
    tp, fp, fn, tn = count_pairs(table)
    if not table.any():
        return 0.0, 0.0
    if not fp and not fn:
        return 1.0, 1.0
    return 2 * (tp * tn - fn * fp) / ((tp + fn) * (fn + tn) + (tp + fp) * (fp + tn)), 1.0


def of_image(image: ScoredImage) -> tuple[float, float]:
    """Of all scored pixels."""
    return adjusted_rand(image.table)


METRIC = Metric(
    name="ari",
    heading="ARI",
    measure=of_image,
    reduce=ratio,
    order=30,
    in_tables=False,
    about="ARI: adjusted Rand index of segments and annotated regions, the mean over images; 0 is what chance gives.",
)
