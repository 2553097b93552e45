"""Agglomerative merging of neighbouring patches: the second method whose segments at any tau come from one tree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from torch import Tensor

from diffcut_bench.ncut import ImageTree, NCutTree
from diffcut_bench.ncut.arguments import as_nodes, check_count, check_number


@dataclass(frozen=True)
class Agglomerative:
    """The merging of UnSAM's divide and conquer (Wang et al., NeurIPS 2024), as a partition of the whole feature map.

    At first each patch is a region. Of all pairs of neighbouring regions (4 neighbours) the one whose mean features
    have the greatest cosine is merged, as long as that cosine is at least tau; of two means of 0 it is 1. Another tau
    ends the same sequence of merges elsewhere: read backwards it is a tree, and segments at one tau are unions of those
    at any greater one.

    UnSAM keeps the regions of at least 4 patches, at tau 0.6, 0.5, … 0.1, as masks. A partition leaves no patch out, so
    a region that is merged into a larger one before it has ``min_patches`` is a part of that one at every tau: it joins
    the nearest in cosine of mean features among the smallest regions of at least ``min_patches`` there that it touches.
    At every tau each mask of UnSAM lies in one segment, no two of them in the same, and segments are connected.

    Args:
        tau: cosine of mean features from which on neighbouring regions are merged, 0 to 1. The default is the greatest
            of UnSAM's; that one of them is enough is our choice.
        min_patches: patches of a segment at least, where the map has as many; 1: merging alone.

    Raises:
        ValueError: an argument is out of range.
    """

    tau: float = 0.6
    min_patches: int = 4

    tau_meaning: ClassVar[str] = "neighbours are merged where the cosine of their mean features is at least tau"
    slider_end: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        check_number("tau", self.tau, 0, 1)
        check_count("min_patches", self.min_patches, 1)

    def __call__(self, features: Float[Tensor, "batch channels rows cols"]) -> Int[Tensor, "batch rows cols"]:
        """Partition of each feature map."""
        return self.together([self], features)[0]

    @classmethod
    def together(
        cls, segmenters: Sequence["Agglomerative"], features: Float[Tensor, "batch channels rows cols"]
    ) -> list[Int[Tensor, "batch rows cols"]]:
        """Partitions of several settings, each as it would be alone: the merges of an image are found once."""
        mergings = _mergings(features)
        ends: dict[int, float] = {}
        for one in segmenters:
            ends[one.min_patches] = max(one.tau, ends.get(one.min_patches, 0.0))
        trees = {least: _tree(mergings, least, end, features.device) for least, end in ends.items()}
        return [trees[one.min_patches].labels(one.tau).unflatten(1, features.shape[2:]) for one in segmenters]

    def tree(self, features: Float[Tensor, "batch channels rows cols"], max_tau: float) -> NCutTree:
        """The merges of each feature map, read backwards: a cut whose cost is below tau is a merge not made at tau."""
        return _tree(_mergings(features), self.min_patches, max_tau, features.device)

    def tree_settings(self) -> Mapping[str, Any]:
        """What the tree depends on besides the features, as its JSON says it."""
        return {"min_patches": self.min_patches}

    def tree_fault(self, nested: bool) -> None:
        """There is always a tree, and its segments are nested."""


@dataclass(frozen=True)
class _Merging:
    """All merges of one map of n patches. Region r < n is patch r; region n + k is what merge k made of two others.

    Attributes:
        grid: number of each patch [rows, cols], in reading order.
        unit: mean feature of each region at length 1 [2n − 1, channels]; 0 where the mean is.
        pairs: the two regions that each merge made one, in the order of the merges.
        levels: of each merge, the least cosine among it and those before: it is made at every tau up to this.
    """

    grid: NDArray[np.int64]
    unit: NDArray[np.float64]
    pairs: list[tuple[int, int]]
    levels: NDArray[np.float32]

    @classmethod
    def of(cls, nodes: NDArray[np.float64], size: Sequence[int]) -> "_Merging":
        """Of the features of patches [n, channels] on a grid of this size (rows, cols)."""
        n = len(nodes)
        grid = np.arange(n).reshape(size)
        sums = dict(enumerate(nodes))  # of each region that is left
        unit = np.concatenate([_at_length_1(nodes), np.empty_like(nodes[1:])])
        beside: list[set[int]] = [set() for _ in range(2 * n - 1)]  # of a region that is left, those next to it
        heap: list[tuple[float, int, int]] = []
        for before, behind in ((grid[:, :-1], grid[:, 1:]), (grid[:-1], grid[1:])):
            first, second = before.ravel(), behind.ravel()
            cosines = (unit[first] * unit[second]).sum(axis=1)
            cosines[~(unit[first].any(axis=1) | unit[second].any(axis=1))] = 1  # without features both
            for cosine, a, b in zip(cosines.tolist(), first.tolist(), second.tolist(), strict=True):
                beside[a].add(b)
                beside[b].add(a)
                heap.append((-cosine, a, b))
        heapify(heap)
        pairs: list[tuple[int, int]] = []
        levels: list[float] = []
        while heap:
            negative, a, b = heappop(heap)
            if b not in beside[a]:  # one of the two is a part of another region by now
                continue
            new = n + len(pairs)
            pairs.append((a, b))
            levels.append(-negative)
            sums[new] = sums.pop(a) + sums.pop(b)
            unit[new] = _at_length_1(sums[new])
            around = sorted((beside[a] | beside[b]) - {a, b})
            beside[a], beside[b], beside[new] = set(), set(), set(around)
            cosines = unit[around] @ unit[new]
            if not unit[new].any():
                cosines[~unit[around].any(axis=1)] = 1
            for other, cosine in zip(around, cosines.tolist(), strict=True):
                beside[other] -= {a, b}
                beside[other].add(new)
                heappush(heap, (-cosine, other, new))
        # Single precision, as the costs of cuts are.
        return cls(grid, unit, pairs, np.minimum.accumulate(np.array(levels, dtype=np.float32)))

    def tree(self, min_patches: int, max_tau: float, device: torch.device) -> ImageTree:
        """The merges of regions of at least ``min_patches``, backwards, while their levels are below ``max_tau``."""
        leaf, merges = self._leaves(min_patches)
        count = dict.fromkeys(np.unique(leaf).tolist(), 1)  # leaves in each region, of which the last is the whole map
        for region, (one, other) in merges.items():
            count[region] = count[one] + count[other]
        start = {next(reversed(count)): 0}  # place of its first leaf, where leaves are in the order of the tree
        above: dict[int, int] = {}
        for region, (one, other) in reversed(merges.items()):
            start[one], start[other] = start[region], start[region] + count[one]
            above[one] = above[other] = region
        level = {region: self.levels[region - self.grid.size] for region in merges}
        cuts = [region for region in merges if level[region] < np.float32(max_tau)]
        cuts.sort(key=lambda region: (start[region], -count[region]))  # depth first
        number = {region: cut for cut, region in enumerate(cuts)}
        place = np.array([start[region] for region in leaf.tolist()])
        low = np.array([start[region] for region in cuts], dtype=np.int64)[:, None]
        high = low + np.array([count[merges[region][0]] for region in cuts], dtype=np.int64)[:, None]
        return ImageTree(
            torch.tensor([level[region] for region in cuts], dtype=torch.float32, device=device),
            [number.get(above.get(region, -1), -1) for region in cuts],
            torch.from_numpy((low <= place) & (place < high)).to(device),
        )

    def _leaves(self, min_patches: int) -> tuple[NDArray[np.int64], dict[int, tuple[int, int]]]:
        """The regions that no cut divides, and what they make.

        Returns:
            The leaf of each patch [n]; the two parts of each region of several leaves, in the order of the merges.
        """
        n = self.grid.size
        least = min(min_patches, n)
        region = np.arange(n)  # of each patch, after the merges so far
        leaf = region.copy() if least == 1 else np.full(n, -1)
        top = {patch: patch for patch in range(n)} if least == 1 else {}  # the leaf or merge that a large region is
        merges = {}
        for new, (a, b) in enumerate(self.pairs, start=n):
            inside = (region == a) | (region == b)
            if a in top and b in top:
                top[new] = new
                merges[new] = top[a], top[b]
            elif a in top or b in top:
                large, small = (a, b) if a in top else (b, a)
                own = region == small
                near = binary_dilation(own.reshape(self.grid.shape)).ravel() & (region == large)
                found = np.unique(leaf[near])
                leaf[own] = found[(self.unit[found] @ self.unit[small]).argmax()]
                top[new] = top[large]
            elif inside.sum() >= least:
                top[new] = new
                leaf[inside] = new
            region[inside] = new
        return leaf, merges


def _mergings(features: Float[Tensor, "batch channels rows cols"]) -> list[_Merging]:
    """Of each feature map; on the host, in double precision: an accelerator would be asked once a merge."""
    nodes = as_nodes(features).cpu().double().numpy()
    return [_Merging.of(image, features.shape[2:]) for image in nodes]


def _tree(mergings: Sequence[_Merging], min_patches: int, max_tau: float, device: torch.device) -> NCutTree:
    return NCutTree([one.tree(min_patches, max_tau, device) for one in mergings], max_tau)


def _at_length_1(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Vectors [..., channels] divided by their lengths; 0 stays 0."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)
