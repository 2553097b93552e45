"""Segmentation covering (Arbeláez et al. 2011, section 3.1.3) of the annotated regions by the segments.

Each region has the IoU of the segment that fits it best, and counts by its pixels. In [0, 1]. The score is the mean
over images; one without a scored pixel is left out.
"""

import numpy as np

from diffcut_bench.evaluation.images import ScoredImage
from diffcut_bench.evaluation.metrics import Metric, ratio


def unions(counts: np.ndarray) -> np.ndarray:
    """Pixels of each class or cluster of a table [classes, clusters]; at least 1."""
    return np.maximum(counts.sum(axis=1, keepdims=True) + counts.sum(axis=0) - counts, 1)


def of_image(image: ScoredImage) -> tuple[float, float]:
    """Covering and 1; zeros without scored pixels."""
    counts = image.table.numpy()
    regions = counts.sum(axis=1)
    pixels = regions.sum()
    return (float(regions @ (counts / unions(counts)).max(axis=1) / pixels), 1.0) if pixels else (0.0, 0.0)


METRIC = Metric(
    name="covering",
    heading="covering",
    measure=of_image,
    reduce=ratio,
    order=34,
    in_tables=False,
    about="covering: IoU of each annotated region with the segment that fits it best, weighted by the region's pixels, "
    "the mean over images.",
)
