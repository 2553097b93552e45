"""The user's own data: a folder with ``images/`` and ``labels/``, paired by stem."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from diffcut_bench.datasets.base import SegmentationDataset, existing_root, label_lookup, records_from_files
from diffcut_bench.errors import UserError


def folder(
    root: str | None,
    num_classes: int | None,
    ignore_index: int | None = 255,
    background: int | None = None,
    class_names: Sequence[str] | None = None,
) -> SegmentationDataset:
    """Images and index PNGs of one folder.

    Args:
        root: holds ``images/`` and ``labels/``; a label has the stem of its image. Hidden files are passed over.
        num_classes: raw label values are class ids 0..``num_classes`` − 1.
        ignore_index: raw value without annotation; None if every pixel has a class.
        background: class treated by the background rule; None for no such class.
        class_names: one for each class; ``class 0`` … if not given.

    Raises:
        UserError: the folder, a partner, or a sensible ``num_classes`` is missing.
    """
    top = existing_root(root, "dataset.root")
    if not isinstance(num_classes, int) or not 1 <= num_classes <= 256:
        raise UserError(
            f"dataset.num_classes must be 1 to 256, not {num_classes}", str(top), "add dataset.num_classes=N"
        )
    if ignore_index is not None and not num_classes <= ignore_index <= 255:
        raise UserError(
            f"dataset.ignore_index={ignore_index} is a class id or no 8-bit value",
            f"{num_classes} classes, ids 0..{num_classes - 1}",
            f"set dataset.ignore_index=null or a value of {num_classes}..255",
        )
    if background is not None and not 0 <= background < num_classes:
        raise UserError(
            f"dataset.background={background} is no class id",
            f"{num_classes} classes, ids 0..{num_classes - 1}",
            "set dataset.background=null or a class id",
        )
    if class_names is not None and (
        isinstance(class_names, str) or len(class_names) != num_classes or len(set(class_names)) != num_classes
    ):
        raise UserError(
            f"{class_names} are not {num_classes} different class names",
            "dataset.class_names",
            "give one name for each class, in the order of the ids",
        )
    images, labels = _by_stem(top / "images", pictures=True), _by_stem(top / "labels", pictures=False)
    for stem in sorted(images.keys() ^ labels.keys()):
        present = images.get(stem) or labels[stem]
        other = "label" if stem in images else "image"
        raise UserError(
            f"no {other} for {present.name}", str(present), f"add {other}s/{stem}.*, or take {present.name} away"
        )
    ids = sorted(images)
    if not ids:
        raise UserError("no images here", str(top / "images"), "put pictures there, with labels of the same stem")
    return SegmentationDataset(
        name="folder",
        records=records_from_files(ids, [images[i] for i in ids], [labels[i] for i in ids]),
        class_names=tuple(class_names) if class_names else tuple(f"class {i}" for i in range(num_classes)),
        lookup=label_lookup({i: i for i in range(num_classes)}, void=[] if ignore_index is None else [ignore_index]),
        background=background,
    )


def _by_stem(place: Path, *, pictures: bool) -> dict[str, Path]:
    existing_root(place, "dataset.root")
    suffixes = set(Image.registered_extensions()) if pictures else {".png"}
    found: dict[str, Path] = {}
    for path in sorted(place.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in suffixes:
            continue
        if path.stem in found:
            raise UserError(f"two files for {path.stem}", f"{found[path.stem]} and {path.name}", "keep one of the two")
        found[path.stem] = path
    return found
