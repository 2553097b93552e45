"""The two pictures of a picture: the segment of each pixel, and the segments in colours over it."""

from diffcut_bench.segmentation.formats.interface import Format

LABELS = Format("labels", "_labels.png", lambda segmented: segmented.result.label_png())
OVERLAY = Format("overlay", "_overlay.png", lambda segmented: segmented.result.overlay_png())
