"""DiffSeg: merging of attention maps that lie close in Kullback-Leibler divergence."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from diffcut_bench.segmenters.arguments import check_count, check_positive

# Of a distribution's sum, in half precision at worst.
_TOLERANCE = 1e-2


@dataclass(frozen=True)
class DiffSeg:
    """Iterative merging of attention maps (Tian et al., CVPR 2024; PAPER.md section 4).

    Features are attention maps: for each patch a distribution over a grid of keys, as ``backbone=sd14_attention`` gives
    them. Those of any other backbone are made into distributions over the patches by softmax of their cosines.

    Anchors on a regular grid each become the mean of all maps closer than ``threshold``; these proposals are then
    merged greedily. A patch's segment is the proposal of greatest value there; one that is greatest nowhere vanishes.

    Args:
        threshold: of the symmetric divergence (KL(p‖q) + KL(q‖p)) / 2, in nats, below which maps merge; above 0.
        anchors: a side of their grid, or as many as there are patches.
        iterations: the first gathers maps around the anchors, further ones merge proposals; at least 1.
        temperature: that divides the cosines, for features that are no distributions; above 0.

    Raises:
        ValueError: an argument is out of range.
    """

    threshold: float = 1.0
    anchors: int = 16
    iterations: int = 3
    temperature: float = 0.15

    def __post_init__(self) -> None:
        for name in ("threshold", "temperature"):
            check_positive(name, getattr(self, name))
        for name in ("anchors", "iterations"):
            check_count(name, getattr(self, name), 1)

    def __call__(self, features: Float[Tensor, "batch channels rows cols"]) -> Int[Tensor, "batch rows cols"]:
        """Partition of each feature map."""
        rows, cols = features.shape[-2:]
        maps, keys = attention_maps(features, self.temperature)  # batch × patches × keys
        anchors = _anchor_places(rows, cols, self.anchors).to(maps.device)
        near = symmetric_kl(maps[:, anchors], maps) < self.threshold  # batch × anchors × patches
        near[:, torch.arange(len(anchors), device=maps.device), anchors] = True  # whatever rounding says
        proposals = _means(near, maps)
        present = torch.ones(proposals.shape[:2], dtype=torch.bool, device=maps.device)
        for _ in range(1, self.iterations):
            groups = greedy_groups(symmetric_kl(proposals, proposals) < self.threshold, present)
            proposals, present = _means(groups, proposals), groups.any(dim=2)
        scores = interpolate(proposals.unflatten(2, keys), (rows, cols), mode="bilinear", align_corners=False)
        return _contiguous(scores.masked_fill(~present[..., None, None], -torch.inf).argmax(dim=1))


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
    first: Float[Tensor, "batch some keys"], second: Float[Tensor, "batch others keys"]
) -> Float[Tensor, "batch some others"]:
    """(KL(p‖q) + KL(q‖p)) / 2 of all pairs, in nats; zeros count as the least normal float32."""
    logs, other_logs = (each.clamp_min(torch.finfo(torch.float32).tiny).log() for each in (first, second))
    own, other = (first * logs).sum(dim=2), (second * other_logs).sum(dim=2)
    return (own[:, :, None] + other[:, None, :] - first @ other_logs.mT - logs @ second.mT) / 2


def greedy_groups(
    near: Bool[Tensor, "batch proposals proposals"], present: Bool[Tensor, "batch proposals"]
) -> Bool[Tensor, "batch groups proposals"]:
    """The first proposal that is left takes all that are left and near it, until none is.

    Args:
        near: pairs that may merge.
        present: proposals that there are.

    Returns:
        Members of each group; images with fewer groups than others have empty ones at the end.
    """
    found = []
    for close, left in zip(near.cpu(), present.cpu(), strict=True):
        left, groups = left.clone(), []
        while left.any():
            first = int(left.int().argmax())
            group = close[first] & left
            group[first] = True
            left &= ~group
            groups.append(group)
        found.append(torch.stack(groups))
    return torch.nn.utils.rnn.pad_sequence(found, batch_first=True).to(near.device)


def _anchor_places(rows: int, cols: int, count: int) -> Int[Tensor, " anchors"]:
    """Patches at the centres of a regular grid of cells."""
    down, across = (
        ((torch.arange(min(count, side)) + 0.5) * side / min(count, side)).floor().long() for side in (rows, cols)
    )
    return (down[:, None] * cols + across).flatten()


def _means(groups: Tensor, maps: Tensor) -> Tensor:
    """Mean map of each group; zeros for an empty one."""
    members = groups.to(maps.dtype)
    return members @ maps / members.sum(dim=2, keepdim=True).clamp_min(1)


def _contiguous(winners: Tensor) -> Tensor:
    """Ids [batch, rows, cols] without gaps, in the same order."""
    flat = winners.flatten(1)
    used = torch.zeros(len(flat), int(flat.max()) + 1, dtype=torch.long, device=flat.device).scatter_(1, flat, 1)
    return (used.cumsum(dim=1) - 1).gather(1, flat).view_as(winners)
