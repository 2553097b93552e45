"""LabelMe's JSON: polygons of all parts, those of one segment in one group. The picture is in it, as a JPEG."""

import base64
import io
import json
from pathlib import PurePosixPath

from PIL import Image

from diffcut_bench.segmentation.formats.annotators import painted_parts
from diffcut_bench.segmentation.formats.interface import Format, Segmented


def _encode(segmented: Segmented) -> str:
    height, width = segmented.result.labels.shape
    shapes = [
        {
            "label": segmented.name_of(segment),
            "points": outline.tolist(),
            "group_id": segment,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
            "mask": None,
        }
        for segment, outline in painted_parts(segmented)
    ]
    picture = io.BytesIO()  # LabelMe would look for it beside the file
    Image.fromarray(segmented.result.image).save(picture, format="JPEG", quality=95)
    record = {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": PurePosixPath(segmented.image).name,
        "imageData": base64.b64encode(picture.getvalue()).decode("ascii"),
        "imageHeight": height,
        "imageWidth": width,
    }
    return json.dumps(record) + "\n"


LABELME = Format("labelme", "_labelme.json", _encode, ("shapely",), has_polygons=True)
