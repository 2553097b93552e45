"""The recursion, level by level: all open sub-graphs of all images of a batch are solved together.

The host decides once a level: which sub-graphs are cut, and how large their halves are. Knows tensors only.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffcut_bench.ncut.bipartition import best_bipartition
from diffcut_bench.ncut.block import ROUNDS, effort_of, improve, start_block
from diffcut_bench.ncut.fiedler import fiedler_vector, last_resort, solver_on
from diffcut_bench.ncut.settings import NCutSettings
from diffcut_bench.ncut.tree import ImageTree

# Padded entries that a batch may hold, and beyond them their share, before the next batch begins.
_FREE_PADDING, _PADDING_SHARE = 1 << 18, 0.25
# Entries that an accelerator works on, padding or not, while the kernels of a batch are launched.
_LAUNCHED_ENTRIES = 1 << 25
# A batch may begin where sizes have fallen to this share.
_SMALLER = 0.85


class Subgraph(NamedTuple):
    """Patches of an image that the recursion looks at together.

    Attributes:
        image: its number in the batch.
        size: number of patches.
        parent: number of the cut that made it, counted over the batch; -1: none did, it is the whole image.
        first_side: whether it is the ``y > threshold`` side of that cut.
        rounds: of block iteration that have left it unsolved.
    """

    image: int
    size: int
    parent: int
    first_side: bool
    rounds: int = 0


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
    rounds = _Rounds(weights) if solver_on(device, settings.solver) == "block" else None
    divided: list[Subgraph] = []  # by each cut made; `costs` and `sides` are of the same cuts
    costs, sides = [weights.new_zeros(0)], [torch.zeros(0, n, dtype=torch.bool, device=device)]
    while level:
        cost, above, unsolved = _bipartitions(weights, owner, level, settings, batch_entries, rounds)
        cut = (cost < max_tau) & ~unsolved
        # Where each patch goes: 2s and 2s + 1 are the first and the other side of sub-graph s, stays + s is s itself,
        # for another round, and `none` is out of the recursion: its sub-graph is not cut, or it has a zero affinity.
        stays, none = 2 * len(level), 3 * len(level)
        heir = torch.where(cut[owner] & alive, 2 * owner + ~above, none)
        if rounds:
            heir = torch.where(unsolved[owner], stays + owner, heir)
        sizes = heir.new_zeros(none + 1).scatter_add_(0, heir, torch.ones_like(heir))
        # The level's one transfer to the host: whether each sub-graph is cut, and how many patches go where.
        decisions: list[int] = torch.cat([cut[:-1].to(heir.dtype), sizes[:none]]).tolist()
        chosen = [number for number, yes in enumerate(decisions[: len(level)]) if yes]
        # What has two patches or more is looked at again; where nothing goes the size is 0.
        opened = {number: size for number, size in enumerate(decisions[len(level) :]) if size > 1}
        if not chosen and not opened:
            break
        renumbered = {number: new for new, number in enumerate(opened)}
        uploaded = torch.tensor(
            [
                *chosen,
                *(level[number].image for number in chosen),
                *(renumbered.get(number, len(opened)) for number in range(none + 1)),
            ]
        ).to(device, non_blocking=True)
        index, image, new_owner = uploaded.split([len(chosen), len(chosen), none + 1])
        costs.append(cost[index])
        sides.append((owner.view(images, n)[image] == index[:, None]) & above.view(images, n)[image])
        if rounds:
            rounds.begin_anew(heir < stays if max(opened, default=0) >= stays else None)
        cut_of = {number: len(divided) + made for made, number in enumerate(chosen)}
        divided += [level[number] for number in chosen]
        level = [
            Subgraph(level[number // 2].image, size, cut_of[number // 2], number % 2 == 0)
            if number < stays
            else level[number - stays]._replace(rounds=level[number - stays].rounds + 1)
            for number, size in opened.items()
        ]
        owner = new_owner[heir]
    return _depth_first(images, divided, torch.cat(costs), torch.cat(sides))


class _Rounds:
    """Rounds of block iteration on the sub-graphs of a level: those left unsolved go on in the next level's.

    Attributes:
        block: vectors of the iteration, a row a patch; the last row, of zeros, is what padding reads.
    """

    def __init__(self, weights: Float[Tensor, "images nodes nodes"]) -> None:
        images, n = weights.shape[:2]
        start = start_block(n, weights.dtype).to(weights.device, non_blocking=True)
        self._start = torch.nn.functional.pad(start.repeat(images, 1), (0, 0, 0, 1))
        self.block = self._start.clone()

    def improve(self, blocks: Tensor, degree: Tensor, members: Tensor, batch: list[Subgraph]) -> tuple[Tensor, Tensor]:
        """Indicators of a batch, and which of them are not settled yet."""
        found = improve(blocks, degree, self.block[members], effort_of(batch[0].rounds))
        self.block[members] = found.block
        self.block[-1].zero_()  # what fails leaves NaN, in its padding as well
        indicators, unsolved = found.indicator, found.unsolved
        last = [item for item, each in enumerate(batch) if each.rounds + 1 == ROUNDS]
        if last:
            indicators[last] = last_resort(blocks[last], degree[last], indicators[last])
            unsolved[last] = False
        return indicators, unsolved

    def begin_anew(self, patches: Bool[Tensor, " patches"] | None) -> None:
        """These patches, or all of them, are in sub-graphs that no round has seen."""
        if patches is None:
            self.block.copy_(self._start)
        else:
            self.block[:-1] = torch.where(patches[:, None], self._start[:-1], self.block[:-1])


def _bipartitions(
    weights: Tensor,
    owner: Tensor,
    level: list[Subgraph],
    settings: NCutSettings,
    batch_entries: int,
    rounds: _Rounds | None,
) -> tuple[Float[Tensor, " entries"], Bool[Tensor, " patches"], Bool[Tensor, " entries"]]:
    """NCut of the best bipartition of every open sub-graph, the side that each patch is on, and which sub-graphs need
    another round. The last entries are of patches in no sub-graph: never cut."""
    total, device = len(owner), weights.device
    sizes = [each.size for each in level]
    patches = torch.cat([owner.argsort(stable=True), owner.new_full((1,), total)])  # by sub-graph; last: no patch
    cost = weights.new_full((len(level) + 1,), torch.inf)
    above = torch.zeros(total + 1, dtype=torch.bool, device=device)
    unsolved = torch.zeros(len(level) + 1, dtype=torch.bool, device=device)
    whole_images = len(level) == len(weights) and sum(sizes) == total  # in their order
    batches = list(_few_batches(level, batch_entries) if rounds else _batches(sizes, batch_entries))
    order = torch.tensor([number for batch in batches for number in batch])
    size = torch.tensor(sizes)
    # Of each sub-graph, batch by batch: its number, its size, and where its patches begin.
    table = torch.stack([order, size[order], (size.cumsum(0) - size)[order]]).to(device, non_blocking=True)
    for batch, part in zip(batches, table.split([len(batch) for batch in batches], dim=1), strict=True):
        numbers, items, first = part
        slot = torch.arange(sizes[batch[0]], device=device)
        padding = slot >= items[:, None]
        members = patches[(first[:, None] + slot).masked_fill_(padding, total)]
        if whole_images:
            blocks = weights[batch[0] : batch[-1] + 1]
        elif device.type == "cpu":
            blocks = _pick(weights, members, [level[number] for number in batch], batch_entries)
        else:
            blocks = _gather(weights, members.clamp_max(total - 1), batch_entries)
            if sizes[batch[-1]] < sizes[batch[0]]:
                blocks.masked_fill_(padding[:, None, :] | padding[:, :, None], 0)
        degree = blocks.sum(dim=2)
        if rounds:
            indicator, left = rounds.improve(blocks, degree, members, [level[number] for number in batch])
            unsolved.index_copy_(0, numbers, left)
        else:
            indicator = fiedler_vector(blocks, degree, settings.solver)
        least, side = best_bipartition(blocks, degree, indicator, settings.splitting_points)
        cost.index_copy_(0, numbers, least)
        above.scatter_(0, members.flatten(), side.flatten())
    return cost, above[:-1], unsolved


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


def _few_batches(level: list[Subgraph], entries: int) -> Iterator[list[int]]:
    """Batches of similar sizes that take an accelerator the least time, by `_LAUNCHED_ENTRIES`; apart where sub-graphs
    need more effort."""
    for effort in {effort_of(each.rounds) for each in level}:
        numbers = [number for number, each in enumerate(level) if effort_of(each.rounds) == effort]
        numbers.sort(key=lambda number: -level[number].size)
        sizes = [level[number].size for number in numbers]
        for first, end in _cheapest_parts(sizes):
            at_once = max(entries // sizes[first] ** 2, 1)
            yield from (numbers[begin : min(begin + at_once, end)] for begin in range(first, end, at_once))


def _cheapest_parts(sizes: list[int]) -> list[tuple[int, int]]:
    """Begin and end of each batch of sizes in descending order, by dynamic programming."""
    begins = [0]
    for position, size in enumerate(sizes):
        if size <= _SMALLER * sizes[begins[-1]]:
            begins.append(position)
    ends = [*begins[1:], len(sizes)]
    # Of each end of a batch: the least time up to there, and which batch is the last.
    least: list[tuple[float, int]] = [(0, 0)]
    for end in ends:
        costs = (
            (time + _LAUNCHED_ENTRIES + (end - begin) * sizes[begin] ** 2, number)
            for number, ((time, _), begin) in enumerate(zip(least, begins, strict=False))
        )
        least.append(min(costs))
    parts = []
    number = len(ends)
    while number:
        end, number = ends[number - 1], least[number][1]
        parts.append((begins[number], end))
    return parts


def _pick(weights: Tensor, members: Tensor, batch: list[Subgraph], entries: int) -> Float[Tensor, "items nodes nodes"]:
    """Affinities among the members of each sub-graph, one after the other: a processor's way."""
    (items, largest), n = members.shape, weights.shape[-1]
    blocks = weights.new_empty(items, largest, largest)
    rows = max(2 * entries // n, 1)
    for block, patches, (image, size, *_) in zip(blocks, members % n, batch, strict=True):
        own = patches[:size]
        if size < largest:
            block.zero_()
        for part, into in zip(own.split(rows), block[:size].split(rows), strict=True):
            picked = weights[image].index_select(0, part)
            if size == largest:
                torch.index_select(picked, 1, own, out=into)
            else:
                into[:, :size] = picked.index_select(1, own)
    return blocks


def _gather(weights: Tensor, members: Tensor, entries: int) -> Float[Tensor, "items nodes nodes"]:
    """Affinities among the members of each sub-graph, few kernels for all: an accelerator's way."""
    (items, size), n = members.shape, weights.shape[-1]
    column = (members % n)[:, None]
    rows = max(entries // 2 // (items * n), 1)
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
    # Few enough bytes that nothing waits for the copy.
    permutation = torch.tensor(order, dtype=torch.int32).to(costs.device, non_blocking=True)
    counts = [len(image) for image in parents]
    return [
        ImageTree(*parts)
        for parts in zip(costs[permutation].split(counts), parents, sides[permutation].split(counts), strict=True)
    ]
