"""diffcut_bench: unsupervised segmentation by recursive Normalized Cut, and the benchmark around it.

>>> import diffcut_bench
>>> result = diffcut_bench.segment("photo.jpg", backbone="efficientnet_lite0")  # doctest: +SKIP
>>> result.overlay().save("overlay.png")  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffcut_bench.segmentation import Segmentation, segment

__all__ = ["Segmentation", "segment"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # The five-line use needs the whole stack; the pure core (diffcut_bench.ncut) does not.
    if name in __all__:
        from diffcut_bench import segmentation

        return getattr(segmentation, name)
    raise AttributeError(f"module 'diffcut_bench' has no attribute {name!r}")
