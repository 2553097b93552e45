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


def grid_of(size: tuple[int, int], segments: int) -> Int[Tensor, "height width"]:
    """A grid of so many segments, of nearly equal size and as square as that many can be; the picture is not looked at.

    It has round(√(segments · height / width)) rows, and each row as many columns as there are segments for it: two rows
    differ by one at most. On a square 16 are `UniformGrid` of 4 × 4.

    Args:
        size: height and width.
        segments: from 1 on; where there are fewer pixels, as many as there are.

    Returns:
        Segment of each pixel, in raster order.

    Raises:
        ValueError: an argument is out of range.
    """
    check_count("segments", segments, 1)
    height, width = size
    segments = min(segments, height * width)
    rows = min(max(round((segments * height / width) ** 0.5), -(-segments // width), 1), height, segments)
    first = torch.arange(rows + 1) * segments // rows  # segment that each row begins with
    row = torch.arange(height) * rows // height
    columns = first.diff()[row]
    return first[row][:, None] + torch.arange(width) * columns[:, None] // width
