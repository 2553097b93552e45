"""Semantic coherence (the paper's Fig. 3): does the similarity of two patches tell that they are of one class?"""

from diffcut_bench.coherence.figures import Curve, Picture, draw_heatmaps, draw_roc
from diffcut_bench.coherence.heatmaps import Mark, choose_mark, mark_between, similarity_map
from diffcut_bench.coherence.measure import Measurement, measure_coherence
from diffcut_bench.coherence.roc import auc, auc_interval, pair_scores, roc_points
from diffcut_bench.coherence.sampling import (
    BackgroundRule,
    MixedRule,
    PairChoice,
    PatchChoice,
    PatchGrid,
    Plan,
    SamplingOptions,
    draw_pairs,
    grid_features,
    grid_shape,
    label_patches,
    make_plan,
)

__all__ = [
    "BackgroundRule",
    "Curve",
    "Mark",
    "Measurement",
    "MixedRule",
    "PairChoice",
    "PatchChoice",
    "PatchGrid",
    "Picture",
    "Plan",
    "SamplingOptions",
    "auc",
    "auc_interval",
    "choose_mark",
    "draw_heatmaps",
    "draw_pairs",
    "draw_roc",
    "grid_features",
    "grid_shape",
    "label_patches",
    "make_plan",
    "mark_between",
    "measure_coherence",
    "pair_scores",
    "roc_points",
    "similarity_map",
]
