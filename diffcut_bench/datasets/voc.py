"""PASCAL VOC 2012 segmentation, in its original VOCdevkit layout."""

from pathlib import Path

from diffcut_bench.datasets.base import SegmentationDataset, existing_root, label_lookup, records_from_files
from diffcut_bench.errors import UserError

CLASS_NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
    "background",
)
BACKGROUND = 20
BORDER = 255
VAL_IMAGES = 1449

_PLACES = (".", "VOC2012", "VOCdevkit/VOC2012")


def voc(root: str | None, split: str = "val") -> SegmentationDataset:
    """VOC 2012: the images that ``ImageSets/Segmentation/<split>.txt`` names, labels from ``SegmentationClass``.

    Raw palette values 1..20 are classes 0..19, 0 is background (class 20), 255 (object borders) is void.

    Args:
        root: ``VOC2012``, ``VOCdevkit``, or the folder that holds it.
        split: name of the list.

    Raises:
        UserError: folder, list or a named file is missing.
    """
    top = existing_root(root, "dataset.root")
    lists = [top / place / "ImageSets" / "Segmentation" / f"{split}.txt" for place in _PLACES]
    found = next((path for path in lists if path.is_file()), None)
    if found is None:
        raise UserError(
            "no VOC 2012 here", ", ".join(map(str, lists)), "point dataset.root at VOCdevkit or VOCdevkit/VOC2012"
        )
    ids = found.read_text().split()
    if not ids:
        raise UserError("the list of images is empty", str(found), "restore it from the VOC 2012 archive")
    devkit: Path = found.parents[2]
    return SegmentationDataset(
        name="voc",
        records=records_from_files(
            ids,
            [devkit / "JPEGImages" / f"{i}.jpg" for i in ids],
            [devkit / "SegmentationClass" / f"{i}.png" for i in ids],
        ),
        class_names=CLASS_NAMES,
        lookup=label_lookup({0: BACKGROUND, **{value: value - 1 for value in range(1, 21)}}, void=[BORDER]),
        background=BACKGROUND,
        n_expected=VAL_IMAGES if split == "val" else None,
    )
