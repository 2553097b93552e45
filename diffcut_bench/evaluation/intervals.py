"""Bootstrap intervals over images."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


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
        Lower and upper end for each score. With a single image they coincide.
    """
    images = len(rows)
    draws = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)
    scores = score(torch.from_numpy(draws).double() @ rows.double())
    tail = (1 - level) / 2
    return torch.nanquantile(scores, torch.tensor([tail, 1 - tail], dtype=scores.dtype), dim=0)
