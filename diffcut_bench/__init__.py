"""diffcut_bench: unsupervised segmentation by recursive Normalized Cut, and the benchmark around it.

>>> import diffcut_bench
>>> result = diffcut_bench.segment("photo.jpg")  # doctest: +SKIP
>>> result.overlay().save("overlay.png")  # doctest: +SKIP
>>> diffcut_bench.evaluate(my_segmenter, dataset="voc", root="VOCdevkit").metrics.miou  # doctest: +SKIP

`__all__` is the public interface: what a user calls, and the packages for those who build on parts of it.
docs/stability.md says what is promised about them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffcut_bench import backbones, datasets, evaluation, linking, naming, ncut, refinement, segmenters
    from diffcut_bench.errors import UserError
    from diffcut_bench.scoring.evaluate import evaluate
    from diffcut_bench.segmentation import PictureSegmenter, Segmentation, segment

__version__ = "0.1.0"
__all__ = [
    "PictureSegmenter",
    "Segmentation",
    "UserError",
    "backbones",
    "datasets",
    "evaluate",
    "evaluation",
    "linking",
    "naming",
    "ncut",
    "refinement",
    "segment",
    "segmenters",
]
_ROOMS = {
    "PictureSegmenter": "segmentation",
    "Segmentation": "segmentation",
    "UserError": "errors",
    "evaluate": "scoring.evaluate",
    "segment": "segmentation",
}


def __getattr__(name: str) -> Any:
    # Imported when they are asked for: most need the whole stack; the pure core (diffcut_bench.ncut) does not.
    if name in _ROOMS:
        return getattr(import_module(f"diffcut_bench.{_ROOMS[name]}"), name)
    if name in __all__:
        return import_module(f"diffcut_bench.{name}")
    raise AttributeError(f"module 'diffcut_bench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
