"""Data sets: one file each, from the originals on disk to (id, image, label) records and class maps."""

from diffcut_bench.datasets.base import VOID, SegmentationDataset
from diffcut_bench.datasets.folder import folder
from diffcut_bench.datasets.preprocessing import Example, prepare_example
from diffcut_bench.datasets.sample import sample
from diffcut_bench.datasets.voc import voc

__all__ = ["VOID", "Example", "SegmentationDataset", "folder", "prepare_example", "sample", "voc"]
