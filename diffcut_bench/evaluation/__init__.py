"""Scores: matching of clusters to classes, metrics and their intervals, and the protocol that names the choices."""

from diffcut_bench.evaluation.images import ImageTable, ScoredImage
from diffcut_bench.evaluation.intervals import FEWEST_IMAGES, PairedDifference, percentile_interval
from diffcut_bench.evaluation.matching import (
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
    merge_backgrounds,
    number_by_first_pixel,
)
from diffcut_bench.evaluation.metrics import Metric, known_metrics, measure_image
from diffcut_bench.evaluation.protocol import OF_NAMES, Protocol, choices_in_force
from diffcut_bench.evaluation.scores import compare_images, resample, score_images

__all__ = [
    "FEWEST_IMAGES",
    "OF_NAMES",
    "Counts",
    "Criterion",
    "ImageTable",
    "Metric",
    "PairedDifference",
    "Protocol",
    "ScoredImage",
    "Surplus",
    "assign_clusters",
    "choices_in_force",
    "compare_images",
    "contingency_table",
    "contingency_tables",
    "count_matches",
    "count_matches_together",
    "count_named",
    "known_metrics",
    "match_image",
    "measure_image",
    "merge_backgrounds",
    "number_by_first_pixel",
    "percentile_interval",
    "resample",
    "score_images",
]
