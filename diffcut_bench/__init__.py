"""diffcut_bench: unsupervised segmentation by recursive Normalized Cut, and the benchmark around it.

>>> import diffcut_bench
>>> result = diffcut_bench.segment("photo.jpg")  # doctest: +SKIP
>>> result.overlay().save("overlay.png")  # doctest: +SKIP
>>> diffcut_bench.evaluate(my_segmenter, dataset="voc", root="VOCdevkit").metrics.miou  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffcut_bench.scoring.evaluate import evaluate
    from diffcut_bench.segmentation import PictureSegmenter, Segmentation, segment

__all__ = ["PictureSegmenter", "Segmentation", "evaluate", "segment"]
__version__ = "0.1.0"
_ROOMS = {
    "PictureSegmenter": "segmentation",
    "Segmentation": "segmentation",
    "evaluate": "scoring.evaluate",
    "segment": "segmentation",
}


def __getattr__(name: str) -> Any:
    # These need the whole stack; the pure core (diffcut_bench.ncut) does not.
    if name in _ROOMS:
        return getattr(import_module(f"diffcut_bench.{_ROOMS[name]}"), name)
    raise AttributeError(f"module 'diffcut_bench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS})
