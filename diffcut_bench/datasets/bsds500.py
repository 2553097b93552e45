"""BSDS500: 500 photographs, each divided into segments by several people, as MATLAB files."""

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from diffcut_bench.datasets.base import label_lookup
from diffcut_bench.datasets.benchmark import Benchmark, Pairs, first_existing, names_in
from diffcut_bench.datasets.card import Archive, Card
from diffcut_bench.datasets.decoding import MAX_PIXELS
from diffcut_bench.datasets.options import text
from diffcut_bench.errors import UserError, did_you_mean
from diffcut_bench.matlab import read_variable

CARD = Card(
    homepage="https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/resources.html",
    licence="Images are of the Corel collection. Non-commercial research and educational use.",
    citation="Arbelaez et al., Contour Detection and Hierarchical Image Segmentation, TPAMI 33(5), 2011",
    archives=(
        Archive(
            name="BSR_bsds500.tgz",
            urls=(
                "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/BSR/BSR_bsds500.tgz",
                "https://www.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/BSR/BSR_bsds500.tgz",
            ),
            unpacked_size=1_000_000_000,  # its size was not stated anywhere
        ),
    ),
    download_bytes=71_000_000,
)

_IMAGES = {"test": 200, "val": 100, "train": 200}
_IDS = 65536  # of 16 bits; people divide a picture into two to some two hundred segments
_FOLDERS = ("BSR/BSDS500/data", "BSDS500/data", "data", ".")


def bsds500(root: str | None, split: str = "test") -> Benchmark:
    """BSDS500: the images of ``data/images/<split>``, segments from ``data/groundTruth/<split>/*.mat``.

    A label is one map of segments an annotator, which lie one below the other in one picture of 16 bits: it is as many
    times as high as its image. Raw values 1..65535 are segments, 0 would be void.

    Args:
        root: ``BSR``, ``BSDS500``, or a folder that holds one of these.
        split: ``test``, ``val`` or ``train``.
    """
    if text("dataset.split", split) not in _IMAGES:
        raise UserError(f"BSDS500 has no split {split}", f"dataset.split={split}", did_you_mean(split, list(_IMAGES)))
    return Benchmark(
        name="bsds500",
        card=CARD,
        source=f"bsds500-{split}",
        root=root,
        find=partial(_find, split=split),
        class_names=(),
        lookup=label_lookup({value: value - 1 for value in range(1, _IDS)}, void=[0], size=_IDS),
        n_expected=_IMAGES[split],
        read_label_file=read_segmentations,
        annotators=True,
    )


def read_segmentations(path: Path) -> Image.Image:
    """``Segmentation`` of each annotator in a ``groundTruth`` .mat file, one below the other, as a 16-bit picture.

    Raises:
        ValueError: the file is no .mat with a ``groundTruth`` of maps of one size and whole numbers 0..65535, or is
            too large.
    """
    given = read_variable(path, "groundTruth", MAX_PIXELS)
    try:
        maps = [np.asarray(annotator["Segmentation"].item()) for annotator in given.ravel()]
        stacked = np.concatenate(maps)
    except (IndexError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"groundTruth holds no Segmentation of each annotator ({error})") from error
    with np.errstate(invalid="ignore"):
        raw = stacked.astype(np.uint16) if stacked.dtype.kind in "buif" else np.empty(0, np.uint16)
    if stacked.ndim != 2 or len({each.shape for each in maps}) > 1 or not np.array_equal(raw, stacked) or not raw.size:
        shapes = ", ".join(f"{each.dtype} of {'×'.join(map(str, each.shape))}" for each in maps)
        raise ValueError(f"Segmentation is no map of ids 0..65535 of one size for all annotators, but {shapes}")
    return Image.fromarray(raw)


def _find(root: Path, split: str) -> Pairs:
    images = first_existing(root, (f"{folder}/images/{split}" for folder in _FOLDERS), "BSDS500")
    labels = images.parents[1] / "groundTruth" / split
    suffixes = (".jpg", ".mat")
    return Pairs.of(names_in(images, labels, suffixes=suffixes), images, labels, suffixes)
