"""Segmenters: feature map -> partition of its patches, one file a method; and segmentations made elsewhere."""

from diffcut_bench.ncut import GraphTooLargeError
from diffcut_bench.segmenters.base import (
    CountingSegmenter,
    ImageSegmenter,
    LabelSource,
    Segmenter,
    SharingSegmenter,
    segment_together,
)
from diffcut_bench.segmenters.diffcut import DiffCut
from diffcut_bench.segmenters.precomputed import Precomputed

__all__ = [
    "CountingSegmenter",
    "DiffCut",
    "GraphTooLargeError",
    "ImageSegmenter",
    "LabelSource",
    "Precomputed",
    "Segmenter",
    "SharingSegmenter",
    "segment_together",
]
