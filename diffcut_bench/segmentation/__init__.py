"""The user's own pictures: segments of one, and the record of a command that segments many."""

from diffcut_bench.reporting import Explorer
from diffcut_bench.segmentation.files import FileSegmenter, SegmentedFile
from diffcut_bench.segmentation.hierarchy import Hierarchy
from diffcut_bench.segmentation.listing import NamedPicture, named_pictures, split_list
from diffcut_bench.segmentation.picture import PictureSegmenter, segment
from diffcut_bench.segmentation.record import SegmentRecord, WrittenFiles
from diffcut_bench.segmentation.result import Segmentation
from diffcut_bench.segmentation.settings import picture_config

__all__ = [
    "Explorer",
    "FileSegmenter",
    "Hierarchy",
    "NamedPicture",
    "PictureSegmenter",
    "SegmentRecord",
    "Segmentation",
    "SegmentedFile",
    "WrittenFiles",
    "named_pictures",
    "picture_config",
    "segment",
    "split_list",
]
