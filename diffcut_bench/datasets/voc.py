"""PASCAL VOC 2012 segmentation, in its original VOCdevkit layout."""

from functools import partial
from pathlib import Path

from diffcut_bench.datasets.base import label_lookup
from diffcut_bench.datasets.benchmark import Benchmark, Pairs, first_existing, listed_ids, table
from diffcut_bench.datasets.card import Archive, Card
from diffcut_bench.datasets.options import text, truth_value

BACKGROUND = 20
BORDER = 255
CARD = Card(
    homepage="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
    licence="Images are Flickr photographs: use them by Flickr's terms. No licence is stated for the labels.",
    citation="Everingham et al., The PASCAL Visual Object Classes (VOC) Challenge, IJCV 88(2), 2010",
    archives=(
        Archive(
            name="VOCtrainval_11-May-2012.tar",
            urls=("https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",),
            md5="6cd6e144f989b92b3379bac3b3de84fd",
            size=1999639040,
            sha256="e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
        ),
    ),
    download_bytes=1_999_639_040,
)

_FOLDERS = (
    ".",
    "VOC2012",
    "VOCdevkit/VOC2012",
    "VOCtrainval_11-May-2012/VOCdevkit/VOC2012",
    "pascal_voc_seg/VOCdevkit/VOC2012",
)


def voc(root: str | None, split: str = "val", background: bool = True) -> Benchmark:
    """VOC 2012: the images that ``ImageSets/Segmentation/<split>.txt`` names, labels from ``SegmentationClass``.

    Raw palette values 1..20 are classes 0..19, 0 is background (class 20), 255 (object borders) is void.

    Args:
        root: ``VOC2012``, ``VOCdevkit``, or a folder that holds it.
        split: name of the list.
        background: score it as a class; if not, 0 is void like the borders, and void stays unscored in every protocol.
    """
    text("dataset.split", split)
    names = table("voc.json")["class_names"]
    classes = {value: value - 1 for value in range(1, 21)}
    if truth_value("dataset.background", background):
        classes[0] = BACKGROUND
    return Benchmark(
        name="voc",
        card=CARD,
        source=f"voc-{split}",
        root=root,
        find=partial(_find, split=split),
        class_names=tuple(names if background else names[:BACKGROUND]),
        lookup=label_lookup(classes, void=[BORDER] if background else [0, BORDER]),
        background=BACKGROUND if background else None,
        n_expected=1449 if split == "val" else None,
    )


def _find(root: Path, split: str) -> Pairs:
    listed = first_existing(root, (f"{folder}/ImageSets/Segmentation/{split}.txt" for folder in _FOLDERS), "VOC 2012")
    devkit = listed.parents[2]
    return Pairs.of(listed_ids(listed), devkit / "JPEGImages", devkit / "SegmentationClass")
