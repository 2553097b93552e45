"""Counts per image as a torchmetrics metric: one row an image, concatenated across processes, scored as sums."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from diffcut_bench.evaluation.intervals import FEWEST_IMAGES, bootstrap_interval
from diffcut_bench.evaluation.matching import Counts, iou_per_class

AbsentClasses = Literal["nan", "zero"]


class ImageCounts(Metric):
    """Data-set mIoU, IoU of each class and pixel accuracy from TP, FP, FN of each image.

    As input to ``update`` the metric takes the row's number (``index``: the image's place in the data set), its
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
        """Add one image: its place in the data set, its counts, its number of scored pixels."""
        head = torch.tensor([index, pixels], dtype=torch.long)
        self.rows.append(torch.cat([head, *(c.long().cpu() for c in counts)])[None].to(self.device))

    def table(self) -> tuple[Tensor, Tensor, Counts]:
        """Index [images], scored pixels [images] and counts [images × classes], sorted by index, each image once."""
        if not len(self.rows):
            raise RuntimeError("no image has been counted")
        rows = dim_zero_cat(self.rows)
        index, inverse = rows[:, 0].unique(return_inverse=True)
        first = torch.full_like(index, len(rows)).scatter_reduce(
            0, inverse, torch.arange(len(rows), device=rows.device), "amin"
        )
        rows = rows[first]
        tp, fp, fn = rows[:, 2:].split(self.num_classes, dim=1)
        return index, rows[:, 1], Counts(tp, fp, fn)

    def compute(self) -> dict[str, Tensor]:
        """Scores over all images; see the class."""
        columns = self.columns()
        scores = self.scores_of(columns.sum(dim=0))
        interval = bootstrap_interval(columns, self.scores_of, self.resamples, self.seed)
        few = images_per_class(self.table()[2]).cpu() < FEWEST_IMAGES
        return {
            "miou": scores[0],
            "pixel_accuracy": scores[1],
            "iou_per_class": scores[2:],
            "miou_ci95": interval[:, 0],
            "pixel_accuracy_ci95": interval[:, 1],
            "iou_per_class_ci95": interval[:, 2:].masked_fill(few, float("nan")),
        }

    def columns(self) -> Float[Tensor, "images columns"]:
        """TP, FP, FN of each class and the scored pixels, an image a row, in order: what `scores_of` takes sums of."""
        _, pixels, counts = self.table()
        return torch.cat([counts.tp, counts.fp, counts.fn, pixels[:, None]], dim=1).double().cpu()

    def scores_of(self, sums: Float[Tensor, "*batch columns"]) -> Float[Tensor, "*batch scores"]:
        """mIoU, pixel accuracy and IoU of each class from sums of TP, FP, FN and pixels."""
        tp, fp, fn = sums[..., :-1].split(self.num_classes, dim=-1)
        iou = iou_per_class(tp, fp, fn)
        miou = iou.nan_to_num(nan=0.0).mean(dim=-1) if self.absent_classes == "zero" else iou.nanmean(dim=-1)
        accuracy = tp.sum(dim=-1) / sums[..., -1]
        return torch.cat([miou[..., None], accuracy[..., None], iou], dim=-1)


def images_per_class(counts: Counts) -> Int[Tensor, " classes"]:
    """In how many images each class is annotated.

    Args:
        counts: TP, FP, FN [images × classes].
    """
    return (counts.tp + counts.fn > 0).sum(dim=0)


def image_scores(counts: Counts) -> Float[Tensor, " images"]:
    """Mean IoU of each image over the classes that are annotated or predicted in it; NaN where there is none.

    It ranks images; its mean is not the data set's mIoU.

    Args:
        counts: TP, FP, FN [images × classes].
    """
    return iou_per_class(*(count.double() for count in counts)).nanmean(dim=1)


def mean_image_jaccard(counts: Counts, resamples: int = 2000, seed: int = 42) -> tuple[float, tuple[float, float]]:
    """Mean of `image_scores` over images, and its percentile bootstrap interval: the open-vocabulary metric.

    An image without any class (all void) is left out. Every image weighs the same, whichever classes it holds and
    however large they are, so this is no estimate of the data set's mIoU.

    Args:
        counts: TP, FP, FN [images × classes].
        resamples, seed: of the bootstrap.
    """
    rows = jaccard_columns(counts)
    low, high = bootstrap_interval(rows, jaccard_of, resamples, seed)[:, 0].tolist()
    return jaccard_of(rows.sum(dim=0)).item(), (low, high)


def jaccard_columns(counts: Counts) -> Float[Tensor, "images 2"]:
    """Score of each image, and whether it has one: what `jaccard_of` takes sums of."""
    scores = image_scores(counts)
    return torch.stack([scores.nan_to_num(), (~scores.isnan()).double()], dim=1)


def jaccard_of(sums: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 1"]:
    """Mean of per-image Jaccard from sums over images."""
    return sums[..., :1] / sums[..., 1:]
