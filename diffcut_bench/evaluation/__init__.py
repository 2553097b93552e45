"""Scores: matching of clusters to classes, counts per image, intervals, and the protocol that names the choices."""

from diffcut_bench.evaluation.counts import ImageCounts, image_scores, images_per_class, mean_image_jaccard
from diffcut_bench.evaluation.intervals import FEWEST_IMAGES, PairedDifference, bootstrap_interval, paired_bootstrap
from diffcut_bench.evaluation.matching import (
    IGNORED,
    Counts,
    Criterion,
    Surplus,
    assign_clusters,
    contingency_table,
    contingency_tables,
    count_matches,
    count_matches_together,
    count_named,
    match_image,
    merge_background,
    merge_backgrounds,
    number_by_first_pixel,
)
from diffcut_bench.evaluation.protocol import Protocol, choices_in_force

__all__ = [
    "FEWEST_IMAGES",
    "IGNORED",
    "Counts",
    "Criterion",
    "ImageCounts",
    "PairedDifference",
    "Protocol",
    "Surplus",
    "assign_clusters",
    "bootstrap_interval",
    "choices_in_force",
    "contingency_table",
    "contingency_tables",
    "count_matches",
    "count_matches_together",
    "count_named",
    "image_scores",
    "images_per_class",
    "match_image",
    "mean_image_jaccard",
    "merge_background",
    "merge_backgrounds",
    "number_by_first_pixel",
    "paired_bootstrap",
]
