"""Bootstrap over images: intervals of a score, and of the difference of two methods on the same images."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

# Images below which no interval is told. In a simulation (areas log-normal, 1500 data sets each) the 95 % percentile
# interval of a class's IoU held the truth in 50 % of data sets of 2 images, 81 % of 5, 87 % of 10 and 92 % of 20.
FEWEST_IMAGES = 10
"""Images that a score needs for an interval to be told."""
_DRAWN_AT_ONCE = 1 << 24  # numbers, 256 MiB as counts and as float64


class PairedDifference(NamedTuple):
    """Scores of two methods on the same images, and what lies between them.

    Attributes:
        first, second: scores of each.
        difference: second less first.
        interval: lower and upper end of the difference.
        p_value: two-sided; how often resampling turns the difference's sign, doubled.
    """

    first: Float[Tensor, " scores"]
    second: Float[Tensor, " scores"]
    difference: Float[Tensor, " scores"]
    interval: Float[Tensor, "2 scores"]
    p_value: Float[Tensor, " scores"]


def resampled_sums(
    statistics: Sequence[Float[Tensor, "images _"]], resamples: int = 2000, seed: int = 42
) -> list[Float[Tensor, "resamples _"]]:
    """Column sums of bootstrap samples (Efron 1979): images drawn with replacement, the same for all statistics.

    How often each image is drawn is multinomial, so all resamples of a statistic are one matrix product.

    Args:
        statistics: of the same images, one row an image, in double precision; additive.
        resamples: number of bootstrap samples.
        seed: of the draws. With the same seed the same images are drawn of as many.
    """
    images, generator = len(statistics[0]), np.random.default_rng(seed)
    # A few resamples at a time: how often each image is drawn is as many numbers as there are images.
    block = max(_DRAWN_AT_ONCE // images, 1)
    sums: list[list[Tensor]] = [[] for _ in statistics]
    for start in range(0, resamples, block):
        draws = generator.multinomial(images, np.full(images, 1 / images), size=min(block, resamples - start))
        times = torch.from_numpy(draws).double()
        for own, statistic in zip(sums, statistics, strict=True):
            own.append(times @ statistic)
    return [torch.cat(own) for own in sums]


def percentile_interval(scores: Float[Tensor, "resamples scores"], level: float = 0.95) -> Float[Tensor, "2 scores"]:
    """Lower and upper end that hold ``level`` of the resampled scores; NaN is left out.

    They mean little for fewer than `FEWEST_IMAGES` images; with one they coincide.
    """
    tail = (1 - level) / 2
    return torch.nanquantile(scores, torch.tensor([tail, 1 - tail], dtype=scores.dtype), dim=0)


def paired_difference(
    first: Float[Tensor, " scores"],
    first_resampled: Float[Tensor, "resamples scores"],
    second: Float[Tensor, " scores"],
    second_resampled: Float[Tensor, "resamples scores"],
    level: float = 0.95,
) -> PairedDifference:
    """What lies between two methods, by the percentile bootstrap of the difference.

    Args:
        first, second: scores of each.
        first_resampled, second_resampled: those of bootstrap samples; the same images were drawn for both.
        level: coverage of the interval.
    """
    differences = second_resampled - first_resampled
    told = differences.isfinite().sum(dim=0).clamp_min(1)
    # Half of the ties go to either side, so that two equal methods have a p-value of 1.
    tied = (differences == 0).sum(dim=0) / 2
    below, above = (differences < 0).sum(dim=0) + tied, (differences > 0).sum(dim=0) + tied
    return PairedDifference(
        first=first,
        second=second,
        difference=second - first,
        interval=percentile_interval(differences, level),
        # No finite number of resamples shows a probability of zero.
        p_value=(2 * torch.minimum(below, above) / told).clamp(1 / len(differences), 1),
    )
