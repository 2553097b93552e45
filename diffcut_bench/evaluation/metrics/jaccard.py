"""Mean of per-image Jaccard: the metric released for named segments (docs/open_vocabulary.md).

An image's own is the mean IoU over the classes that are annotated or predicted in it. An image without any class (all
void) is left out. Every image weighs the same, whichever classes it holds and however large they are, so this is no
estimate of the data set's mIoU.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffcut_bench.evaluation.images import ImageTable
from diffcut_bench.evaluation.matching import iou_per_class
from diffcut_bench.evaluation.metrics import Metric, ratio


def score_and_presence(images: ImageTable) -> Float[Tensor, "images 2"]:
    """Mean IoU over the classes of each image, and whether it has any."""
    scores = iou_per_class(images.tp.double(), images.fp.double(), images.fn.double()).nanmean(dim=1)
    return torch.stack([scores.nan_to_num(), (~scores.isnan()).double()], dim=1)


def not_named(choices: Mapping[str, Any]) -> str:
    """It is told of named segments only."""
    return "" if choices.get("matching") == "named" else "segments are not named"


METRIC = Metric(
    name="jaccard",
    heading="image Jaccard",
    statistic=score_and_presence,
    reduce=ratio,
    inapplicable=not_named,
    order=10,
    has_interval_column=True,
    about="image Jaccard: mean over images of the mean IoU over the classes in an image, the metric released for named "
    "segments; mIoU sums pixels over the data set first. The two are not comparable.",
)
