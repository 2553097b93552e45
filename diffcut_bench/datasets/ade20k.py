"""ADE20K's scene-parsing benchmark (ADEChallengeData2016): 150 classes."""

from functools import partial
from pathlib import Path
from typing import Literal

from diffcut_bench.datasets.base import label_lookup
from diffcut_bench.datasets.benchmark import Benchmark, Pairs, first_existing, names_in, table
from diffcut_bench.datasets.card import Archive, Card
from diffcut_bench.datasets.options import text
from diffcut_bench.errors import UserError

CLASSES = 150
CARD = Card(
    homepage="http://sceneparsing.csail.mit.edu/",
    licence="Non-commercial research and education; MIT does not own the copyright of the images.",
    citation="Zhou et al., Scene Parsing through ADE20K Dataset, CVPR 2017",
    archives=(
        Archive(
            name="ADEChallengeData2016.zip",
            urls=("https://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",),
            md5="7328b3957e407ddae1d3cbf487f149ef",
            size=967382037,
            sha256="7ff1be44964418441f542a7cc1e1a650e7dc0fc275f5d23252bc9bbdbc977b29",
        ),
    ),
    download_bytes=967_382_037,
)

_FOLDERS = (".", "ADEChallengeData2016", "ade/ADEChallengeData2016", "ade20k/ADEChallengeData2016")


def ade20k(
    root: str | None, split: str = "validation", labels: Literal["released", "correct"] = "correct"
) -> Benchmark:
    """ADE20K: 150 classes; raw 0 is "other".

    Args:
        root: ``ADEChallengeData2016`` or a folder that holds it.
        split: ``validation`` or ``training``.
        labels: ``correct``: raw 1..150 are classes 0..149, 0 is void. ``released``: the released code's off-by-one: raw
            0..149 are scored as the classes, so that "other" counts as a class, and 150 is void.

    Raises:
        UserError: ``labels`` is neither.
    """
    text("dataset.split", split)
    if labels not in ("released", "correct"):
        what = f"unknown ADE20K labels {labels!r}"
        raise UserError(what, "dataset=ade20k", "protocol.ade20k_labels=released|correct")
    names = table("ade20k.json")["class_names"]
    if labels == "correct":
        lookup = label_lookup({value: value - 1 for value in range(1, CLASSES + 1)}, void=[0])
    else:
        names = ["other", *names[:-1]]
        lookup = label_lookup({value: value for value in range(CLASSES)}, void=[CLASSES])
    return Benchmark(
        name="ade20k",
        card=CARD,
        source=f"ade20k-{split}",
        root=root,
        find=partial(_find, split=split),
        class_names=tuple(names),
        lookup=lookup,
        n_expected=2000 if split == "validation" else None,
    )


def _find(root: Path, split: str) -> Pairs:
    images = first_existing(root, (f"{folder}/images/{split}" for folder in _FOLDERS), f"ADE20K's {split} images")
    labels = images.parents[1] / "annotations" / split
    return Pairs.of(names_in(images, labels, "ADE_*"), images, labels)
