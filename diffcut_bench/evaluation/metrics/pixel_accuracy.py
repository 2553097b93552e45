"""Pixel accuracy: the share of the scored pixels whose class is the annotated one."""

import torch
from jaxtyping import Float
from torch import Tensor

from diffcut_bench.evaluation.images import ImageTable
from diffcut_bench.evaluation.metrics import Metric, needs_classes, ratio


def correct_and_all(images: ImageTable) -> Float[Tensor, "images 2"]:
    """Correct pixels and scored pixels: each of these is a true positive or a false negative."""
    correct = images.tp.sum(dim=1)
    return torch.stack([correct, correct + images.fn.sum(dim=1)], dim=1).double()


METRIC = Metric(
    name="pixel_accuracy",
    heading="pixel accuracy",
    statistic=correct_and_all,
    reduce=ratio,
    inapplicable=needs_classes,
    order=20,
)
