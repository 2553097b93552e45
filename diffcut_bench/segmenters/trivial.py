"""Trivial floors: segments that do not look at the picture. What a method is worth begins above them."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from diffcut_bench.ncut.arguments import check_count


@dataclass(frozen=True)
class UniformGrid:
    """Rectangles of equal size.

    Args:
        rows, cols: of the grid; a side of fewer pixels gives as many.

    Raises:
        ValueError: an argument is out of range.
    """

    rows: int = 4
    cols: int = 4

    def __post_init__(self) -> None:
        check_count("rows", self.rows, 1)
        check_count("cols", self.cols, 1)

    def __call__(self, scored_size: tuple[int, int]) -> Int[Tensor, "height width"]:
        """Rectangle of each pixel, in raster order."""
        height, width = scored_size
        rows, cols = min(self.rows, height), min(self.cols, width)
        down, across = torch.arange(height) * rows // height, torch.arange(width) * cols // width
        return down[:, None] * cols + across


@dataclass(frozen=True)
class OneSegment:
    """The whole picture."""

    def __call__(self, scored_size: tuple[int, int]) -> Int[Tensor, "height width"]:
        """Zeros."""
        return torch.zeros(scored_size, dtype=torch.long)
