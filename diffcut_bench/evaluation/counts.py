"""Counts per image as a torchmetrics metric: one row an image, concatenated across processes, scored as sums.

For loops of one's own; cells of this package keep their rows in journals and need none of it.
"""

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from diffcut_bench.evaluation.images import ImageTable
from diffcut_bench.evaluation.matching import Counts
from diffcut_bench.evaluation.scores import score_images
from diffcut_bench.protocol import AbsentClasses


class ImageCounts(Metric):
    """Data-set mIoU, IoU of each class and pixel accuracy from TP, FP, FN of each image.

    As input to ``update`` the metric takes the row's number (``index``: the image's index in the data set), its
    `Counts` and its scored pixels. ``compute`` gives a dictionary of

    - ``miou``: mean IoU over classes, in [0, 1]
    - ``iou_per_class`` [classes]: NaN for a class never annotated or predicted
    - ``pixel_accuracy``: ΣTP / Σpixels, in [0, 1]
    - ``miou_ci95`` [2], ``pixel_accuracy_ci95`` [2], ``iou_per_class_ci95`` [2, classes]: percentile bootstrap
      intervals over images; NaN for a class annotated in fewer than `FEWEST_IMAGES` images

    Across processes rows are concatenated and sorted by index; an image seen twice (a sampler's padding) counts once.

    Args:
        num_classes: number of classes scored.
        absent_classes: ``nan`` leaves a class never annotated or predicted out of the mean, ``zero`` counts it as 0.
        resamples: bootstrap resamples.
        seed: of the bootstrap.
        kwargs: of `torchmetrics.Metric`.

    Raises:
        RuntimeError: ``compute`` before any ``update``.

    >>> metric = ImageCounts(num_classes=2)
    >>> metric.update(0, Counts(torch.tensor([3, 1]), torch.tensor([1, 0]), torch.tensor([0, 1])), pixels=5)
    >>> round(metric.compute()["miou"].item(), 3)
    0.625
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    rows: list[Tensor]

    def __init__(
        self,
        num_classes: int,
        absent_classes: AbsentClasses = "nan",
        resamples: int = 2000,
        seed: int = 42,
        **kwargs: object,
    ) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.absent_classes = absent_classes
        self.resamples = resamples
        self.seed = seed
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(self, index: int, counts: Counts, pixels: int) -> None:
        """Add one image: its index in the data set, its counts, its number of scored pixels."""
        head = torch.tensor([index, pixels], dtype=torch.long)
        self.rows.append(torch.cat([head, *(c.long().cpu() for c in counts)])[None].to(self.device))

    def compute(self) -> dict[str, Tensor]:
        """Scores over all images; see the class."""
        if not len(self.rows):
            raise RuntimeError("no image has been counted")
        first = {int(row[0]): row for row in dim_zero_cat(self.rows).cpu().flip(0)}
        rows = torch.stack([first[index] for index in sorted(first)])
        tp, fp, fn = rows[:, 2:].split(self.num_classes, dim=1)
        images = ImageTable(tp, fp, fn, pixels=rows[:, 1], segments=torch.zeros_like(rows[:, 1]))
        found = score_images(images, {"absent_classes": self.absent_classes}, self.resamples, self.seed)
        (miou, miou_ends, _), (accuracy, accuracy_ends, _) = found["miou"], found["pixel_accuracy"]
        return {
            "miou": miou[0],
            "pixel_accuracy": accuracy[0],
            "iou_per_class": miou[1:],
            "miou_ci95": miou_ends[:, 0],
            "pixel_accuracy_ci95": accuracy_ends[:, 0],
            "iou_per_class_ci95": miou_ends[:, 1:],
        }
