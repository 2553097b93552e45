"""COCO's JSON of instances, with compressed run lengths: what pycocotools, detectron2 and mmdetection load."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffcut_bench.errors import UserError
from diffcut_bench.segmentation.formats.interface import Format, Segmented
from diffcut_bench.store.schema import typed

COCO_OF_ALL = "segments_coco.json"
_INFO = {"description": "segments of diffcut_bench"}


def _encode(segmented: Segmented) -> str:
    from pycocotools import mask

    result, names = segmented.result, segmented.class_names
    height, width = result.labels.shape
    annotations = []
    for described in segmented.described:
        segment = described["id"]
        runs = mask.encode(np.asfortranarray(result.labels == segment, dtype=np.uint8))
        left, top, right, bottom = described["bbox"]
        annotations.append(
            {
                "id": segment + 1,  # pycocotools takes 0 for none
                "image_id": 1,
                "category_id": names.index(segmented.name_of(segment)) + 1,
                "segmentation": {"size": [height, width], "counts": runs["counts"].decode("ascii")},
                "area": described["area_px"],
                "bbox": [left, top, right - left, bottom - top],
                "iscrowd": 0,
                **({"score": described["score"]} if "score" in described else {}),
            }
        )
    image = {"id": 1, "file_name": segmented.image, "height": height, "width": width}
    return _dataset([image], names, annotations)


def _dataset(images: list[Any], names: Sequence[str], annotations: list[Any]) -> str:
    """The JSON of a data set; the id of a category is the place of its name, from 1."""
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    return json.dumps({"info": _INFO, "images": images, "categories": categories, "annotations": annotations}) + "\n"


COCO = Format("coco", "_coco.json", _encode, ("pycocotools",))


def joined_coco(folder: Path, entries: Iterable[Mapping[str, Any]]) -> str | None:
    """One data set of all pictures of a folder: what pycocotools, FiftyOne and CVAT expect.

    Numbers are given in the order of the pictures' file names, so they do not depend on who segmented which of them.

    Args:
        folder: of the record.
        entries: of segments.json, in its order. Their ``file_name`` is that of the picture.

    Returns:
        JSON; None where no picture has a COCO file of its own.

    Raises:
        UserError: one of them was damaged.
    """
    parts = []
    latest = {entry["image"]: entry for entry in entries}  # a file may have had other content before
    for entry in sorted(latest.values(), key=lambda entry: (entry.get("file_name", ""), entry["image"])):
        try:
            path = folder / entry["formats"]["coco"]["path"]
            parts.append(_checked(json.loads(path.read_text(encoding="utf-8"))))
        except (KeyError, OSError):  # it has none, or somebody removed it
            continue
        except (ValueError, RecursionError) as error:
            what = f"damaged, or changed by others ({error})"
            raise UserError(what, str(path.absolute()), "delete this file, and call again: it is made anew") from error
    if not parts:
        return None
    names = sorted({category["name"] for part in parts for category in part["categories"]})
    images: list[Any] = []
    annotations: list[Any] = []
    for number, part in enumerate(parts, start=1):
        ids = {category["id"]: names.index(category["name"]) + 1 for category in part["categories"]}
        images += [image | {"id": number} for image in part["images"]]
        for annotation in part["annotations"]:
            own = {"id": len(annotations) + 1, "image_id": number, "category_id": ids[annotation["category_id"]]}
            annotations.append(annotation | own)
    return _dataset(images, names, annotations)


@dataclass(frozen=True)
class _Category:
    id: int
    name: str


@dataclass(frozen=True)
class _Annotation:
    category_id: int


@dataclass(frozen=True)
class _Dataset:
    """What is relied on of a picture's COCO file."""

    images: list[dict[str, Any]]
    categories: list[_Category]
    annotations: list[_Annotation]


def _checked(dataset: Any) -> dict[str, Any]:
    known: _Dataset = typed(_Dataset, dataset)
    if not {each.category_id for each in known.annotations} <= {each.id for each in known.categories}:
        raise ValueError("annotations of unknown categories")
    checked: dict[str, Any] = dataset
    return checked


def is_joined_coco(path: Path) -> bool:
    """Whether a file is one that `joined_coco` made.

    Raises:
        OSError: it can't be read.
    """
    head = json.dumps({"info": _INFO}).removesuffix("}").encode()
    with path.open("rb") as file:
        return file.read(len(head)) == head
