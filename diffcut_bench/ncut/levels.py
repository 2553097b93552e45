"""The recursion, level by level: all open sub-graphs of all images of a batch are solved together.

The host decides once a level: which sub-graphs are cut, and how large their halves are. Knows tensors only.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffcut_bench.ncut.bipartition import best_bipartition
from diffcut_bench.ncut.fiedler import Solver, fiedler_vector
from diffcut_bench.ncut.tree import ImageTree

# A batch may hold this many padded entries, and beyond them this share, before another one is opened.
_FREE_PADDING, _PADDING_SHARE = 1 << 18, 0.25


def cut_recursively(
    weights: Float[Tensor, "images nodes nodes"],
    max_tau: float,
    solver: Solver,
    drop_zeros: bool,
    splitting_points: int,
    batch_entries: int,
) -> list[ImageTree]:
    """Every cut of least NCut below ``max_tau``, and those of its halves.

    Args:
        weights: affinities of each image.
        max_tau, solver, splitting_points: see `ncut_tree`.
        drop_zeros: patches with an affinity of exactly 0 leave below the root.
        batch_entries: entries of affinities that are gathered at once.
    """
    (images, n), device = weights.shape[:2], weights.device
    alive = (weights.amin(dim=2) > 0).flatten() if drop_zeros else torch.ones(images * n, device=device).bool()
    # Open sub-graphs are disjoint: one number a patch says to which it belongs, one bit on which side of its cut it is.
    owner = torch.arange(images, device=device).repeat_interleave(n)
    sizes = [n] * images
    origin = [(image, -1, False) for image in range(images)]  # image, cut that made the sub-graph, on its first side?
    made: list[tuple[int, int, bool]] = []  # the same of each cut
    costs, sides = [weights.new_zeros(0)], [torch.zeros(0, n, dtype=torch.bool, device=device)]
    while sizes:
        cost, above = _bipartitions(weights, owner, sizes, solver, splitting_points, batch_entries)
        cut = cost < max_tau
        closed = 2 * len(sizes)
        child = torch.where(
            torch.cat([cut, cut.new_zeros(1)])[owner] & alive, 2 * owner + ~above, closed
        )  # even: the first side
        child_sizes = child.new_zeros(closed + 1).scatter_add_(0, child, torch.ones_like(child))
        # The level's one transfer to the host.
        decisions: list[int] = torch.cat([cut.to(child.dtype), child_sizes[:closed]]).tolist()
        chosen = [node for node, yes in enumerate(decisions[: len(sizes)]) if yes]
        if not chosen:
            break
        nodes = _on(device, chosen)
        rows = _on(device, [origin[node][0] for node in chosen])
        sides.append((owner.view(images, n)[rows] == nodes[:, None]) & above.view(images, n)[rows])
        costs.append(cost[nodes])
        opened: list[int] = []
        origins: list[tuple[int, int, bool]] = []
        child_of = {node: len(made) + place for place, node in enumerate(chosen)}
        number = [-1] * (closed + 1)
        for node in chosen:
            for half in (2 * node, 2 * node + 1):
                size = decisions[len(sizes) + half]
                if size > 1:
                    number[half] = len(opened)
                    opened.append(size)
                    origins.append((origin[node][0], child_of[node], half % 2 == 0))
        made += [origin[node] for node in chosen]
        sizes, origin = opened, origins
        owner = _on(device, [place if place >= 0 else len(sizes) for place in number])[child]
    return _depth_first(images, made, torch.cat(costs), torch.cat(sides))


def _bipartitions(
    weights: Tensor, owner: Tensor, sizes: list[int], solver: Solver, splitting_points: int, batch_entries: int
) -> tuple[Float[Tensor, " subgraphs"], Bool[Tensor, " patches"]]:
    """NCut of the best bipartition of every open sub-graph, and the side that each patch is on."""
    total, n, device = len(owner), weights.shape[-1], weights.device
    patches = torch.cat([owner.argsort(stable=True), owner.new_full((1,), total)])  # by sub-graph; last: no patch
    starts = torch.tensor(sizes).cumsum(0) - torch.tensor(sizes)
    cost = weights.new_zeros(len(sizes))
    above = torch.zeros(total + 1, dtype=torch.bool, device=device)
    for batch in _batches(sizes, batch_entries):
        largest = max(sizes[node] for node in batch)
        index = torch.tensor(batch)
        place = torch.arange(largest)
        padding = place >= torch.tensor([sizes[node] for node in batch])[:, None]
        members = patches[(starts[index][:, None] + place).masked_fill(padding, total).to(device, non_blocking=True)]
        if largest == n:  # whole images, in order
            blocks = weights[batch[0] : batch[-1] + 1]
        else:
            blocks = _gather(weights, members.clamp_max(total - 1), batch_entries)
            if padding.any():
                outside = padding.to(device, non_blocking=True)
                blocks.masked_fill_(outside[:, None, :], 0).masked_fill_(outside[:, :, None], 0)
        degree = blocks.sum(dim=2)
        indicator = fiedler_vector(blocks, degree, solver)
        least, side = best_bipartition(blocks, degree, indicator, splitting_points)
        cost[index.to(device, non_blocking=True)] = least
        above.scatter_(0, members.flatten(), side.flatten())
    return cost, above[:-1]


def _batches(sizes: list[int], entries: int) -> Iterator[list[int]]:
    """Sub-graphs of similar sizes, so that little is padded and that ``entries`` are not passed."""
    batch: list[int] = []
    padded = useful = 0
    for node in sorted(range(len(sizes)), key=lambda node: -sizes[node]):
        largest = sizes[batch[0]] if batch else sizes[node]
        waste = padded + largest**2 - useful - sizes[node] ** 2
        if batch and ((len(batch) + 1) * largest**2 > entries or waste > max(_FREE_PADDING, _PADDING_SHARE * useful)):
            yield batch
            batch, padded, useful, largest = [], 0, 0, sizes[node]
        batch.append(node)
        padded += largest**2
        useful += sizes[node] ** 2
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


def _depth_first(images: int, made: list[tuple[int, int, bool]], costs: Tensor, sides: Tensor) -> list[ImageTree]:
    """The cuts of each image: a cut, the sub-tree of its first side, that of the other."""
    following = {  # of a cut and a side; of an image: -1, -2, …
        (parent if parent >= 0 else -1 - image, first): cut for cut, (image, parent, first) in enumerate(made)
    }
    order: list[int] = []
    parents: list[list[int]] = []
    for image in range(images):
        begin = len(order)
        parents.append([])
        pending = [(following.get((-1 - image, False)), -1)]
        while pending:
            cut, parent = pending.pop()
            if cut is None:
                continue
            parents[-1].append(parent)
            order.append(cut)
            place = len(order) - begin - 1
            pending += [(following.get((cut, first)), place) for first in (False, True)]
    permutation = _on(costs.device, order)
    counts = [len(image) for image in parents]
    return [
        ImageTree(*parts)
        for parts in zip(costs[permutation].split(counts), parents, sides[permutation].split(counts), strict=True)
    ]


def _on(device: torch.device, numbers: list[int]) -> Tensor:
    """The numbers on the device, which is not waited for."""
    return torch.tensor(numbers, dtype=torch.int64).to(device, non_blocking=True)
