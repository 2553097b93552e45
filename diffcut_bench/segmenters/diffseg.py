"""DiffSeg: merging of attention maps that lie close in Kullback-Leibler divergence."""

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from diffcut_bench.ncut.arguments import check_count, check_positive
from diffcut_bench.ncut.tree import contiguous

# Of a distribution's sum, in half precision at worst.
_TOLERANCE = 1e-2
_LEAST_HALF = 2.0**-24  # above zero, in half precision


@dataclass(frozen=True)
class DiffSeg:
    """Iterative merging of attention maps (Tian et al., CVPR 2024).

    Features are attention maps: for each patch a distribution over a grid of keys, as ``backbone=sd14_attention`` gives
    them. Those of any other backbone are made into distributions over the patches by softmax of their cosines.

    Anchors on a regular grid each become the mean of all maps closer than ``threshold``, in half precision; these
    proposals are then merged greedily (`greedy_groups`). They are enlarged bilinearly, and a pixel's segment is the one
    of greatest value there; one that is greatest nowhere vanishes. So the partition is finer than the patches, and is
    scored as it is: ``upsampler=nearest``.

    Args:
        threshold: of the symmetric divergence (KL(p‖q) + KL(q‖p)) / 2, in nats, below which maps merge; above 0.
        anchors: a side of their grid, or as many as there are patches.
        iterations: the first gathers maps around the anchors, further ones merge proposals; at least 1.
        temperature: that divides the cosines, for features that are no distributions; above 0.
        resolution: pixels of the partition's longer side.

    Raises:
        ValueError: an argument is out of range.
    """

    threshold: float = 1.0
    anchors: int = 16
    iterations: int = 3
    temperature: float = 0.15
    resolution: int = 512

    gives = "finer_partition"

    def __post_init__(self) -> None:
        for name in ("threshold", "temperature"):
            check_positive(name, getattr(self, name))
        for name in ("anchors", "iterations", "resolution"):
            check_count(name, getattr(self, name), 1)

    def __call__(self, features: Float[Tensor, "batch channels rows cols"]) -> Int[Tensor, "batch height width"]:
        """Partition of each feature map, of `resolution` along the longer side and the patches' aspect ratio."""
        rows, cols = features.shape[-2:]
        maps, keys = attention_maps(features, self.temperature)  # batch × patches × keys
        anchors = anchor_indices(rows, cols, self.anchors).to(maps.device, non_blocking=True)
        near = symmetric_kl(maps[:, anchors], maps, half=True) < self.threshold  # batch × anchors × patches
        near[:, torch.arange(len(anchors), device=maps.device), anchors] = True  # whatever rounding says
        proposals = _means(near, maps)
        present = torch.ones(proposals.shape[:2], dtype=torch.bool, device=maps.device)
        for _ in range(1, self.iterations):
            groups = greedy_groups(symmetric_kl(proposals, proposals) < self.threshold, present)
            proposals, present = _means(groups, proposals), groups.any(dim=2)
        size = [max(round(side * self.resolution / max(rows, cols)), 1) for side in (rows, cols)]
        enlarged = partial(interpolate, size=size, mode="bilinear", align_corners=False)
        # Those that are there come first.
        counts = present.sum(dim=1).tolist()
        found = [each[:count].unflatten(1, keys) for each, count in zip(proposals, counts, strict=True)]
        return contiguous(torch.stack([enlarged(each[None])[0].argmax(dim=0) for each in found]), max(counts))


def attention_maps(
    features: Float[Tensor, "batch channels rows cols"], temperature: float
) -> tuple[Float[Tensor, "batch patches keys"], tuple[int, int]]:
    """For each patch a distribution over a grid of keys, and that grid's rows and columns.

    Args:
        features: distributions over a grid of keys that is the patches' own or a whole number of times coarser; or any
            features, which become softmax(cosine / temperature) over all patches.
        temperature: of the softmax.
    """
    maps = features.flatten(2).transpose(1, 2).float()
    rows, cols = features.shape[-2:]
    coarser = round((rows * cols / features.shape[1]) ** 0.5)
    fits = coarser > 0 and rows % coarser == cols % coarser == 0 and features.shape[1] * coarser**2 == rows * cols
    if fits:
        sums = maps.sum(dim=2)
        if bool(((maps.amin(dim=2) >= 0) & ((sums - 1).abs() < _TOLERANCE)).all()):
            return maps / sums[..., None], (rows // coarser, cols // coarser)
    unit = normalize(maps, dim=2)
    return (unit @ unit.mT / temperature).softmax(dim=2), (rows, cols)


def symmetric_kl(
    first: Float[Tensor, "batch some keys"], second: Float[Tensor, "batch others keys"], *, half: bool = False
) -> Float[Tensor, "batch some others"]:
    """(KL(p‖q) + KL(q‖p)) / 2 of all pairs, in nats; zeros count as the least number that is normal.

    Args:
        first, second: distributions over the same keys.
        half: maps, logarithms and both divergences are rounded to half precision, zeros count as the least number of
            it: about what DiffSeg's code computes in its first iteration, where a divergence of 1 is good to 0.0005.
    """

    def rounded(values: Tensor) -> Tensor:
        return values.half().to(values.dtype) if half else values

    least = _LEAST_HALF if half else torch.finfo(torch.float32).tiny
    first, second = rounded(first), rounded(second)
    logs, other_logs = (rounded(each.clamp_min(least).log()) for each in (first, second))
    own, other = (first * logs).sum(dim=2), (second * other_logs).sum(dim=2)
    there = rounded(own[:, :, None] - first @ other_logs.mT)
    back = rounded(other[:, None, :] - logs @ second.mT)
    return rounded(there + back) / 2


def greedy_groups(
    near: Bool[Tensor, "batch proposals proposals"], present: Bool[Tensor, "batch proposals"]
) -> Bool[Tensor, "batch groups proposals"]:
    """The first proposal that is in no group yet makes one of all that are near it, until each is in one.

    Those near it that an earlier group holds are taken again: a proposal may be in several groups, as in the authors'
    code.

    Args:
        near: pairs that may merge.
        present: proposals that there are.

    Returns:
        Members of each group; images with fewer groups than others have empty ones at the end.
    """
    found = []
    present = present.to("cpu", non_blocking=True)  # they are there when the pairs are
    for close, there in zip(near.cpu(), present, strict=True):
        left, groups = there.clone(), []
        while left.any():
            first = int(left.int().argmax())
            group = close[first] & there
            group[first] = True
            left &= ~group
            groups.append(group)
        found.append(torch.stack(groups))
    return torch.nn.utils.rnn.pad_sequence(found, batch_first=True).to(near.device, non_blocking=True)


def anchor_indices(rows: int, cols: int, count: int) -> Int[Tensor, " anchors"]:
    """Numbers of the patches at the centres of a regular grid of cells: of 64 rows, 16 anchors stand in 1, 5, …, 61."""
    down, across = (
        ((torch.arange(min(count, side)) + 0.5) * side / min(count, side) - 0.5).floor().long() for side in (rows, cols)
    )
    return (down[:, None] * cols + across).flatten()


def _means(groups: Tensor, maps: Tensor) -> Tensor:
    """Mean map of each group; zeros for an empty one."""
    members = groups.to(maps.dtype)
    return members @ maps / members.sum(dim=2, keepdim=True).clamp_min(1)
