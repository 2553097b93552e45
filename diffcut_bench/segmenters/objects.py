"""What the object-discovery methods share: binary graph, second eigenvector, connected component. No method of its own.

They find objects on a plain ground, so their results are masks first and partitions second.
"""

from collections.abc import Sequence

import numpy as np
import scipy.linalg
import scipy.ndimage
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from diffcut_bench.ncut import cosine_matrix
from diffcut_bench.ncut.arguments import check_number, check_positive
from diffcut_bench.ncut.tree import contiguous

# Of all similarity matrices that are held at once.
_ENTRIES_AT_ONCE = 2**26


def images_at_once(nodes: int) -> int:
    """Images of this many patches whose matrices are held together."""
    return max(1, _ENTRIES_AT_ONCE // nodes**2)


def thresholds(
    nodes: Float[Tensor, "batch nodes channels"], tau: float, quantile: float | None
) -> Float[Tensor, "batch 1 1"]:
    """Cosine above which patches of each image are joined.

    Args:
        nodes: patch features.
        tau: it, where ``quantile`` is None.
        quantile: share of the pairs of different patches whose cosine is not above it. The threshold lies midway
            between the two cosines that it separates, so that rounding joins no pair and parts none.
    """
    count = nodes.shape[1]
    if quantile is None or count < 2:
        return nodes.new_full((len(nodes), 1, 1), tau)
    first, second = torch.triu_indices(count, count, offset=1, device=nodes.device)
    pairs = cosine_matrix(nodes)[:, first, second]
    below = min(max(int(quantile * pairs.shape[1]), 1), pairs.shape[1])
    last, following = (pairs.kthvalue(rank, dim=1).values for rank in (below, min(below + 1, pairs.shape[1])))
    return ((last + following) / 2)[:, None, None]


def binary_affinity(
    nodes: Float[Tensor, "batch nodes channels"], threshold: Float[Tensor, "batch 1 1"], eps: float
) -> Float[Tensor, "batch nodes nodes"]:
    """1 where the cosine of two patches is above the threshold, else ``eps``; in float64."""
    near = cosine_matrix(nodes) > threshold
    return torch.full(near.shape, eps, dtype=torch.float64, device=near.device).masked_fill_(near, 1.0)


def lapack_fiedler_vector(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Second eigenvector v of ``(D − W) v = λ D v``, with the sign that LAPACK's reduction to tridiagonal form leaves.

    Args:
        weights: positive affinities [nodes, nodes] of one image.

    Returns:
        One value a node; zeros for a single node.
    """
    if len(weights) < 2:
        return np.zeros(len(weights))
    scale = weights.sum(axis=1) ** -0.5
    laplacian = weights * -scale[:, None] * scale
    laplacian[np.diag_indices_from(laplacian)] += 1
    # For one vector by inverse iteration, as the generalized problem is solved: drivers that compute all of them leave
    # other signs.
    _, vectors = scipy.linalg.eigh(
        laplacian, subset_by_index=[1, 1], driver="evx", overwrite_a=True, check_finite=False
    )
    found: NDArray[np.float64] = scale * vectors[:, 0]
    return found


def component(mask: NDArray[np.bool_], seed: int) -> NDArray[np.bool_]:
    """Connected part (4 neighbours) of a mask [rows, cols] that holds the patch number ``seed``; empty if none does."""
    parts, _ = scipy.ndimage.label(mask)
    part = parts.flat[seed]
    found: NDArray[np.bool_] = (parts == part) & (part > 0)
    return found


def as_partition(masks: NDArray[np.bool_]) -> Int[Tensor, "rows cols"]:
    """Segments of masks [masks, rows, cols]: all that no mask holds is one, each mask another; earlier masks win."""
    labels = np.zeros(masks.shape[1:], dtype=np.int64)
    for number in range(len(masks), 0, -1):
        labels[masks[number - 1]] = number
    return contiguous(torch.from_numpy(labels)[None])[0]


def objects_at(
    masks: Bool[Tensor, "batch nodes"], seeds: Int[Tensor, " batch"], size: Sequence[int]
) -> Int[Tensor, "batch rows cols"]:
    """Segments of images of ``size`` patches: the part of each mask that is connected to its seed is 1, the rest 0."""
    seeds = seeds.to("cpu", non_blocking=True)  # they are there when the masks are
    on_host = masks.unflatten(1, tuple(size)).cpu().numpy()
    found = [as_partition(component(mask, seed)[None]) for mask, seed in zip(on_host, seeds.tolist(), strict=True)]
    return torch.stack(found).to(masks.device, non_blocking=True)


def check_graph(tau: object, eps: object, tau_quantile: object) -> None:
    """Raise a ValueError that names the first option of the binary graph that is out of range."""
    check_number("tau", tau, -1, 1)
    check_positive("eps", eps)
    check_number("eps", eps, 0, 1)
    if tau_quantile is not None:
        check_number("tau_quantile", tau_quantile, 0, 1)


def unused_threshold(tau_quantile: float | None) -> tuple[str, ...]:
    """Which of the options ``tau`` and ``tau_quantile`` changes nothing; the key of a cell leaves it out."""
    return ("tau_quantile",) if tau_quantile is None else ("tau",)
