"""Data sets: one file each, from the originals on disk to (id, image, label) records and class maps."""

from diffcut_bench.datasets.ade20k import ade20k
from diffcut_bench.datasets.base import VOID, Pair, SegmentationDataset, label_lookup
from diffcut_bench.datasets.benchmark import Benchmark, Pairs, first_existing, listed_ids, names_in
from diffcut_bench.datasets.bsds500 import bsds500
from diffcut_bench.datasets.card import Archive, Card
from diffcut_bench.datasets.cityscapes import cityscapes27
from diffcut_bench.datasets.coco import coco_object, coco_stuff27
from diffcut_bench.datasets.context import context
from diffcut_bench.datasets.coverage import check_coverage
from diffcut_bench.datasets.folder import folder
from diffcut_bench.datasets.manifest import read_manifest
from diffcut_bench.datasets.preparation import (
    open_benchmark,
    preparation_state,
    prepare,
    prepared_folder,
)
from diffcut_bench.datasets.sample import sample
from diffcut_bench.datasets.verification import verify
from diffcut_bench.datasets.voc import voc

__all__ = [
    "VOID",
    "Archive",
    "Benchmark",
    "Card",
    "Pair",
    "Pairs",
    "SegmentationDataset",
    "ade20k",
    "bsds500",
    "check_coverage",
    "cityscapes27",
    "coco_object",
    "coco_stuff27",
    "context",
    "first_existing",
    "folder",
    "label_lookup",
    "listed_ids",
    "names_in",
    "open_benchmark",
    "preparation_state",
    "prepare",
    "prepared_folder",
    "read_manifest",
    "sample",
    "verify",
    "voc",
]


def __dir__() -> list[str]:
    return sorted(__all__)
