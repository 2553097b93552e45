"""Names for segments: an encoder of images and texts, words for classes, and what joins them to a label map."""

from diffcut_bench.naming.clip_dense import ClipEncoder, clip_namer
from diffcut_bench.naming.encoder import TextImageEncoder
from diffcut_bench.naming.namer import ClassNamer, Namer
from diffcut_bench.naming.open_clip_dense import OpenClipEncoder, open_clip_namer

__all__ = [
    "ClassNamer",
    "ClipEncoder",
    "Namer",
    "OpenClipEncoder",
    "TextImageEncoder",
    "clip_namer",
    "open_clip_namer",
]


def __dir__() -> list[str]:
    return sorted(__all__)
