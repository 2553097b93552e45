"""Segmenters: feature map -> partition of its patches, one file a method."""

from diffcut_bench.segmenters.base import Segmenter, SharingSegmenter, segment_together
from diffcut_bench.segmenters.diffcut import DiffCut

__all__ = ["DiffCut", "Segmenter", "SharingSegmenter", "segment_together"]
