"""Spectra of patch graphs, and partitions that are read from several eigenvectors at once.

Knows tensors; scipy does the pivoting on the host.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffcut_bench.ncut.arguments import as_nodes
from diffcut_bench.ncut.memory import GraphTooLargeError, check_fits
from diffcut_bench.ncut.tree import contiguous


class SpectrumTooLargeError(GraphTooLargeError):
    """The spectrum of one image does not fit in ``max_memory_gib``."""


@dataclass(frozen=True)
class Spectrum:
    """Eigenpairs of the symmetric normalised Laplacian ``D^-1/2 (D − W) D^-1/2`` of one graph.

    Attributes:
        values: ascending, in [0, 2].
        vectors: in columns, ``D^-1/2 u``: the relaxed indicators of Normalized Cut. 0 for isolated nodes.
    """

    values: Float[Tensor, " nodes"]
    vectors: Float[Tensor, "nodes nodes"]

    @classmethod
    def of(cls, weights: Float[Tensor, "nodes nodes"]) -> "Spectrum":
        """The whole spectrum of symmetric non-negative affinities; an isolated node has eigenvalue 1."""
        degree = weights.sum(dim=1)
        scale = torch.where(degree > 0, degree.clamp_min(torch.finfo(degree.dtype).tiny).rsqrt(), 0.0)
        laplacian = -scale[:, None] * weights * scale
        laplacian.diagonal().add_(1)
        values, vectors = torch.linalg.eigh(laplacian)
        return cls(values.clamp_min(0), scale[:, None] * vectors)  # rounding makes zeros negative


def check_spectrum_fits(patches: Float[Tensor, "batch nodes channels"], limit_gib: float) -> None:
    """Refuse images whose spectrum needs more memory than the limit, as `check_fits` does.

    Raises:
        SpectrumTooLargeError: with the estimate.
    """
    try:
        check_fits(patches.shape[1], patches.element_size(), "eigh", limit_gib)
    except GraphTooLargeError as error:
        raise SpectrumTooLargeError(*error.args) from None


def cut_each(
    features: Float[Tensor, "batch channels rows cols"],
    cut: Callable[..., Int[Tensor, " nodes"]],
    limit_gib: float,
    *of_each: Sequence[Any],
) -> Int[Tensor, "batch rows cols"]:
    """Partition of each feature map: what ``cut`` gives for its patches, numbered from 0 without gaps.

    Args:
        features: maps.
        cut: is called with the patches [nodes, channels] of one map.
        limit_gib: memory that a map's spectrum may take.
        of_each: further arguments of it, a value for each map.

    Raises:
        ValueError: the features hold NaN or infinity.
        SpectrumTooLargeError: the spectrum of one map needs more memory than the limit.
    """
    patches = as_nodes(features)
    check_spectrum_fits(patches, limit_gib)
    labels = torch.stack([cut(image, *own) for image, *own in zip(patches, *of_each, strict=True)])
    return contiguous(labels, patches.shape[1]).unflatten(1, features.shape[2:])


def cluster_by_pivoted_qr(embedding: Float[Tensor, "nodes clusters"]) -> Int[Tensor, " nodes"]:
    """Clusters of rows by column-pivoted QR (Damle, Minden, Ying 2019, algorithm 1).

    The pivots are rows in as different directions as can be, one a cluster. The rotation nearest to them turns the
    embedding so that each cluster lies along an axis; a row belongs to the axis on which it is longest.

    Args:
        embedding: as many eigenvectors as clusters, at most as many as nodes. No start, no random numbers; a rotation
            of it changes nothing.

    Returns:
        Cluster of each row; a number may stay unused.
    """
    rows = embedding.cpu().double().numpy()
    _, pivots = scipy.linalg.qr(rows.T, mode="r", pivoting=True)
    left, _, right = np.linalg.svd(rows[pivots[: rows.shape[1]]].T)
    return torch.from_numpy(np.abs(rows @ left @ right).argmax(axis=1)).to(embedding.device, non_blocking=True)
