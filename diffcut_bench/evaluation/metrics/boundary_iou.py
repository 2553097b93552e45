"""Boundary IoU (Cheng et al. 2021): IoU of classes on the pixels near boundaries, the mean over classes.

As mIoU, with the protocol's matching of each image and pixels summed over the data set, but of a class only those of
its pixels count that are in its band, up to 2 % of the image's diagonal from other regions. See
`diffcut_bench.evaluation.boundaries`, also for what is different there.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffcut_bench.evaluation.images import ScoredImage
from diffcut_bench.evaluation.metrics import Metric, needs_classes


def shared_and_all(image: ScoredImage) -> list[float] | None:
    """Of each class the pixels in the bands of the class and of the cluster it was given, then those in either."""
    if image.boundaries is None or image.clusters is None:
        return None
    bands, of_classes, of_clusters = (
        image.boundaries.bands,
        image.boundaries.class_bands,
        image.boundaries.cluster_bands,
    )
    given = image.clusters >= 0
    shared = bands[torch.arange(len(bands)), image.clusters] * given
    return torch.cat([shared, of_classes + of_clusters[image.clusters] * given - shared]).tolist()


def class_iou(sums: Float[Tensor, "*batch columns"]) -> Float[Tensor, "*batch classes"]:
    """Boundary IoU of each class; NaN for one without a band, annotated or predicted."""
    shared, either = sums.chunk(2, dim=-1)
    return shared / either


def not_matched(choices: Mapping[str, Any]) -> str:
    """It needs the cluster of each class while the image is scored."""
    return needs_classes(choices) or ("clusters are matched later" if choices.get("matching") == "dataset" else "")


METRIC = Metric(
    name="boundary_iou",
    heading="boundary IoU",
    measure=shared_and_all,
    per_class=class_iou,
    inapplicable=not_matched,
    class_heading="boundary IoU",
    order=39,
    in_tables=False,
    about="boundary IoU: mIoU on the pixels within 2 % of the image's diagonal of a boundary.",
)
