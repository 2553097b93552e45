"""The embedded data set: public-domain and CC0 photographs of scikit-image, annotated by us with polygons."""

import io
from pathlib import Path
from typing import Any

import skimage
from PIL import Image, ImageDraw

from diffcut_bench.datasets.base import SegmentationDataset, label_lookup
from diffcut_bench.datasets.benchmark import table
from diffcut_bench.datasets.records import FileRecords


def sample() -> SegmentationDataset:
    """Real photographs that every installation has; labels are drawn from ``sample.json`` when loaded.

    No published figure exists for them: they show that everything works, not how good a method is.
    """
    annotations = table("sample.json")
    classes: list[str] = annotations["classes"]
    void: int = annotations["void"]
    photographs = annotations["photographs"]
    folder = Path(skimage.__file__).parent / "data"
    values = {name: value for value, name in enumerate(classes)} | {"void": void}
    return SegmentationDataset(
        name="sample",
        records=FileRecords(
            [
                {
                    "id": photo["id"],
                    "image": {"path": str(folder / photo["file"]), "bytes": None},
                    "label": {"path": None, "bytes": _draw(photo, values)},
                }
                for photo in photographs
            ]
        ),
        class_names=tuple(classes),
        lookup=label_lookup({value: value for value in range(len(classes))}, void=[void]),
        background=classes.index("background"),
        n_expected=len(photographs),
    )


def _draw(photo: dict[str, Any], values: dict[str, int]) -> bytes:
    """PNG of a photograph's label: polygons in their order over the fill class."""
    label = Image.new("L", (photo["width"], photo["height"]), values[photo["fill"]])
    pen = ImageDraw.Draw(label)
    for region in photo["regions"]:
        pen.polygon([tuple(point) for point in region["polygon"]], fill=values[region["class"]])
    buffer = io.BytesIO()
    label.save(buffer, format="PNG")
    return buffer.getvalue()
