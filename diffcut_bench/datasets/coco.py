"""COCO with the pixel maps of COCO-Stuff: 80 objects, or 27 coarse classes; the 2175 curated images of both."""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from diffcut_bench.datasets.base import label_lookup
from diffcut_bench.datasets.benchmark import Benchmark, Pairs, first_existing, listed_ids, names_in, table
from diffcut_bench.datasets.card import Archive, Card
from diffcut_bench.datasets.options import text
from diffcut_bench.errors import UserError, did_you_mean

UNLABELLED = 255
VALUES = 182  # raw value = COCO category id − 1: things 0..90 with gaps, stuff 91..181
CARD = Card(
    homepage="https://cocodataset.org/ and https://github.com/nightrome/cocostuff",
    licence="Labels: CC BY 4.0. Images are Flickr photographs: their use must respect Flickr's terms.",
    citation="Lin et al., Microsoft COCO, ECCV 2014; Caesar et al., COCO-Stuff: Thing and Stuff Classes in Context, "
    "CVPR 2018",
    archives=(
        Archive(
            name="val2017.zip",
            # The bucket behind images.cocodataset.org, whose own certificate is for another name.
            urls=("https://s3.amazonaws.com/images.cocodataset.org/zips/val2017.zip",),
            md5="442b8da7639aecaf257c1dceb8ba8c80",
            size=815585330,
            sha256="4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
            unpack_into="images",
        ),
        Archive(
            name="stuffthingmaps_trainval2017.zip",
            urls=(
                "https://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/stuffthingmaps_trainval2017.zip",
            ),
            unpack_into="stuffthingmaps",
        ),
    ),
    download_bytes=1_475_000_000,
)

_IMAGE_FOLDERS = ("images/{}", "{}", "coco/images/{}", "coco/{}")
_LABEL_FOLDERS = (
    "stuffthingmaps/{}",
    "annotations/{}",
    "coco/stuffthingmaps/{}",
    "coco/annotations/{}",
    "stuffthingmaps_trainval2017/{}",
)
# Twelve digits and no more: other tools write re-indexed maps with longer names beside the originals.
_NAME = "[0-9]" * 12


def coco_object(root: str | None, split: str = "val2017", ids: str = "curated") -> Benchmark:
    """COCO-Object: 80 things (classes 0..79) and background (80): stuff and the category ids that never occur.

    Args:
        root: COCO's folder.
        split: ``val2017`` or ``train2017``.
        ids: ``curated`` (the 2175 of val2017), ``all`` pairs in the folder, or the path of a list.
    """
    known = table("coco.json")
    names = known["object_names"]
    background = names.index("background")
    classes = dict.fromkeys(range(VALUES), background) | {int(v): c for v, c in known["object_of_value"].items()}
    return _benchmark("coco_object", root, split, ids, names, classes, background)


def coco_stuff27(root: str | None, split: str = "val2017", ids: str = "curated") -> Benchmark:
    """COCO-Stuff-27: all 182 categories in 27 coarse classes, no background class.

    Args:
        root, split, ids: as for `coco_object`.
    """
    known = table("coco.json")
    classes = {int(v): c for v, c in known["stuff27_of_value"].items()}
    return _benchmark("coco_stuff27", root, split, ids, known["stuff27_names"], classes)


def curated_ids() -> list[str]:
    """The 2175 images of val2017 on which the field scores (Ji et al., IIC; later PiCIE, STEGO, DiffCut)."""
    return Path(__file__).with_name("coco_curated_2175.txt").read_text().split()


def _benchmark(
    name: str,
    root: str | None,
    split: str,
    ids: str,
    class_names: Sequence[str],
    classes: dict[int, int],
    background: int | None = None,
) -> Benchmark:
    text("dataset.split", split)
    text("dataset.ids", ids)
    if split not in ("val2017", "train2017"):
        raise UserError(f"unknown split {split!r}", f"dataset={name}", did_you_mean(split, ("val2017", "train2017")))
    if split == "train2017" and ids == "curated":
        raise UserError("the curated images are all of val2017", f"dataset={name}", "add dataset.ids=all, or a list")
    published = split == "val2017" and ids == "curated"
    return Benchmark(
        name=name,
        card=CARD,
        source=f"coco-{split}-{_choice(ids)}",
        root=root,
        find=partial(_find, split=split, ids=ids),
        class_names=tuple(class_names),
        lookup=label_lookup(classes, void=[UNLABELLED]),
        background=background,
        n_expected=2175 if published else None,
    )


def _choice(ids: str) -> str:
    """Name of a choice of images. A list's name holds its content, so that two lists never share a prepared form."""
    if ids in ("curated", "all"):
        return ids
    path = Path(ids).expanduser()
    if not path.is_file():
        raise UserError("no such list of ids", str(path.absolute()), "dataset.ids=curated|all|FILE")
    digest = hashlib.sha256("\n".join(listed_ids(path)).encode()).hexdigest()
    return f"list-{path.stem}-{digest[:8]}"


def _find(root: Path, split: str, ids: str) -> Pairs:
    images = first_existing(root, (folder.format(split) for folder in _IMAGE_FOLDERS), f"COCO's {split} images")
    labels = first_existing(root, (folder.format(split) for folder in _LABEL_FOLDERS), f"COCO-Stuff's {split} maps")
    if ids == "curated":
        chosen = curated_ids()
    elif ids == "all":
        chosen = names_in(images, labels, _NAME)
    else:
        chosen = listed_ids(Path(ids).expanduser())
    return Pairs.of(chosen, images, labels)
