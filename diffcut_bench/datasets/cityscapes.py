"""Cityscapes, fine annotations: 27 classes."""

from functools import partial
from pathlib import Path

from diffcut_bench.datasets.base import label_lookup
from diffcut_bench.datasets.benchmark import Benchmark, Pairs, first_existing, names_in, table
from diffcut_bench.datasets.card import Card
from diffcut_bench.datasets.options import text

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

_SUFFIXES = ("_leftImg8bit.png", "_gtFine_labelIds.png")
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
        class_names=tuple(table("cityscapes27.json")["class_names"]),
        lookup=label_lookup({value: value - FIRST_ID for value in values}, void=[*range(FIRST_ID), 255]),
        n_expected=500 if split == "val" else None,
    )


def _find(root: Path, split: str) -> Pairs:
    images = first_existing(root, _folders("leftImg8bit", split), f"Cityscapes' {split} images")
    labels = first_existing(root, _folders("gtFine", split), f"Cityscapes' {split} labels")
    # <city>/<city>_<sequence>_<frame> names both; the other kinds of label in these folders have other suffixes.
    return Pairs.of(names_in(images, labels, "*/[!.]*", _SUFFIXES), images, labels, _SUFFIXES)


def _folders(kind: str, split: str) -> list[str]:
    return [f"{top}/{inner}/{split}" for top in _TOPS for inner in (kind, f"{kind}_trainvaltest/{kind}")]
