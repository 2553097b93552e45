"""Boundary F: do predicted boundaries lie where annotated ones do? (Martin et al. 2004; Csurka et al. 2013.)

Precision is the share of predicted boundary pixels near an annotated boundary, recall that of annotated ones near a
predicted boundary; pixels are summed over the data set, and the score is their harmonic mean, in [0, 1]. Near is
within 2 % of the image's diagonal. Classes do not matter. See `diffcut_bench.evaluation.boundaries` for what a
boundary is. Where nothing is predicted or nothing is annotated, but not both, the score is 0.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from diffcut_bench.evaluation.images import ScoredImage
from diffcut_bench.evaluation.metrics import Metric


def hits(image: ScoredImage) -> tuple[int, ...] | None:
    """Predicted boundary pixels that are near an annotated boundary and all, then the same of annotated ones."""
    if image.boundaries is None:
        return None
    found = image.boundaries
    return found.predicted_near, found.predicted, found.annotated_near, found.annotated


def harmonic_mean(sums: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch"]:
    """Of precision and recall of sums over images; NaN without any boundary."""
    predicted_near, predicted, annotated_near, annotated = torch.unbind(sums, dim=-1)
    precision, recall = predicted_near / predicted.clamp_min(1), annotated_near / annotated.clamp_min(1)
    f = 2 * precision * recall / (precision + recall)
    return f.nan_to_num().where(predicted + annotated > 0, torch.nan)


METRIC = Metric(
    name="boundary_f",
    heading="boundary F",
    measure=hits,
    reduce=harmonic_mean,
    order=38,
    in_tables=False,
    about="boundary F: precision and recall of boundary pixels within 2 % of the image's diagonal, without classes, "
    "pixels summed over the data set.",
)
