"""From the table of images to scores, their intervals and paired differences, whatever the metric."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from diffcut_bench.evaluation.images import AbsentClasses, ImageTable
from diffcut_bench.evaluation.intervals import (
    FEWEST_IMAGES,
    PairedDifference,
    paired_difference,
    percentile_interval,
    resampled_sums,
)
from diffcut_bench.evaluation.metrics import Metric, known_metrics
from diffcut_bench.traces import error_in_code


class ScoreEstimate(NamedTuple):
    """A score and after it that of each class, for a metric that has some; with their 95 % intervals over images.

    NaN for a class without a score; its interval is NaN also if it is annotated in fewer than `FEWEST_IMAGES` images.

    Attributes:
        images: that the score is over, see `Metric.scored_images`.
    """

    scores: Float[Tensor, " scores"]
    interval: Float[Tensor, "2 scores"]
    images: int


class ResampledScores(NamedTuple):
    """The score and after it that of each class: of the images, and of bootstrap samples of them."""

    scores: Float[Tensor, " scores"]
    resampled: Float[Tensor, "resamples scores"]


def score_images(
    images: ImageTable, choices: Mapping[str, Any], resamples: int = 2000, seed: int = 42
) -> dict[str, ScoreEstimate]:
    """Every score that these images have, by the metric's name.

    Args:
        images: what is kept of them.
        choices: of the protocol, by name.
        resamples, seed: of the bootstrap.
    """
    metrics = [metric for metric in known_metrics().values() if not metric.missing_in(images, choices)]
    few = images.images_per_class() < FEWEST_IMAGES
    found = {}
    for metric, told in zip(metrics, resample(images, metrics, choices, resamples, seed), strict=True):
        interval = percentile_interval(told.resampled)
        if metric.per_class is not None:
            interval[:, 1:].masked_fill_(few, float("nan"))
        found[metric.name] = ScoreEstimate(told.scores, interval, metric.scored_images(images))
    return found


def compare_images(
    first: ImageTable, second: ImageTable, choices: Sequence[Mapping[str, Any]], resamples: int = 2000, seed: int = 42
) -> dict[str, PairedDifference]:
    """The paired bootstrap of two methods on the same images: every score that both have, by the metric's name.

    Each resample draws the same images for both. What is hard or easy about an image cancels, so that a difference far
    smaller than either interval can be told.

    Args:
        first, second: of each method, the same image in the same row.
        choices: of the first's protocol and of the second's, by name.
        resamples, seed: of the bootstrap.

    Raises:
        ValueError: the methods have not the same number of images.
    """
    if len(first.pixels) != len(second.pixels):
        raise ValueError(f"paired images differ in number: {len(first.pixels)} and {len(second.pixels)}")
    sides = list(zip((first, second), choices, strict=True))
    metrics = [metric for metric in known_metrics().values() if not any(metric.missing_in(*side) for side in sides)]
    one, other = (resample(images, metrics, own, resamples, seed) for images, own in sides)
    return {metric.name: paired_difference(*one[i], *other[i]) for i, metric in enumerate(metrics)}


def resample(
    images: ImageTable, metrics: Sequence[Metric], choices: Mapping[str, Any], resamples: int = 2000, seed: int = 42
) -> list[ResampledScores]:
    """Scores of the images and of bootstrap samples, a pair for each metric; of as many images the same are drawn.

    Args:
        images: what is kept of them.
        metrics: that they have.
        choices: of the protocol, by name; the oldest results have none.
        resamples, seed: of the bootstrap.

    Raises:
        UserError: a metric does not reduce its sums to scores.
    """
    return resample_together([images], metrics, choices, resamples, seed)[0]


def resample_together(
    tables: Sequence[ImageTable],
    metrics: Sequence[Metric],
    choices: Mapping[str, Any],
    resamples: int = 2000,
    seed: int = 42,
) -> list[list[ResampledScores]]:
    """`resample` of each of several tables of the same images, which are drawn once for all of them."""
    absent_classes = choices.get("absent_classes", "nan")
    statistics = [[metric.statistics(images) for metric in metrics] for images in tables]
    drawn = iter(resampled_sums([own for of_table in statistics for own in of_table], resamples, seed))
    return [
        [_scores(metric, own, next(drawn), absent_classes) for metric, own in zip(metrics, of_table, strict=True)]
        for of_table in statistics
    ]


def _scores(metric: Metric, statistics: Tensor, sums: Tensor, absent_classes: AbsentClasses) -> ResampledScores:
    """Of a metric's statistics [images, columns], and of sums of these [resamples, columns]."""
    try:
        return ResampledScores(*(metric.scores(each, absent_classes) for each in (statistics.sum(dim=0), sums)))
    except Exception as error:  # a metric of the user's
        hint = "mend it, then run the same command again: what is scored is kept"
        raise error_in_code(error, f"metric {metric.name}", hint) from error
