"""Coarse-to-fine cut for grids whose N×N affinities are too large: an approximation. Knows tensors only.

The graph is that of square cells: the cosine of two cells is the mean of the cosines between their patches, scaled by
the range of the patches' cosines. It is cut, and each patch then chooses among the segments of the cells around it.
docs/large_grids.md says what it costs and how far it is from the exact partition.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffcut_bench.ncut.affinity import cosine_range, scale_cosines_, unit_features
from diffcut_bench.ncut.arguments import as_nodes, check_count
from diffcut_bench.ncut.recursive import cut_graphs, recursive_ncut
from diffcut_bench.ncut.settings import NCutSettings
from diffcut_bench.ncut.tree import NCutTree, contiguous

# How strongly a patch prefers the cells most like it: the exponent of its affinity to them.
_SHARPNESS = 10
# Patches whose affinities to the cells around them are computed at once.
_AT_ONCE = 2048


@dataclass(frozen=True)
class CoarseGrid:
    """Feature maps too large to be cut, and cells of ``side × side`` patches; smaller ones at the lower and right edge.

    Attributes:
        fine: feature maps, in single or double precision.
        side: patches along a cell's edge.
    """

    fine: Float[Tensor, "batch channels rows cols"]
    side: int

    @classmethod
    def of(cls, features: Float[Tensor, "batch channels rows cols"], coarse_patches: int) -> "CoarseGrid":
        """The finest grid of at most ``coarse_patches`` cells.

        Raises:
            ValueError: ``coarse_patches`` is below 1, or the features hold NaN or infinity.
        """
        check_count("coarse_patches", coarse_patches, 1)
        rows, cols = features.shape[2:]
        side = 1
        while math.ceil(rows / side) * math.ceil(cols / side) > coarse_patches:
            side += 1
        return cls(as_nodes(features).mT.unflatten(2, (rows, cols)), side)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        rows, cols = self.fine.shape[2:]
        return math.ceil(rows / self.side), math.ceil(cols / self.side)

    @cached_property
    def cells(self) -> Float[Tensor, "batch cells channels"]:
        """Mean of the unit features of each cell's patches."""
        pool = torch.nn.functional.avg_pool2d
        unit = (self._unit(image).mT.reshape(self.fine.shape[1:]) for image in range(len(self.fine)))
        return torch.stack([pool(one, self.side, ceil_mode=True).flatten(1).mT for one in unit])

    def trees(self, pairs: Sequence[tuple[float, float]], settings: NCutSettings) -> list[NCutTree]:
        """`ncut_trees` of the cells.

        Raises:
            ValueError: a tau or an alpha is out of range.
            GraphTooLargeError: the cells of one image do not fit in ``settings.max_memory_gib``.
        """
        return cut_graphs(self._cosines, self.shape[0] * self.shape[1], self.fine, pairs, settings)

    def refine(self, partition: Int[Tensor, "batch cells"]) -> Int[Tensor, "batch rows cols"]:
        """Partition of the patches from one of the cells.

        A patch takes the segment that the nine cells around it, its own among them, give most of their affinity
        ``((1 + cosine) / 2) ** 10``. So only patches within a cell of a boundary move.

        Returns:
            Segment ids, contiguous from 0 within each image.
        """
        return contiguous(torch.stack([self._refine_one(image, labels) for image, labels in enumerate(partition)]))

    def _unit(self, image: int) -> Float[Tensor, "nodes channels"]:
        return unit_features(self.fine[image : image + 1].flatten(2).mT)[0]

    def _cosines(self, at_once: int, cached: int) -> Iterator[Tensor]:
        """The scaled cosines of the cells, an image at a time."""
        for image, cells in enumerate(self.cells):
            least, most = (bound.view(1, 1, 1) for bound in cosine_range(self._unit(image)))
            yield scale_cosines_((cells @ cells.mT)[None], least, most).clamp_(0, 1)

    def _refine_one(self, image: int, labels: Tensor) -> Tensor:
        fine, cells = self.fine[image], self.cells[image]
        rows, cols = fine.shape[1:]
        row, col = (torch.arange(size, device=labels.device) // self.side for size in (rows, cols))
        step = torch.tensor([0, -1, 1], device=labels.device)  # the own cell first: it wins a tie
        down = (row[:, None] + step).clamp(0, self.shape[0] - 1).repeat_interleave(3, dim=1)
        right = (col[:, None] + step).clamp(0, self.shape[1] - 1).repeat(1, 3)
        around = (down[:, None] * self.shape[1] + right).flatten(0, 1)  # patches × 9: the cells around each
        candidates = labels[around]
        segment = candidates[:, 0].clone()
        nodes, cells = fine.flatten(1).mT, torch.nn.functional.normalize(cells, dim=1)
        moving = (candidates != candidates[:, :1]).any(dim=1).nonzero()[:, 0]
        for part in moving.split(_AT_ONCE):
            own = torch.nn.functional.normalize(nodes[part], dim=1)
            cosines = torch.stack([(own * cells[cell]).sum(dim=1) for cell in around[part].unbind(1)], dim=1)
            weight = ((1 + cosines) / 2).clamp_min(0) ** _SHARPNESS
            theirs = candidates[part]
            votes = (weight[:, None] * (theirs[:, :, None] == theirs[:, None, :])).sum(dim=2)
            segment[part] = theirs.gather(1, votes.argmax(dim=1, keepdim=True))[:, 0]
        return segment.view(rows, cols)


def coarse_to_fine_ncut(
    features: Float[Tensor, "batch channels rows cols"],
    tau: float = 0.5,
    alpha: float = 10,
    *,
    coarse_patches: int = 4096,
    **settings: Any,
) -> Int[Tensor, "batch rows cols"]:
    """`recursive_ncut` of square cells of patches, and its segments brought back to the patches.

    Exact for maps of up to ``coarse_patches`` patches.

    Args:
        features: feature maps.
        tau, alpha, settings: see `recursive_ncut`; of the cut of the cells.
        coarse_patches: greatest number of cells, at least 1.

    Returns:
        Segment ids, contiguous from 0 within each image.

    Raises:
        ValueError: an argument is out of range, or the features hold NaN or infinity.
        GraphTooLargeError: the cells do not fit in ``max_memory_gib``.
    """
    if features.shape[2] * features.shape[3] <= coarse_patches:
        return recursive_ncut(features.flatten(2).mT, tau, alpha, **settings).unflatten(1, features.shape[2:])
    grid = CoarseGrid.of(features, coarse_patches)
    (tree,) = grid.trees([(tau, alpha)], NCutSettings(**settings))
    return grid.refine(tree.labels(tau))
