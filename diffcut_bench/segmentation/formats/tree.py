"""The hierarchy as JSON: the regions of the recursion, their parents, and the tau at which each appears."""

import json

from diffcut_bench.segmentation.formats.interface import Format, Segmented


def _encode(segmented: Segmented) -> str:
    height, width = segmented.result.labels.shape
    frame = {"image": segmented.image, "width": width, "height": height}
    return json.dumps({**frame, **segmented.result.hierarchy().to_dict()}) + "\n"


TREE = Format("tree", "_tree.json", _encode)
