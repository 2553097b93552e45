"""Segments for other tools: a file a format, one interface for all."""

from diffcut_bench.errors import UserError, did_you_mean
from diffcut_bench.segmentation.formats.coco import COCO
from diffcut_bench.segmentation.formats.cvat import CVAT
from diffcut_bench.segmentation.formats.explorer import EXPLORER
from diffcut_bench.segmentation.formats.geojson import GEOJSON
from diffcut_bench.segmentation.formats.georeference import Georeference, read_georeference
from diffcut_bench.segmentation.formats.interface import Content, Format, Segmented, remove_written, write_content
from diffcut_bench.segmentation.formats.labelme import LABELME
from diffcut_bench.segmentation.formats.masks import MASKS
from diffcut_bench.segmentation.formats.pictures import LABELS, OVERLAY
from diffcut_bench.segmentation.formats.polygons import segment_polygons
from diffcut_bench.segmentation.formats.svg import SVG
from diffcut_bench.segmentation.formats.tree import TREE

FORMATS = {each.name: each for each in (LABELS, OVERLAY, COCO, CVAT, EXPLORER, GEOJSON, LABELME, MASKS, SVG, TREE)}


def chosen_formats(words: str) -> tuple[Format, ...]:
    """The formats of a list with commas between. ``labels`` is always among them: the others are made of it.

    Raises:
        UserError: one is unknown, or a library that it needs is missing.
    """
    names = [name.strip() for name in words.split(",") if name.strip()]
    if not names:
        raise UserError("no format named", "--format", f"available: {', '.join(FORMATS)}")
    for name in names:
        if name not in FORMATS:
            raise UserError(f"unknown format {name!r}", "--format", did_you_mean(name, FORMATS))
    formats = tuple(FORMATS[name] for name in dict.fromkeys(["labels", *names]))
    for each in formats:
        each.check_libraries()
    return formats


__all__ = [
    "FORMATS",
    "Content",
    "Format",
    "Georeference",
    "Segmented",
    "chosen_formats",
    "read_georeference",
    "remove_written",
    "segment_polygons",
    "write_content",
]
