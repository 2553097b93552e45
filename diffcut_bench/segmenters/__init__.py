"""Segmenters: feature map -> partition of its patches, one file a method."""

from diffcut_bench.ncut import GraphTooLargeError
from diffcut_bench.segmenters.base import Segmenter, SharingSegmenter, segment_together
from diffcut_bench.segmenters.diffcut import DiffCut

__all__ = ["DiffCut", "GraphTooLargeError", "Segmenter", "SharingSegmenter", "segment_together"]
