"""The recursion, level by level: all open sub-graphs of all images of a batch are solved together.

The host decides once a level: which sub-graphs are cut, and how large their halves are. Knows tensors only.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffcut_bench.ncut.bipartition import best_bipartition
from diffcut_bench.ncut.fiedler import fiedler_vector
from diffcut_bench.ncut.settings import NCutSettings
from diffcut_bench.ncut.tree import ImageTree

# Padded entries that a batch may hold, and beyond them their share, before the next batch begins.
_FREE_PADDING, _PADDING_SHARE = 1 << 18, 0.25


class Subgraph(NamedTuple):
    """Patches of an image that the recursion looks at together.

    Attributes:
        image: its number in the batch.
        size: number of patches.
        parent: number of the cut that made it, counted over the batch; -1: none did, it is the whole image.
        first_side: whether it is the ``y > threshold`` side of that cut.
    """

    image: int
    size: int
    parent: int
    first_side: bool


def cut_recursively(
    weights: Float[Tensor, "images nodes nodes"], max_tau: float, settings: NCutSettings, batch_entries: int
) -> list[ImageTree]:
    """Every cut of least NCut below ``max_tau``, and those of its halves.

    Args:
        weights: affinities of each image.
        max_tau: see `ncut_tree`.
        settings: of the cuts.
        batch_entries: entries of affinities that are gathered at once.
    """
    (images, n), device = weights.shape[:2], weights.device
    if settings.zero_affinity == "drop":
        alive = (weights.amin(dim=2) > 0).flatten()  # patches that take part below the root
    else:
        alive = torch.ones(images * n, dtype=torch.bool, device=device)
    level = [Subgraph(image, n, -1, False) for image in range(images)]
    # Sub-graphs of a level are disjoint: one number a patch says which holds it; len(level): none any more.
    owner = torch.arange(images, device=device).repeat_interleave(n)
    divided: list[Subgraph] = []  # by each cut made; `costs` and `sides` are of the same cuts
    costs, sides = [weights.new_zeros(0)], [torch.zeros(0, n, dtype=torch.bool, device=device)]
    while level:
        cost, above = _bipartitions(weights, owner, [each.size for each in level], settings, batch_entries)
        below_tau = cost < max_tau
        # The half that holds each patch: 2s and 2s + 1 are the first and the other side of sub-graph s, `none` stands
        # for patches that leave the recursion (their sub-graph is not cut, or they have an affinity of zero).
        none = 2 * len(level)
        goes_on = torch.cat([below_tau, below_tau.new_zeros(1)])[owner] & alive
        half = torch.where(goes_on, 2 * owner + ~above, none)
        half_sizes = half.new_zeros(none + 1).scatter_add_(0, half, torch.ones_like(half))
        # The level's one transfer to the host: whether each sub-graph is cut, and the size of each half.
        decisions: list[int] = torch.cat([below_tau.to(half.dtype), half_sizes[:none]]).tolist()
        chosen = [number for number, yes in enumerate(decisions[: len(level)]) if yes]
        if not chosen:
            break
        index, image = _on(device, chosen), _on(device, [level[number].image for number in chosen])
        costs.append(cost[index])
        sides.append((owner.view(images, n)[image] == index[:, None]) & above.view(images, n)[image])
        cut_of = {number: len(divided) + made for made, number in enumerate(chosen)}
        divided += [level[number] for number in chosen]
        # Halves of two patches and more are the next level. Those of sub-graphs that are not cut have size 0.
        opened = {number: size for number, size in enumerate(decisions[len(level) :]) if size > 1}
        level = [
            Subgraph(level[number // 2].image, size, cut_of[number // 2], number % 2 == 0)
            for number, size in opened.items()
        ]
        renumbered = {number: new for new, number in enumerate(opened)}
        owner = _on(device, [renumbered.get(number, len(level)) for number in range(none + 1)])[half]
    return _depth_first(images, divided, torch.cat(costs), torch.cat(sides))


def _bipartitions(
    weights: Tensor, owner: Tensor, sizes: list[int], settings: NCutSettings, batch_entries: int
) -> tuple[Float[Tensor, " subgraphs"], Bool[Tensor, " patches"]]:
    """NCut of the best bipartition of every open sub-graph, and the side that each patch is on."""
    total, n, device = len(owner), weights.shape[-1], weights.device
    patches = torch.cat([owner.argsort(stable=True), owner.new_full((1,), total)])  # by sub-graph; last: no patch
    starts = torch.tensor(sizes).cumsum(0) - torch.tensor(sizes)
    cost = weights.new_zeros(len(sizes))
    above = torch.zeros(total + 1, dtype=torch.bool, device=device)
    for batch in _batches(sizes, batch_entries):
        largest = max(sizes[number] for number in batch)
        index = torch.tensor(batch)
        slot = torch.arange(largest)
        padding = slot >= torch.tensor([sizes[number] for number in batch])[:, None]
        members = patches[(starts[index][:, None] + slot).masked_fill(padding, total).to(device, non_blocking=True)]
        if largest == n:  # whole images, in order
            blocks = weights[batch[0] : batch[-1] + 1]
        else:
            blocks = _gather(weights, members.clamp_max(total - 1), batch_entries)
            if padding.any():
                outside = padding.to(device, non_blocking=True)
                blocks.masked_fill_(outside[:, None, :], 0).masked_fill_(outside[:, :, None], 0)
        degree = blocks.sum(dim=2)
        indicator = fiedler_vector(blocks, degree, settings.solver)
        least, side = best_bipartition(blocks, degree, indicator, settings.splitting_points)
        cost[index.to(device, non_blocking=True)] = least
        above.scatter_(0, members.flatten(), side.flatten())
    return cost, above[:-1]


def _batches(sizes: list[int], entries: int) -> Iterator[list[int]]:
    """Sub-graphs of similar sizes, so that little is padded and that ``entries`` are not passed."""
    batch: list[int] = []
    padded = useful = 0
    for number in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
        largest = sizes[batch[0]] if batch else sizes[number]
        waste = padded + largest**2 - useful - sizes[number] ** 2
        if batch and ((len(batch) + 1) * largest**2 > entries or waste > max(_FREE_PADDING, _PADDING_SHARE * useful)):
            yield batch
            batch, padded, useful, largest = [], 0, 0, sizes[number]
        batch.append(number)
        padded += largest**2
        useful += sizes[number] ** 2
    yield batch


def _gather(weights: Tensor, members: Tensor, entries: int) -> Float[Tensor, "items nodes nodes"]:
    """Affinities among the members of each sub-graph."""
    (items, size), n = members.shape, weights.shape[-1]
    column = (members % n)[:, None]
    rows = max(2 * entries // (items * n), 1)
    blocks = weights.new_empty(items, size, size)
    for first in range(0, size, rows):
        part = members[:, first : first + rows]
        picked = weights.view(-1, n).index_select(0, part.flatten()).view(items, -1, n)
        torch.gather(picked, 2, column.expand(-1, part.shape[1], -1), out=blocks[:, first : first + rows])
    return blocks


def _depth_first(images: int, divided: list[Subgraph], costs: Tensor, sides: Tensor) -> list[ImageTree]:
    """The cuts of each image: a cut, the sub-tree of its first side, that of the other."""
    cut_of = {(each.image, each.parent, each.first_side): cut for cut, each in enumerate(divided)}
    order: list[int] = []
    parents: list[list[int]] = []
    for image in range(images):
        parents.append([])
        pending = [(cut_of.get((image, -1, False)), -1)]
        while pending:
            cut, parent = pending.pop()
            if cut is None:
                continue
            pending += [(cut_of.get((image, cut, first_side)), len(parents[-1])) for first_side in (False, True)]
            parents[-1].append(parent)
            order.append(cut)
    permutation = _on(costs.device, order)
    counts = [len(image) for image in parents]
    return [
        ImageTree(*parts)
        for parts in zip(costs[permutation].split(counts), parents, sides[permutation].split(counts), strict=True)
    ]


def _on(device: torch.device, numbers: list[int]) -> Tensor:
    """The numbers on the device, which is not waited for."""
    return torch.tensor(numbers, dtype=torch.int64).to(device, non_blocking=True)
