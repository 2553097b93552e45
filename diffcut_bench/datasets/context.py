"""PASCAL-Context: labels of 459 ids as MATLAB files, images and split of VOC 2010."""

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from diffcut_bench.datasets.base import label_lookup
from diffcut_bench.datasets.benchmark import Benchmark, Pairs, first_existing, listed_ids, table
from diffcut_bench.datasets.card import Archive, Card
from diffcut_bench.datasets.decoding import MAX_PIXELS
from diffcut_bench.datasets.options import text
from diffcut_bench.matlab import read_variable

BACKGROUND = 59
CARD = Card(
    homepage="https://cs.stanford.edu/~roozbeh/pascal-context/",
    licence="Images are Flickr photographs: use them by Flickr's terms. No licence is stated for the labels.",
    citation="Mottaghi et al., The Role of Context for Object Detection and Semantic Segmentation in the Wild, "
    "CVPR 2014",
    archives=(
        Archive(
            name="VOCtrainval_03-May-2010.tar",
            urls=("https://thor.robots.ox.ac.uk/pascal/VOC/voc2010/VOCtrainval_03-May-2010.tar",),
            md5="da459979d0c395079b5c75ee67908abb",
        ),
        Archive(
            name="trainval.tar.gz",
            urls=(
                "https://www.cs.stanford.edu/~roozbeh/pascal-context/trainval.tar.gz",
                "https://roozbehm.info/pascal-context/trainval.tar.gz",
            ),
            # 10103 maps of at most 500×500 ids of 16 bits, should they not be packed inside their files.
            unpacked_size=5_200_000_000,
        ),
    ),
    download_bytes=1_330_000_000,
)

_IDS = 460  # 1..459; 0 is tolerated as background
_VOC_FOLDERS = (".", "VOC2010", "VOCdevkit/VOC2010", "VOCtrainval_03-May-2010/VOCdevkit/VOC2010")
_LABEL_FOLDERS = (
    "trainval",
    "VOC2010/trainval",
    "VOCdevkit/VOC2010/trainval",
    "pascal-context/trainval",
    "context/trainval",
)


def context(root: str | None, split: str = "val") -> Benchmark:
    """PASCAL-Context: the images that VOC 2010's ``ImageSets/Main/<split>.txt`` names, labels from ``trainval/*.mat``.

    59 of the 459 ids are classes 0..58; every other id is background (class 59).

    Args:
        root: a folder that holds VOC 2010 and the ``trainval`` folder of .mat files.
        split: name of the list.
    """
    text("dataset.split", split)
    known = table("context.json")
    classes = dict.fromkeys(range(_IDS), BACKGROUND) | {int(i): c for i, c in known["class_of_id"].items()}
    return Benchmark(
        name="context",
        card=CARD,
        source=f"context-{split}",
        root=root,
        find=partial(_find, split=split),
        class_names=tuple(known["class_names"]),
        lookup=label_lookup(classes, size=_IDS),
        background=BACKGROUND,
        n_expected=5105 if split == "val" else None,
        read_label_file=read_label_map,
    )


def read_label_map(path: Path) -> Image.Image:
    """``LabelMap`` of a PASCAL-Context .mat file as a 16-bit picture of raw ids.

    Raises:
        ValueError: the file is no .mat with a ``LabelMap`` (PASCAL-Part's archive has the same name) of ids 0..65535,
            or has more than `MAX_PIXELS` of them.
    """
    ids = read_variable(path, "LabelMap", MAX_PIXELS)
    if ids.ndim == 2 and ids.size and ids.dtype.kind in "buif":
        with np.errstate(invalid="ignore"):
            raw = ids.astype(np.uint16)
        if np.array_equal(ids, raw):
            return Image.fromarray(raw)
    raise ValueError(f"LabelMap is no map of ids 0..65535, but {ids.dtype} of {'×'.join(map(str, ids.shape))}")


def _find(root: Path, split: str) -> Pairs:
    listed = first_existing(root, (f"{folder}/ImageSets/Main/{split}.txt" for folder in _VOC_FOLDERS), "VOC 2010")
    labels = first_existing(root, _LABEL_FOLDERS, "the folder of PASCAL-Context's .mat labels")
    return Pairs.of(listed_ids(listed), listed.parents[2] / "JPEGImages", labels, (".jpg", ".mat"))
