"""Recursive Normalized Cut on one screen, as a textbook writes it: the reference, to read first and to compare with.

Every sub-graph is the whole N×N matrix with rows and columns masked out, every sub-graph is solved by a dense
eigendecomposition, and the splitting points are tried one by one. The rest of the room finds the same partitions of
whole batches, many times faster; no code is shared with it.
"""

import torch
from torch import Tensor


def textbook_recursive_ncut(features: Tensor, tau: float, alpha: float, splitting_points: int = 100) -> Tensor:
    """Segments of one image with exact label codes, zero-affinity patches dropped below the root.

    Args:
        features: patch features [nodes, channels].
        tau, alpha, splitting_points: as in `diffcut_bench.ncut.recursive_ncut`.

    Returns:
        Segment ids [nodes], contiguous from 0.
    """
    weights = textbook_affinity(features, alpha)
    codes = [""] * len(weights)
    everyone = torch.ones(len(weights), dtype=torch.bool, device=weights.device)
    kept = ~(weights == 0).any(dim=1)
    _divide(weights, everyone, kept, tau, splitting_points, codes)
    names = {code: segment for segment, code in enumerate(sorted(set(codes)))}
    return torch.tensor([names[code] for code in codes])


def textbook_affinity(features: Tensor, alpha: float) -> Tensor:
    """Affinities [nodes, nodes] of one image's features [nodes, channels]: cosines, least to 0, most to 1, power."""
    unit = features.float() / features.float().norm(dim=1, keepdim=True)
    cosine = unit @ unit.T
    return ((cosine - cosine.min()) / (cosine.max() - cosine.min())) ** alpha


def _divide(
    weights: Tensor, members: Tensor, kept: Tensor, tau: float, splitting_points: int, codes: list[str]
) -> None:
    if members.sum() < 2:
        return
    graph = weights * members[:, None] * members[None, :]
    degree = graph.sum(dim=1)
    scale = torch.where(degree > 0, degree.rsqrt(), 0.0)
    laplacian = torch.eye(len(graph), device=graph.device) - scale[:, None] * graph * scale[None, :]
    indicator = scale * torch.linalg.eigh(laplacian).eigenvectors[:, 1]
    if indicator[indicator.abs().argmax()] < 0:
        indicator = -indicator
    values = indicator[members]
    least, side = float("inf"), members
    for threshold in torch.linspace(0.99 * values.min().item(), 0.99 * values.max().item(), splitting_points):
        above = members & (indicator > threshold)
        below = members & ~above
        cut = graph[above][:, below].sum()
        cost = (cut / degree[above].sum() + cut / degree[below].sum()).item()
        if cost < least:
            least, side = cost, above
    if not least < tau:
        return
    for patch, inside in enumerate(side.tolist()):
        codes[patch] += "1" if inside else "0"
    for half in (side & kept, members & ~side & kept):
        _divide(weights, half, kept, tau, splitting_points, codes)
