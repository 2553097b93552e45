"""Cosine similarity as a classifier of "same class?": scores, ROC, AUC and its interval."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu
from torch import Tensor
from torch.nn.functional import normalize

from diffcut_bench.coherence.sampling import Plan

# Cosines are rounded to this step, so that what float32 can't tell apart is a tie on every device.
_STEP = 2.0**-20
_BINS = 512
_CHUNK = 64  # resamples at a time


def cosine(first: Float[Tensor, "n channels"], second: Float[Tensor, "m channels"]) -> Float[Tensor, "n m"]:
    """Cosine similarities in [−1, 1], rounded to multiples of 2⁻²⁰; 0 with a feature that is zero."""
    return _rounded(_unit(first) @ _unit(second).T)


def pair_scores(features: Sequence[Float[Tensor, "_ channels"]], plan: Plan) -> NDArray[np.float32]:
    """Cosine of every patch pair of a plan, the pairs of images one after the other.

    Args:
        features: of each image's drawn patches, in the order of ``plan.ids``.
        plan: what to compare. Within an image a patch is compared with those after it.
    """
    unit = [_unit(each) for each in features]
    # All come to the host together, so that an accelerator is waited for once.
    scores = torch.cat([_rounded(unit[a] @ unit[b].T).flatten() for a, b in plan.pairs]).cpu()
    found = []
    sizes = [(len(unit[a]), len(unit[b])) for a, b in plan.pairs]
    for (a, b), size, table in zip(plan.pairs, sizes, scores.split([n * m for n, m in sizes]), strict=True):
        found.append(table.view(size).numpy()[np.triu_indices(size[0], 1)] if a == b else table.numpy())
    return np.concatenate(found)


def _unit(features: Tensor) -> Tensor:
    return normalize(features.float(), dim=1)


def _rounded(scores: Tensor) -> Tensor:
    return ((scores / _STEP).round() * _STEP).clamp(-1, 1)


def auc(scores: NDArray[np.float32], same: NDArray[np.bool_]) -> float:
    """Area under the ROC curve: share of (positive, negative) couples in the right order, ties as one half.

    It is the Mann–Whitney statistic over its maximum, so it is exact and 0.5 for constant scores.

    Args:
        scores: of each pair.
        same: the truth; at least one of either kind.
    """
    # In float32 scipy would sum the ranks in float32.
    positive, negative = scores[same].astype(np.float64), scores[~same].astype(np.float64)
    statistic = mannwhitneyu(positive, negative, method="asymptotic").statistic
    return float(statistic) / (len(positive) * len(negative))


def roc_points(scores: NDArray[np.float32], same: NDArray[np.bool_]) -> NDArray[np.float64]:
    """At most 199 points [points, 2] of the ROC curve, (false, true) positive rate from (0, 0) to (1, 1).

    Each lies on the exact curve; the thresholds are quantiles of both classes' scores, so that both axes are resolved.
    """
    positive, negative = np.sort(scores[same]), np.sort(scores[~same])
    levels = np.linspace(0, 1, 99)
    thresholds = np.unique([np.quantile(part, levels, method="lower") for part in (positive, negative)])[::-1]
    rates = [1 - np.searchsorted(part, thresholds, side="left") / len(part) for part in (negative, positive)]
    return np.vstack([np.zeros((1, 2)), np.stack(rates, axis=1)])


def auc_interval(scores: NDArray[np.float32], plan: Plan, *, seed: int, resamples: int = 1000) -> tuple[float, float]:
    """95 % percentile interval of the AUC under the pigeonhole bootstrap (Owen 2007) over images.

    Images are drawn with replacement; a pair of two images counts as often as the product of their draws, a pair
    within an image as often as the image. Where each image is in a few pairs only, the interval is too wide rather
    than too narrow; with a single pair its ends coincide. Scores are put into 512 bins of equal mass for it.

    Args:
        scores: of each patch pair.
        plan: which images they are of.
        seed: of the draws.
        resamples: number of bootstrap samples.
    """
    edges = np.unique(np.quantile(scores, np.linspace(0, 1, _BINS + 1)[:-1], method="lower"))
    cell = (plan.unit.astype(np.int64) * 2 + plan.same) * len(edges) + np.searchsorted(edges, scores, side="right") - 1
    table = np.bincount(cell, minlength=len(plan.pairs) * 2 * len(edges)).astype(np.float64)
    table = table.reshape(len(plan.pairs), 2 * len(edges))
    first, second = np.array(plan.pairs).T
    generator, images, areas = np.random.default_rng(seed), len(plan.ids), []
    for start in range(0, resamples, _CHUNK):
        draws = generator.multinomial(images, np.full(images, 1 / images), size=min(_CHUNK, resamples - start))
        weights = np.where(first == second, draws[:, first], draws[:, first] * draws[:, second])
        negative, positive = np.moveaxis((weights @ table).reshape(len(draws), 2, -1), 1, 0)
        below = negative.cumsum(axis=1) - negative / 2
        with np.errstate(invalid="ignore"):  # a resample without either kind of pair has no AUC
            areas.append((positive * below).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1)))
    low, high = np.nanquantile(np.concatenate(areas), [0.025, 0.975])
    return float(low), float(high)
