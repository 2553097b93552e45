"""Class-agnostic panoptic quality (Kirillov et al. 2019): are the annotated regions found, and how well do they fit?

A region, the pixels of one class in an image, and a segment match where their IoU is over 1/2, which no two segments
of a region reach. The score is ΣIoU / (TP + FP/2 + FN/2), of matches, segments and regions without one, summed over
the data set. In [0, 1].
"""

import torch
from jaxtyping import Float
from torch import Tensor

from diffcut_bench.evaluation.images import ScoredImage
from diffcut_bench.evaluation.metrics import Metric
from diffcut_bench.evaluation.metrics.covering import unions


def matches(image: ScoredImage) -> tuple[float, int, int, int]:
    """Sum of the IoU of matched regions, TP, FP and FN."""
    counts = image.table.numpy()
    union = unions(counts)
    matched = 2 * counts > union
    tp = int(matched.sum())
    segments, regions = int(counts.any(axis=0).sum()), int(counts.any(axis=1).sum())
    return float((counts / union)[matched].sum()), tp, segments - tp, regions - tp


def quality(sums: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch"]:
    """Panoptic quality of sums over images."""
    iou, tp, fp, fn = torch.unbind(sums, dim=-1)
    return iou / (tp + fp / 2 + fn / 2)


METRIC = Metric(
    name="pq",
    heading="PQ",
    measure=matches,
    reduce=quality,
    order=37,
    in_tables=False,
    about="PQ: panoptic quality without classes; annotated regions and segments match at an IoU over 1/2, and IoU, "
    "matches and misses are summed over the data set.",
)
