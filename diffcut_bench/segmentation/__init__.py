"""The user's own pictures: segments of one, and the record of a command that segments many."""

from diffcut_bench.segmentation.explorer import Explorer, explorer_data, explorer_page
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
    "explorer_data",
    "explorer_page",
    "picture_config",
    "picture_files",
    "segment",
    "segment_files",
]
