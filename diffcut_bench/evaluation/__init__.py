"""Scores: matching of clusters to classes, metrics and their intervals, and the protocol that names the choices."""

from typing import TYPE_CHECKING, Any

from diffcut_bench.evaluation.annotators import Annotators
from diffcut_bench.evaluation.boundaries import BoundaryCounts, count_boundaries
from diffcut_bench.evaluation.images import ImageTable, ScoredImage
from diffcut_bench.evaluation.intervals import FEWEST_IMAGES, PairedDifference, paired_difference, percentile_interval
from diffcut_bench.evaluation.matching import (
    Counts,
    assign_clusters,
    contingency_table,
    contingency_tables,
    count_assigned,
    count_matches,
    count_matches_together,
    match_image,
    merge_and_count,
    merge_backgrounds,
    number_by_first_pixel,
)
from diffcut_bench.evaluation.metrics import Metric, known_metrics, measure_image
from diffcut_bench.evaluation.optimal_scale import Optimum, optimal_scale
from diffcut_bench.evaluation.scores import (
    ResampledScores,
    compare_images,
    resample,
    resample_together,
    score_images,
)
from diffcut_bench.extras import require
from diffcut_bench.protocol import OF_NAMES, Criterion, Protocol, Surplus, choices_in_force

if TYPE_CHECKING:
    from diffcut_bench.evaluation.counts import ImageCounts

__all__ = [
    "FEWEST_IMAGES",
    "OF_NAMES",
    "Annotators",
    "BoundaryCounts",
    "Counts",
    "Criterion",
    "ImageCounts",
    "ImageTable",
    "Metric",
    "Optimum",
    "PairedDifference",
    "Protocol",
    "ResampledScores",
    "ScoredImage",
    "Surplus",
    "assign_clusters",
    "choices_in_force",
    "compare_images",
    "contingency_table",
    "contingency_tables",
    "count_assigned",
    "count_boundaries",
    "count_matches",
    "count_matches_together",
    "known_metrics",
    "match_image",
    "measure_image",
    "merge_and_count",
    "merge_backgrounds",
    "number_by_first_pixel",
    "optimal_scale",
    "paired_difference",
    "percentile_interval",
    "resample",
    "resample_together",
    "score_images",
]


def __getattr__(name: str) -> Any:
    """`ImageCounts` when it is asked for: torchmetrics takes seconds to import, and no command needs it.

    Raises:
        UserError: torchmetrics is not installed.
    """
    if name != "ImageCounts":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    require("torchmetrics", "ImageCounts", "torchmetrics")
    from diffcut_bench.evaluation.counts import ImageCounts

    return ImageCounts


def __dir__() -> list[str]:
    return sorted(__all__)
