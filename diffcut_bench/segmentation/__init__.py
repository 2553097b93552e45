"""The user's own pictures: segments of one, and the record of a command that segments many."""

from diffcut_bench.segmentation.explorer import Explorer, explorer_data, explorer_page
from diffcut_bench.segmentation.files import SegmentedFile, picture_config, picture_files, segment_files
from diffcut_bench.segmentation.picture import PictureSegmenter, Segmentation, segment
from diffcut_bench.segmentation.record import SegmentRecord

__all__ = [
    "Explorer",
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
