"""The two pictures of a picture: the segment of each pixel, and the segments in colours over it."""

import numpy as np

from diffcut_bench.reporting import encode_png
from diffcut_bench.segmentation.formats.interface import Format, Segmented


def _labels(segmented: Segmented) -> bytes:
    return segmented.result.label_png()


def _overlay(segmented: Segmented) -> bytes:
    return encode_png(np.asarray(segmented.result.overlay()))


LABELS = Format("labels", "_labels.png", _labels)
OVERLAY = Format("overlay", "_overlay.png", _overlay)
