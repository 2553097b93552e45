"""The ceiling: the annotation itself, cut to patches. No method that gives each patch one segment can do better."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from diffcut_bench.ncut.arguments import check_count


@dataclass(frozen=True)
class Oracle:
    """Each patch has the class that most of its annotated pixels have.

    Args:
        rows, cols: of the patches; None: of the backbone's feature map.

    Raises:
        ValueError: an argument is out of range.
    """

    rows: int | None = None
    cols: int | None = None
    gives = "label_map"
    consistent_ids = True

    def __post_init__(self) -> None:
        for name in ("rows", "cols"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), 1)

    def __call__(
        self, labels: Int[Tensor, "batch height width"], grid_sizes: Sequence[tuple[int, int]]
    ) -> Int[Tensor, "batch height width"]:
        """Class of each pixel's patch.

        Args:
            labels: class ids, −1 for void.
            grid_sizes: rows and columns of the backbone's patches, the same for all images of a batch.
        """
        rows, cols = grid_sizes[0]
        return patch_classes(labels, (self.rows or rows, self.cols or cols))


def patch_classes(
    labels: Int[Tensor, "batch height width"], grid: tuple[int, int]
) -> Int[Tensor, "batch height width"]:
    """The class that most of a patch's annotated pixels have, for each of its pixels.

    Of classes with as many pixels it is the lowest. A patch without annotated pixels has class 0. A pixel is of the
    patch in row ⌊y · rows / height⌋ and column ⌊x · cols / width⌋.

    Args:
        labels: class ids, −1 for void.
        grid: rows and columns of patches; as many as pixels, or more, leave the annotation as it is.
    """
    batch, height, width = labels.shape
    rows, cols = min(grid[0], height), min(grid[1], width)
    if (rows, cols) == (height, width):
        return labels.clamp_min(0)
    down, across = (torch.arange(side, device=labels.device) for side in (height, width))
    patches = ((down * rows // height)[:, None] * cols + across * cols // width).flatten().expand(batch, -1)
    values = max(int(labels.max()), 0) + 2  # void is the first
    counts = torch.zeros(batch, rows * cols * values, dtype=torch.int32, device=labels.device)
    ones = counts.new_ones(()).expand(batch, height * width)
    counts.scatter_add_(1, patches * values + labels.flatten(1) + 1, ones)
    classes = counts.view(batch, rows * cols, values)[:, :, 1:].argmax(dim=2)
    return classes.gather(1, patches).view_as(labels)
