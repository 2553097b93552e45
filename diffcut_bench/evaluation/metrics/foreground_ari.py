"""Adjusted Rand index on the foreground: pixels annotated as background are left out (Greff et al. 2019).

The score is the mean over images; one without foreground is left out. A data set without background has no such
score.
"""

import torch

from diffcut_bench.evaluation.images import ScoredImage
from diffcut_bench.evaluation.metrics import Metric, ratio
from diffcut_bench.evaluation.metrics.ari import adjusted_rand


def of_foreground(image: ScoredImage) -> tuple[float, float] | None:
    """Of the scored pixels that are not annotated as background."""
    if image.background is None:
        return None
    return adjusted_rand(torch.cat([image.table[: image.background], image.table[image.background + 1 :]]))


METRIC = Metric(
    name="foreground_ari",
    heading="foreground ARI",
    measure=of_foreground,
    reduce=ratio,
    order=31,
    in_tables=False,
    about="foreground ARI: adjusted Rand index where no background is annotated, the mean over images with foreground.",
)
