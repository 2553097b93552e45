"""A folder with one transparent PNG a segment, of the picture's size: cut-outs for a picture editor."""

import numpy as np

from diffcut_bench.reporting import encode_png
from diffcut_bench.segmentation.formats.interface import Format, Segmented


def _encode(segmented: Segmented) -> dict[str, bytes]:
    result = segmented.result
    digits = max(len(str(result.num_segments - 1)), 3)
    files = {}
    for segment in range(result.num_segments):
        inside = result.labels == segment
        # Colours outside are left out, which makes the files small.
        pixels = np.dstack([result.image * inside[..., None], inside * np.uint8(255)])
        files[f"{segment:0{digits}}.png"] = encode_png(pixels)
    return files


MASKS = Format("masks", "_masks", _encode)
