"""Splitting point: the threshold of the Fiedler vector that gives the least Normalized Cut. Knows tensors only."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# The outermost thresholds stop short of the extremes, so that both sides keep a node.
_MARGIN = 0.99


def best_bipartition(
    weights: Float[Tensor, "*batch nodes nodes"],
    degree: Float[Tensor, "*batch nodes"],
    indicator: Float[Tensor, "*batch nodes"],
    splitting_points: int = 100,
) -> tuple[Float[Tensor, "*batch"], Bool[Tensor, "*batch nodes"]]:
    """Evenly spaced splitting points, the one of least NCut (Shi & Malik 2000, section 3.1).

    Nodes that no threshold separates are merged first, which changes no cut and no volume. ``cut(A, B)`` is summed
    directly over the pairs across the cut, so that nothing cancels when the sides hardly touch.

    Args:
        weights: affinities of the sub-graph.
        degree: their row sums.
        indicator: ``y``; the sides are ``y > threshold`` and the rest.
        splitting_points: number of thresholds between 0.99·min(y) and 0.99·max(y).

    Returns:
        NCut of the best bipartition, in [0, 2] (infinite where no threshold leaves volume on both sides; the first
        wins a tie), and its side ``y > threshold``.
    """
    shape, n = degree.shape[:-1], degree.shape[-1]
    weights, degree, indicator = weights.reshape(-1, n, n), degree.reshape(-1, n), indicator.reshape(-1, n)
    low, high = (_MARGIN * extreme for extreme in indicator.aminmax(dim=1, keepdim=True))
    points = torch.arange(splitting_points, dtype=indicator.dtype, device=indicator.device)
    thresholds = low + (high - low) * (points / max(splitting_points - 1, 1))
    # A node's level is the number of thresholds below its y, and at threshold p the levels above p are the first side.
    # So nodes of one level are never separated. Where there are more nodes than levels, each level becomes one node; on
    # an accelerator the products are cheaper than the launches that this takes.
    level = torch.searchsorted(thresholds, indicator)
    level_of_node = level
    if n > splitting_points + 1 and weights.device.type == "cpu":
        weights, degree = _merge(weights, degree, level, splitting_points + 1)
        level_of_node = torch.arange(splitting_points + 1, device=level.device).expand(len(degree), -1)
    side = (level_of_node[:, :, None] > points).to(weights.dtype)  # items × nodes × splitting points
    other = 1 - side
    cut = (other * (weights @ side)).sum(dim=1)
    volume_above = (degree[:, None] @ side)[:, 0]
    volume_below = (degree[:, None] @ other)[:, 0]
    cost, best = (cut / volume_above + cut / volume_below).nan_to_num(nan=torch.inf).min(dim=1)
    return cost.view(shape), (level > best[:, None]).view(*shape, n)


def _merge(
    weights: Float[Tensor, "items nodes nodes"],
    degree: Float[Tensor, "items nodes"],
    groups: Int[Tensor, "items nodes"],
    count: int,
) -> tuple[Float[Tensor, "items groups groups"], Float[Tensor, "items groups"]]:
    """Affinities and degrees of groups of nodes: their sums. Reads each row of ``weights`` once."""
    items, n = groups.shape
    first = torch.arange(items, device=groups.device)[:, None]
    members = (groups.argsort(dim=1) + first * n).flatten()
    flat = (groups + first * count).flatten()
    sizes = flat.new_zeros(items * count).scatter_add_(0, flat, torch.ones_like(flat))
    starts = sizes.cumsum(0) - sizes

    def sum_rows(rows: Tensor) -> Tensor:
        return torch.nn.functional.embedding_bag(members, rows.reshape(items * n, -1), starts, mode="sum").view(
            items, count, -1
        )

    return sum_rows(sum_rows(weights).mT), sum_rows(degree)[:, :, 0]
