"""Spectra of patch graphs, and partitions that are read from several eigenvectors at once.

Knows tensors; scipy does the pivoting on the host.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffcut_bench.ncut import GraphTooLargeError, needed_gib
from diffcut_bench.ncut.fiedler import DENSE_UP_TO
from diffcut_bench.ncut.memory import matrix_gib
from diffcut_bench.ncut.recursive import check_features


class SpectrumTooLargeError(GraphTooLargeError):
    """The spectrum of one image does not fit in ``max_memory_gib``."""

    hint = "raise segmenter.max_memory_gib, use a smaller protocol.image_size, or segmenter=diffcut"


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


def patches_of(features: Float[Tensor, "batch channels rows cols"]) -> Float[Tensor, "batch nodes channels"]:
    """Patches of feature maps in reading order, in float32 or float64.

    Raises:
        ValueError: the features hold NaN or infinity.
    """
    patches = features.flatten(2).mT
    check_features(patches)
    return patches if patches.dtype in (torch.float32, torch.float64) else patches.float()


def check_spectrum_fits(patches: Float[Tensor, "batch nodes channels"], limit_gib: float) -> None:
    """Refuse images whose spectrum needs more memory than the limit; up to `DENSE_UP_TO` patches are always taken.

    Raises:
        SpectrumTooLargeError: with the estimate.
    """
    nodes, size = patches.shape[1], patches.element_size()
    needed = needed_gib(nodes, size, "eigh")
    if nodes > DENSE_UP_TO and needed > limit_gib:
        raise SpectrumTooLargeError(nodes, matrix_gib(nodes, size), needed, limit_gib)


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
    return torch.from_numpy(np.abs(rows @ left @ right).argmax(axis=1)).to(embedding.device)


def contiguous(labels: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """The same partition, numbered from 0 without gaps."""
    return labels.unique(return_inverse=True)[1]
