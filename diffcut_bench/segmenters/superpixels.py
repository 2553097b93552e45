"""Classical floors: superpixels of colour and position from scikit-image, on the picture itself."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from skimage.segmentation import felzenszwalb, slic
from torch import Tensor

from diffcut_bench.ncut.arguments import check_count, check_number, check_positive
from diffcut_bench.ncut.tree import contiguous


@dataclass(frozen=True)
class Slic:
    """k-means of colour and position (Achanta et al., 2012).

    Args:
        segments: about as many are found; at least 1.
        compactness: weight of position against colour; above 0.
        sigma: of a Gaussian blur before, in pixels.

    Raises:
        ValueError: an argument is out of range.
    """

    segments: int = 16
    compactness: float = 10
    sigma: float = 1

    def __post_init__(self) -> None:
        check_count("segments", self.segments, 1)
        check_positive("compactness", self.compactness)
        check_number("sigma", self.sigma, 0, torch.inf)

    def __call__(self, image: Float[Tensor, "3 height width"]) -> Int[Tensor, "height width"]:
        """Superpixel of each pixel."""
        ids = slic(_pixels(image), self.segments, self.compactness, sigma=self.sigma, start_label=0, channel_axis=-1)
        return contiguous(torch.from_numpy(ids)[None].long())[0]


@dataclass(frozen=True)
class Felzenszwalb:
    """Merging along a minimum spanning tree of the pixels (Felzenszwalb & Huttenlocher, 2004).

    Args:
        scale: the greater, the larger the segments; above 0.
        sigma: of a Gaussian blur before, in pixels.
        min_size: pixels below which a segment joins a neighbour.

    Raises:
        ValueError: an argument is out of range.
    """

    scale: float = 200
    sigma: float = 0.8
    min_size: int = 64

    def __post_init__(self) -> None:
        check_positive("scale", self.scale)
        check_count("min_size", self.min_size, 0)
        check_number("sigma", self.sigma, 0, torch.inf)

    def __call__(self, image: Float[Tensor, "3 height width"]) -> Int[Tensor, "height width"]:
        """Segment of each pixel."""
        ids = felzenszwalb(_pixels(image), self.scale, self.sigma, self.min_size, channel_axis=-1)
        return contiguous(torch.from_numpy(ids)[None].long())[0]


def _pixels(image: Tensor) -> NDArray[np.float32]:
    """The picture as scikit-image wants it: [height, width, 3]."""
    return image.permute(1, 2, 0).cpu().numpy().astype(np.float32)
