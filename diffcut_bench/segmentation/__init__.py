"""The user's own pictures: segments of one, and the record of a command that segments many."""

from diffcut_bench.reporting import Explorer
from diffcut_bench.segmentation.files import SegmentedFile, picture_files, segment_files
from diffcut_bench.segmentation.hierarchy import Hierarchy
from diffcut_bench.segmentation.picture import PictureSegmenter, segment
from diffcut_bench.segmentation.record import SegmentRecord
from diffcut_bench.segmentation.result import Segmentation
from diffcut_bench.segmentation.settings import picture_config

__all__ = [
    "Explorer",
    "Hierarchy",
    "PictureSegmenter",
    "SegmentRecord",
    "Segmentation",
    "SegmentedFile",
    "picture_config",
    "picture_files",
    "segment",
    "segment_files",
]
