"""The embedded data set: public-domain and CC0 photographs of scikit-image, annotated by us with polygons."""

import io
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import skimage
from PIL import Image, ImageDraw

from diffcut_bench.datasets.base import SegmentationDataset, label_lookup, records_from_bytes


def sample() -> SegmentationDataset:
    """Real photographs that every installation has; labels are drawn from ``sample.json`` when loaded.

    No published figure exists for them: they show that everything works, not how good a method is.
    """
    annotations = json.loads((files("diffcut_bench.datasets") / "sample.json").read_text())
    classes: list[str] = annotations["classes"]
    void: int = annotations["void"]
    photographs = annotations["photographs"]
    folder = Path(skimage.__file__).parent / "data"
    values = {name: value for value, name in enumerate(classes)} | {"void": void}
    return SegmentationDataset(
        name="sample",
        records=records_from_bytes(
            [photo["id"] for photo in photographs],
            [folder / photo["file"] for photo in photographs],
            [_draw(photo, values) for photo in photographs],
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
