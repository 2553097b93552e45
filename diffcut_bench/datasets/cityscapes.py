"""Cityscapes, fine annotations: 27 classes."""

from functools import partial
from pathlib import Path

from diffcut_bench.datasets.base import label_lookup
from diffcut_bench.datasets.benchmark import Benchmark, Pairs, first_place
from diffcut_bench.datasets.card import Card
from diffcut_bench.datasets.options import text
from diffcut_bench.errors import UserError

CLASS_NAMES = (
    *("road", "sidewalk", "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge", "tunnel"),
    *("pole", "polegroup", "traffic light", "traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car"),
    *("truck", "bus", "caravan", "trailer", "train", "motorcycle", "bicycle"),
)
FIRST_ID, LAST_ID = 7, 33
CARD = Card(
    homepage="https://www.cityscapes-dataset.com/",
    licence="Non-commercial use only, no redistribution; the terms are accepted at registration.",
    citation="Cordts et al., The Cityscapes Dataset for Semantic Urban Scene Understanding, CVPR 2016",
    by_hand="register at https://www.cityscapes-dataset.com/register/, fetch gtFine_trainvaltest.zip (md5 "
    "4237c19de34c8a376e9ba46b495d6f66) and leftImg8bit_trainvaltest.zip (md5 0a6e97e94b616a514066c9e2adb0c97f), and "
    "unpack both into dataset.root",
    download_bytes=11_240_000_000,
)

_IMAGES, _LABELS = "_leftImg8bit.png", "_gtFine_labelIds.png"
_TOPS = (".", "cityscapes")


def cityscapes27(root: str | None, split: str = "val") -> Benchmark:
    """Cityscapes: labelIds 7..33 are classes 0..26, all other values void.

    Args:
        root: holds ``leftImg8bit`` and ``gtFine``.
        split: ``val`` (500 frames of three cities) or ``train``.
    """
    text("dataset.split", split)
    values = range(FIRST_ID, LAST_ID + 1)
    return Benchmark(
        name="cityscapes27",
        card=CARD,
        source=f"cityscapes-{split}",
        root=root,
        find=partial(_find, split=split),
        class_names=CLASS_NAMES,
        lookup=label_lookup({value: value - FIRST_ID for value in values}, void=[*range(FIRST_ID), 255]),
        n_expected=500 if split == "val" else None,
    )


def _find(root: Path, split: str) -> Pairs:
    images = first_place(root, _places("leftImg8bit", split), f"Cityscapes' {split} images")
    labels = first_place(root, _places("gtFine", split), f"Cityscapes' {split} labels")
    # <city>/<city>_<sequence>_<frame>: the common stem pairs the two; hidden files and other kinds of label are passed.
    found = [
        {str(path.relative_to(top)).removesuffix(suffix) for path in top.glob(f"*/[!.]*{suffix}")}
        for top, suffix in ((images, _IMAGES), (labels, _LABELS))
    ]
    stems = sorted(set.union(*found))
    if not stems:
        raise UserError("no Cityscapes frame here", str(images), "unpack leftImg8bit_trainvaltest.zip")
    return Pairs(
        [Path(stem).name for stem in stems],
        [images / f"{stem}{_IMAGES}" for stem in stems],
        [labels / f"{stem}{_LABELS}" for stem in stems],
    )


def _places(kind: str, split: str) -> list[str]:
    return [f"{top}/{inner}/{split}" for top in _TOPS for inner in (kind, f"{kind}_trainvaltest/{kind}")]
