"""Splitting point: the threshold of the Fiedler vector that gives the least Normalized Cut. Knows tensors only."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# The outermost thresholds stop short of the extremes, so that both sides keep a node (PAPER.md section 2).
_MARGIN = 0.99


def best_bipartition(
    weights: Float[Tensor, "nodes nodes"],
    degree: Float[Tensor, " nodes"],
    indicator: Float[Tensor, " nodes"],
    splitting_points: int = 100,
) -> tuple[Float[Tensor, ""], Bool[Tensor, " nodes"]]:
    """Evenly spaced splitting points, the one of least NCut (Shi & Malik 2000, section 3.1).

    All points cost one matrix product. ``cut(A, B)`` is summed directly over the pairs across the cut, so that
    nothing cancels when the sides hardly touch.

    Args:
        weights: affinities of the sub-graph.
        degree: their row sums.
        indicator: ``y``; the sides are ``y > threshold`` and the rest.
        splitting_points: number of thresholds between 0.99·min(y) and 0.99·max(y).

    Returns:
        NCut of the best bipartition, in [0, 2] (infinite where no threshold leaves volume on both sides; the first
        wins a tie), and its side ``y > threshold``.
    """
    low, high = _MARGIN * indicator.min(), _MARGIN * indicator.max()
    steps = torch.arange(splitting_points, dtype=indicator.dtype, device=indicator.device) / max(
        splitting_points - 1, 1
    )
    thresholds = low + (high - low) * steps
    above = indicator[:, None] > thresholds[None, :]  # nodes × splitting points
    side = above.to(weights.dtype)
    cut = ((1 - side) * (weights @ side)).sum(dim=0)
    volume_above = degree @ side
    volume_below = degree @ (1 - side)
    cost = (cut / volume_above + cut / volume_below).nan_to_num(nan=torch.inf)
    best = cost.argmin()
    return cost[best], above[:, best]
