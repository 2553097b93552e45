"""COCO's JSON of instances, with compressed run lengths: what pycocotools, detectron2 and mmdetection load."""

import json

import numpy as np

from diffcut_bench.segmentation.formats.interface import Format, Segmented


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
    dataset = {
        "info": {"description": "segments of diffcut_bench"},
        "images": [{"id": 1, "file_name": segmented.image, "height": height, "width": width}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, start=1)],
        "annotations": annotations,
    }
    return json.dumps(dataset) + "\n"


COCO = Format("coco", "_coco.json", _encode, ("pycocotools",))
