"""Bootstrap over images: intervals of a score, and of the difference of two methods on the same images."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

# Images below which no interval is told. In a simulation (areas log-normal, 1500 data sets each) the 95 % percentile
# interval of a class's IoU held the truth in 50 % of data sets of 2 images, 81 % of 5, 87 % of 10 and 92 % of 20.
FEWEST_IMAGES = 10
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


def bootstrap_interval(
    rows: Float[Tensor, "images columns"],
    score: Callable[[Float[Tensor, "resamples columns"]], Float[Tensor, "resamples scores"]],
    resamples: int = 2000,
    seed: int = 42,
    level: float = 0.95,
) -> Float[Tensor, "2 scores"]:
    """Percentile bootstrap (Efron 1979) of a score of column sums, images drawn with replacement.

    How often each image is drawn is multinomial, so all resamples are one matrix product with the rows.

    Args:
        rows: additive counts, one row an image.
        score: from sums of rows to one or more scores.
        resamples: number of bootstrap samples.
        seed: of the draws.
        level: coverage.

    Returns:
        Lower and upper end for each score. They mean little for fewer than `FEWEST_IMAGES`; with one they coincide.
    """
    return percentile_interval(resampled_scores(rows, score, resamples, seed), level)


def resampled_scores(
    rows: Float[Tensor, "images columns"],
    score: Callable[[Float[Tensor, "resamples columns"]], Float[Tensor, "resamples scores"]],
    resamples: int = 2000,
    seed: int = 42,
) -> Float[Tensor, "resamples scores"]:
    """Scores of bootstrap samples; of as many rows the same images are drawn, so that methods can be compared in pairs.

    Args:
        rows, score, resamples, seed: see `bootstrap_interval`.
    """
    return score(_resampled_sums(rows, resamples, seed))


def percentile_interval(scores: Float[Tensor, "resamples scores"], level: float = 0.95) -> Float[Tensor, "2 scores"]:
    """Lower and upper end that hold ``level`` of the resampled scores; NaN is left out."""
    tail = (1 - level) / 2
    return torch.nanquantile(scores, torch.tensor([tail, 1 - tail], dtype=scores.dtype), dim=0)


def paired_bootstrap(
    first: Float[Tensor, "images columns"],
    second: Float[Tensor, "_ columns"],
    score: Callable[[Float[Tensor, "resamples columns"]], Float[Tensor, "resamples scores"]],
    resamples: int = 2000,
    seed: int = 42,
    level: float = 0.95,
) -> PairedDifference:
    """Percentile bootstrap of the difference of two methods: each resample draws the same images for both.

    What is hard or easy about an image cancels, so that a difference far smaller than either interval can be told.

    Args:
        first, second: additive counts of the two methods, the same image in the same row.
        score: from sums of rows to one or more scores.
        resamples, seed, level: see `bootstrap_interval`.

    Raises:
        ValueError: the methods have not the same number of images.
    """
    if len(first) != len(second):
        raise ValueError(f"paired rows differ in number: {len(first)} and {len(second)}")
    drawn = [resampled_scores(rows, score, resamples, seed) for rows in (first, second)]
    differences = drawn[1] - drawn[0]
    told = differences.isfinite().sum(dim=0).clamp_min(1)
    # Half of the ties go to either side, so that two equal methods have a p-value of 1.
    tied = (differences == 0).sum(dim=0) / 2
    below, above = (differences < 0).sum(dim=0) + tied, (differences > 0).sum(dim=0) + tied
    scores = [score(rows.double().sum(dim=0, keepdim=True))[0] for rows in (first, second)]
    return PairedDifference(
        first=scores[0],
        second=scores[1],
        difference=scores[1] - scores[0],
        interval=percentile_interval(differences, level),
        # No finite number of resamples shows a probability of zero.
        p_value=(2 * torch.minimum(below, above) / told).clamp(1 / resamples, 1),
    )


def _resampled_sums(rows: Tensor, resamples: int, seed: int) -> Tensor:
    images, generator = len(rows), np.random.default_rng(seed)
    # A few resamples at a time: how often each image is drawn is as many numbers as there are images.
    block = max(_DRAWN_AT_ONCE // images, 1)
    sums = []
    for start in range(0, resamples, block):
        draws = generator.multinomial(images, np.full(images, 1 / images), size=min(block, resamples - start))
        sums.append(torch.from_numpy(draws).double() @ rows.double())
    return torch.cat(sums)
