"""From patches to pixels: concept assignment, pixel-adaptive refinement, dense CRF, speckles. Tensors and keyword
arguments only."""

from diffcut_bench.refinement.bilateral import BilateralUpsampler, assign_concepts_by_colour
from diffcut_bench.refinement.crf import CrfRefiner
from diffcut_bench.refinement.descent import assign_cut_by_cut
from diffcut_bench.refinement.pamr import PamrRefiner, median_filter, pamr, refine_labels
from diffcut_bench.refinement.speckles import merge_speckles
from diffcut_bench.refinement.tiles import LocalRefiner, enlarge_in_tiles
from diffcut_bench.refinement.upsampling import (
    ConceptUpsampler,
    NearestUpsampler,
    Similarity,
    assign_concepts,
    upsample_nearest,
)

__all__ = [
    "BilateralUpsampler",
    "ConceptUpsampler",
    "CrfRefiner",
    "LocalRefiner",
    "NearestUpsampler",
    "PamrRefiner",
    "Similarity",
    "assign_concepts",
    "assign_concepts_by_colour",
    "assign_cut_by_cut",
    "enlarge_in_tiles",
    "median_filter",
    "merge_speckles",
    "pamr",
    "refine_labels",
    "upsample_nearest",
]


def __dir__() -> list[str]:
    return sorted(__all__)
