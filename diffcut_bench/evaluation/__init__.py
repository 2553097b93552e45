"""Scores: matching of clusters to classes, counts per image, intervals, and the protocol that names the choices."""

from diffcut_bench.evaluation.counts import (
    ImageCounts,
    image_scores,
    images_per_class,
    jaccard_columns,
    jaccard_of,
    mean_image_jaccard,
)
from diffcut_bench.evaluation.intervals import (
    FEWEST_IMAGES,
    PairedDifference,
    bootstrap_interval,
    paired_bootstrap,
    percentile_interval,
    resampled_scores,
)
from diffcut_bench.evaluation.matching import (
    IGNORED,
    Counts,
    Criterion,
    assign_clusters,
    contingency_table,
    contingency_tables,
    count_matches,
    count_matches_together,
    count_named,
    match_image,
    merge_background,
    merge_backgrounds,
)
from diffcut_bench.evaluation.protocol import Protocol

__all__ = [
    "FEWEST_IMAGES",
    "IGNORED",
    "Counts",
    "Criterion",
    "ImageCounts",
    "PairedDifference",
    "Protocol",
    "assign_clusters",
    "bootstrap_interval",
    "contingency_table",
    "contingency_tables",
    "count_matches",
    "count_matches_together",
    "count_named",
    "image_scores",
    "images_per_class",
    "jaccard_columns",
    "jaccard_of",
    "match_image",
    "mean_image_jaccard",
    "merge_background",
    "merge_backgrounds",
    "paired_bootstrap",
    "percentile_interval",
    "resampled_scores",
]
