"""The tree of a picture: the regions of its patches, and the tau at which each appears."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffcut_bench.ncut import ImageTree, NCutTree


@dataclass(frozen=True)
class Hierarchy:
    """Regions of patches. Region 0 is all of them; each cut divides a region into two, its children.

    Attributes:
        parents: of each region; −1 for region 0. Parents come before their children.
        taus: a region is there at every tau above this, until its own children are; 0 for region 0.
        leaf_of_patch: region without children that holds the patch [rows, cols].
        max_tau: up to which cuts were looked for.
        settings: what the tree depends on besides features and ``max_tau``, such as a recursion's ``alpha``.
    """

    parents: list[int]
    taus: list[float]
    leaf_of_patch: NDArray[np.int64]
    max_tau: float
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, tree: NCutTree, settings: Mapping[str, Any], size: tuple[int, int]) -> "Hierarchy":
        """From the tree of one picture, whose patches are a grid of this size (rows, cols)."""
        (image,) = tree.images
        parents, taus, leaf = _regions(image)
        return cls(parents, taus, leaf.reshape(size), tree.max_tau, settings)

    def regions(self, tau: float) -> NDArray[np.int64]:
        """Region of each patch [rows, cols] at ``tau``: of equal partition as `NCutTree.labels`.

        Raises:
            ValueError: ``tau`` is above ``max_tau``, where the tree has no answer.
        """
        if not 0 <= tau <= self.max_tau:
            raise ValueError(f"this tree answers 0 <= tau <= {self.max_tau}, not {tau}")
        standing = np.arange(len(self.parents))
        for region in range(1, len(self.parents)):  # parents first
            if self.taus[region] >= tau:
                standing[region] = standing[self.parents[region]]
        return standing[self.leaf_of_patch]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: regions with id, parent, tau, and their number of patches; the leaf of each patch, by rows."""
        patches = np.bincount(self.leaf_of_patch.ravel(), minlength=len(self.parents))
        for region in range(len(self.parents) - 1, 0, -1):  # children first
            patches[self.parents[region]] += patches[region]
        regions = zip(self.parents, self.taus, patches.tolist(), strict=True)
        return {
            **self.settings,
            "max_tau": self.max_tau,
            "regions": [
                {"id": region, "parent": None if parent < 0 else parent, "tau": tau, "patches": count}
                for region, (parent, tau, count) in enumerate(regions)
            ],
            "leaf_of_patch": self.leaf_of_patch.tolist(),
        }


def _regions(tree: ImageTree) -> tuple[list[int], list[float], NDArray[np.int64]]:
    """Parents and taus of regions, and the leaf of each patch [nodes]; cut c makes the regions 2c + 1 and 2c + 2."""
    sides, reached = tree.sides.cpu().numpy(), tree.reached_at.tolist()
    parents, taus = [-1], [0.0]
    leaves = [0]  # of each number in `ImageTree.divided`: the region that is left of it
    last = np.zeros(sides.shape[1], dtype=np.int64)  # of each patch, such a number
    for cut, divided in enumerate(tree.divided):
        parents += [leaves[divided]] * 2
        taus += [reached[cut]] * 2
        leaves[divided] = 2 * cut + 2
        leaves.append(2 * cut + 1)
        last[sides[cut]] = cut + 1
    return parents, taus, np.array(leaves)[last]
