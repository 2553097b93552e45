"""The score of a sweep at its best: at one setting for the data set (ODS), or at each image's own (OIS)."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from diffcut_bench.evaluation.images import ImageTable
from diffcut_bench.evaluation.intervals import percentile_interval, resampled_sums
from diffcut_bench.evaluation.metrics import Metric


class Optimum(NamedTuple):
    """A score at the best setting.

    Attributes:
        score: in the unit of files.
        interval: lower and upper end, 95 %, by the bootstrap over images.
        setting: number of the best one; None where each image has its own.
    """

    score: float
    interval: tuple[float, float]
    setting: int | None


def optimal_scale(
    metric: Metric,
    settings: Sequence[ImageTable],
    choices: Mapping[str, Any],
    *,
    of_each_image: bool = False,
    resamples: int = 2000,
    seed: int = 42,
) -> Optimum:
    """ODS or OIS of a sweep (Arbelaez et al., TPAMI 2011).

    The best setting for the data set is chosen anew in each bootstrap sample, of which all settings get the same
    images: that it was chosen for being the best is part of the interval. The best of an image is the one at which the
    image alone has the best score; the statistics of these are then summed over the images. So the boundary F of OIS is
    the F of the counts at each image's best F, and a score that is a mean over images is the mean of their best scores.

    Args:
        metric: that has a better and a worse.
        settings: images at each setting, the same image in the same row.
        choices: of the protocol, by name.
        of_each_image: OIS, and not ODS.
        resamples, seed: of the bootstrap.

    Raises:
        ValueError: a setting lacks the metric.
    """
    absent_classes = choices.get("absent_classes", "nan")
    statistics = torch.stack([metric.statistics(images) for images in settings], dim=1)  # [images, settings, columns]
    if of_each_image:
        each = torch.stack([metric.of_each(images) for images in settings], dim=1)
        best = _as_gain(each, metric.sign).argmax(dim=1)
        statistics = statistics[torch.arange(len(best)), best][:, None]
    (drawn,) = resampled_sums([statistics.flatten(1)], resamples, seed)
    sums = torch.cat([statistics.flatten(1).sum(dim=0, keepdim=True), drawn]).unflatten(1, statistics.shape[1:])
    scores = metric.scores(sums, absent_classes)[..., 0]  # [1 + resamples, settings]
    gains = _as_gain(scores, metric.sign)
    chosen = scores.gather(1, gains.argmax(dim=1, keepdim=True))
    low, high = percentile_interval(chosen[1:])[:, 0].tolist()
    return Optimum(chosen[0].item(), (low, high), None if of_each_image else int(gains[0].argmax()))


def _as_gain(scores: Float[Tensor, "*axes"], sign: int) -> Float[Tensor, "*axes"]:
    """Scores so that greater is better, and none is worst."""
    return (sign * scores).nan_to_num(nan=-torch.inf)
