"""The page in which a slider moves tau, as a format."""

from diffcut_bench.segmentation.formats.interface import Format, Segmented


def _encode(segmented: Segmented) -> str:
    return segmented.result.explore().page(segmented.image)


EXPLORER = Format("explorer", "_explorer.html", _encode)
