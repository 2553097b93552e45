"""Hierarchies that another program made: ultrametric contour maps, cut at a threshold."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from diffcut_bench.matlab import read_variable
from diffcut_bench.ncut.arguments import check_number
from diffcut_bench.segmenters.base import Rescale
from diffcut_bench.segmenters.files import FilesOfImages

_MOST = 256_000_000  # numbers of a map: a picture of 64 million pixels
_KEPT = 16  # maps: those of a batch, while all thresholds are taken
_LARGEST = float(np.finfo(np.float64).max)


@dataclass(frozen=True)
class Ucm(FilesOfImages):
    """Segments at a threshold of an ultrametric contour map (Arbelaez, 2006): what lower contours do not part.

    A map ``ucm2`` of 2·height + 1 × 2·width + 1 numbers in a .mat file holds pixels at the odd places, and between
    them the strength of the contour that parts them. Segments are the connected components (4 neighbours) of what is
    not above the threshold.

    Args:
        folder: of the .mat files.
        pattern: name of an image's file below the folder; ``{id}`` stands for the image's id.
        threshold: strength up to which a contour parts nothing.

    Raises:
        UserError: the folder is missing.
        ValueError: an argument is out of range.
    """

    pattern: str = "{id}.mat"
    threshold: float = 0.1

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold, -_LARGEST, _LARGEST)
        super().__post_init__()

    def __call__(self, image_id: str, rescale: Rescale) -> Int[Tensor, "height width"]:
        """Segment of each pixel at the scored size.

        Raises:
            ValueError: there is no such file, or it holds no map; the message names it.
        """
        return rescale(torch.from_numpy(cut(self.read(image_id), self.threshold)))

    def read(self, image_id: str) -> NDArray[np.float64]:
        """The contour map of an image [2·height + 1, 2·width + 1].

        Raises:
            ValueError: there is no such file, or it holds no map; the message names it.
        """
        with self.opening(image_id) as path:
            return _read(path, path.stat().st_mtime_ns)


def cut(ucm: NDArray[np.float64], threshold: float) -> NDArray[np.int64]:
    """Segments [height, width] of a contour map, contiguous from 0; pixels that are themselves above the threshold are
    one segment."""
    components, number = ndimage.label(ucm <= threshold)
    pixels = components[1::2, 1::2]
    present = np.zeros(number + 1, dtype=np.int64)
    present[pixels] = 1
    return (present.cumsum() - 1)[pixels]


@lru_cache(maxsize=_KEPT)
def _read(path: Path, time_ns: int) -> NDArray[np.float64]:
    """Once for all thresholds; ``time_ns`` tells a changed file."""
    ucm = read_variable(path, "ucm2", _MOST)
    if ucm.ndim != 2 or ucm.dtype.kind not in "buif" or min(ucm.shape) < 3 or not all(side % 2 for side in ucm.shape):
        shape = "×".join(map(str, ucm.shape))
        raise ValueError(f"ucm2 of 2·height + 1 × 2·width + 1 numbers is due, not {ucm.dtype} of {shape}")
    if not np.isfinite(ucm).all():
        raise ValueError("ucm2 holds numbers that are not finite")
    return ucm.astype(np.float64)
