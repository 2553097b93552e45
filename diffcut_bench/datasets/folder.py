"""The user's own data: a folder with ``images/`` and ``labels/``, paired by name, in sub-folders or not."""

import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from diffcut_bench.datasets.base import SegmentationDataset, existing_root, label_lookup
from diffcut_bench.datasets.options import names, whole_number
from diffcut_bench.datasets.records import records_from_files
from diffcut_bench.errors import UserError

_LARGEST = 65535  # raw value of a 16-bit label


def folder(
    root: str | None,
    num_classes: int | None,
    ignore_index: int | None = 255,
    background: int | None = None,
    class_names: Sequence[str] | None = None,
) -> SegmentationDataset:
    """Images and index PNGs of one folder.

    Args:
        root: holds ``images/`` and ``labels/``. A label has the sub-folder and stem of its image: ``labels/a/x.png``
            belongs to ``images/a/x.jpg``, and their id is ``a/x``. Hidden files are skipped.
        num_classes: raw label values are class ids 0..``num_classes`` − 1; from 1 on where 0 is ``ignore_index``.
        ignore_index: raw value without annotation; None if every pixel has a class. 0: raw values 1..``num_classes``
            are the classes.
        background: raw value of the class treated by the background rule; None for no such class.
        class_names: one for each class; ``class 0`` …, by raw value, if not given.

    Raises:
        UserError: the folder, a partner, or a sensible ``num_classes`` is missing, or an option is of the wrong kind.
    """
    top = existing_root(root)
    values = _class_values(num_classes, ignore_index)
    scored = f"{len(values)} classes, raw values {values[0]}..{values[-1]}"
    if background is not None and whole_number("dataset.background", background, 0, _LARGEST) not in values:
        hint = "set dataset.background=null or a class id"
        raise UserError(f"dataset.background={background} is no class id", scored, hint)
    given = None if class_names is None else names("dataset.class_names", class_names, len(values))
    images, labels = _paired(top)
    ids = sorted(images)
    if not ids:
        raise UserError("no images here", str(top / "images"), "put pictures there, with labels of the same stem")
    return SegmentationDataset(
        name="folder",
        records=records_from_files(ids, [images[i] for i in ids], [labels[i] for i in ids]),
        class_names=given or tuple(f"class {value}" for value in values),
        lookup=label_lookup(
            {value: index for index, value in enumerate(values)},
            void=[] if ignore_index is None else [ignore_index],
            size=max(256, values[-1] + 1, (ignore_index or 0) + 1),
        ),
        background=None if background is None else values.index(background),
    )


def _class_values(num_classes: int | None, ignore_index: int | None) -> range:
    """Raw values of the classes, in their order."""
    if num_classes is None:
        raise UserError("dataset.num_classes is not set", "dataset=folder", "add dataset.num_classes=N")
    most = _LARGEST if ignore_index is not None else _LARGEST + 1
    count = whole_number("dataset.num_classes", num_classes, 1, most)
    if ignore_index is None:
        return range(count)
    if whole_number("dataset.ignore_index", ignore_index, 0, _LARGEST) == 0:
        return range(1, count + 1)
    if ignore_index < count:
        where, free = f"{count} classes, raw values 0..{count - 1}", f"{count}..{_LARGEST}"
        hint = f"dataset.ignore_index=null, one of {free}, or 0, where raw values 1..{count} are the classes"
        raise UserError(f"dataset.ignore_index={ignore_index} is a class id", where, hint)
    return range(count)


def _paired(top: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images and labels by id, each with its partner."""
    images, no_images = _by_id(top / "images", set(Image.registered_extensions()))
    labels, no_labels = _by_id(top / "labels", {".png"})
    lonely = sorted(images.keys() ^ labels.keys())
    if not lonely:
        return images, labels
    first = lonely[0]
    if first in images:
        what, suffix, unread, present = "label", ".png", no_labels.get(first), images[first]
        kind = "PNG, mode L or P, whose raw values are class ids"
    else:
        what, suffix, unread, present = "image", ".*", no_images.get(first), labels[first]
        kind = "PNG, JPEG or another picture"
    more = f" (and for {len(lonely) - 1} more)" if len(lonely) > 1 else ""
    if unread is not None:
        hint = f"{what}s must be {kind}: save it as {what}s/{first}.png"
        raise UserError(f"no {what} for {present.name}{more}: {unread.name} is of another kind", str(unread), hint)
    hint = f"add {what}s/{first}{suffix}, or take {present.name} away"
    raise UserError(f"no {what} for {present.name}{more}", str(present), hint)


def _by_id(folder: Path, suffixes: set[str]) -> tuple[dict[str, Path], dict[str, Path]]:
    """Files of these suffixes below a folder by id (path in it without suffix), and files of other suffixes."""
    existing_root(folder)
    found: dict[str, Path] = {}
    others: dict[str, Path] = {}
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in files if not name.startswith(".")):
            path = Path(parent) / name
            image_id = path.relative_to(folder).with_suffix("").as_posix()
            if path.suffix.lower() not in suffixes:
                others[image_id] = path
            elif image_id in found:
                where = f"{found[image_id]} and {path.name}"
                raise UserError(f"two files for {image_id}", where, "keep one of the two")
            else:
                found[image_id] = path
    return found, others
