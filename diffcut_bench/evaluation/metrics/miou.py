"""Mean IoU over classes, of pixels summed over the data set: the field's score."""

import torch
from jaxtyping import Float
from torch import Tensor

from diffcut_bench.evaluation.images import ImageTable
from diffcut_bench.evaluation.matching import iou_per_class
from diffcut_bench.evaluation.metrics import Metric, needs_classes


def counts(images: ImageTable) -> Float[Tensor, "images columns"]:
    """TP, FP and FN of each class."""
    return torch.cat([images.tp, images.fp, images.fn], dim=1).double()


def class_iou(sums: Float[Tensor, "*batch columns"]) -> Float[Tensor, "*batch classes"]:
    """IoU of each class."""
    return iou_per_class(*sums.chunk(3, dim=-1))


METRIC = Metric(
    name="miou",
    heading="mIoU",
    statistic=counts,
    per_class=class_iou,
    inapplicable=needs_classes,
    class_heading="IoU",
    order=0,
    has_interval_column=True,
)
