"""Mean IoU where each segment becomes the class that it shares most pixels with: many-to-one, merged by an oracle.

As mIoU, of pixels summed over the data set first; the classes of segments are found image by image, whatever the
protocol's matching. Segments are those that the background rule leaves; unless it merges some, dividing segments
further never lowers an image's correct pixels. It can be below mIoU, in which clusters without a class cost nothing. Of
classes that tie the first one is taken: no number of a segment matters.
"""

import numpy as np

from diffcut_bench.evaluation.images import ScoredImage
from diffcut_bench.evaluation.metrics import Metric, needs_classes
from diffcut_bench.evaluation.metrics.miou import class_iou


def counts_by_majority(image: ScoredImage) -> list[float]:
    """TP, FP and FN of each class."""
    counts = image.table.numpy()
    becomes = counts.argmax(axis=0)
    tp = np.bincount(becomes, counts.max(axis=0), minlength=len(counts))
    predicted = np.bincount(becomes, counts.sum(axis=0), minlength=len(counts))
    return [*tp, *(predicted - tp), *(counts.sum(axis=1) - tp)]


METRIC = Metric(
    name="majority_miou",
    heading="majority mIoU",
    measure=counts_by_majority,
    per_class=class_iou,
    inapplicable=needs_classes,
    class_heading="majority IoU",
    order=36,
    in_tables=False,
    about="majority mIoU: each segment of an image becomes the class it shares most pixels with, then mIoU of pixels "
    "summed over the data set; what an oracle could make of the segments "
    "that the background rule leaves.",
)
