"""CLASP: spectral clustering of the plain cosine matrix, the number of segments by eigengap and silhouette."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from diffcut_bench.ncut import cosine_matrix, scaled_cosines
from diffcut_bench.ncut.arguments import check_count, check_number, check_positive, check_seed
from diffcut_bench.segmenters.kmeans import KMeans
from diffcut_bench.segmenters.spectral_embedding import cut_each


@dataclass(frozen=True)
class Clasp:
    """k-means of the rows, at norm 1, of the first K eigenvectors of ``max(cosine, 0)`` (Curie & da Costa, 2025).

    The `elbow` of the eigengaps gives K_opt; of all K from ``⌊K_opt (1 − beta)⌋`` to ``⌈K_opt (1 + beta)⌉``, held in a
    range, the one of greatest `silhouette` wins. The affinity is not normalised by degrees. arXiv 2509.25016; its code
    could not be had. The range is that of github.com/Michael-S-Phillips/desert-patterns, the starts of k-means are
    ours. Its DenseCRF is no part of this.

    Args:
        beta: half the width of the search around K_opt, as a share of it; in [0, 1].
        min_clusters: least K that is tried; at most as many as patches.
        max_clusters: greatest K that is tried.
        seeds, seed: of k-means; see `KMeans`.
        max_memory_gib: an image whose spectrum needs more is refused.

    Raises:
        ValueError: an argument is out of range.
    """

    beta: float = 0.5
    min_clusters: int = 2
    max_clusters: int = 15
    seeds: int = 10
    seed: int = 0
    max_memory_gib: float = 4

    def __post_init__(self) -> None:
        check_number("beta", self.beta, 0, 1)
        check_count("min_clusters", self.min_clusters, 2)
        check_count("max_clusters", self.max_clusters, self.min_clusters)
        check_count("seeds", self.seeds, 1)
        check_seed(self.seed)
        check_positive("max_memory_gib", self.max_memory_gib)

    def __call__(self, features: Float[Tensor, "batch channels rows cols"]) -> Int[Tensor, "batch rows cols"]:
        """Partition of each feature map; one of equal patches is one segment."""
        return cut_each(features, self._cut, self.max_memory_gib)

    def _cut(self, patches: Float[Tensor, "nodes channels"]) -> Int[Tensor, " nodes"]:
        values, vectors = torch.linalg.eigh(cosine_matrix(patches[None])[0].clamp_min(0))
        most = min(self.max_clusters, len(patches))
        least = min(self.min_clusters, most)
        optimum = elbow(values.flip(0))
        low, high = math.floor(optimum * (1 - self.beta)), math.ceil(optimum * (1 + self.beta))
        tried, scores = [], []
        for clusters in range(min(max(low, least), most), min(max(high, least), most) + 1):
            rows = normalize(vectors[:, -clusters:], dim=1)
            tried.append(KMeans(seeds=self.seeds, seed=self.seed).cluster(rows, clusters))
            scores.append(silhouette(rows, tried[-1], clusters))
        labels = torch.stack(tried)[torch.stack(scores).argmax()]
        return labels.masked_fill((scaled_cosines(patches[None]) == 1).all(), 0)


def elbow(values: Float[Tensor, " nodes"]) -> int:
    """One more than the place of the eigengap that lies farthest from the line through the first and the last one.

    Args:
        values: eigenvalues, descending.

    Returns:
        K_opt, at least 2; gap i, counted from 1, is that between eigenvalues i and i + 1.
    """
    if len(values) < 3:
        return 2
    gaps = values[:-1] - values[1:]
    # Distances to one line differ from vertical ones by one factor.
    line = torch.linspace(0, 1, len(gaps), dtype=gaps.dtype, device=gaps.device) * (gaps[-1] - gaps[0]) + gaps[0]
    return int((gaps - line).abs().argmax()) + 2


def silhouette(
    points: Float[Tensor, "points channels"], labels: Int[Tensor, " points"], clusters: int
) -> Float[Tensor, ""]:
    """Mean silhouette (Rousseeuw 1987) of Euclidean distances: how much nearer its own cluster is than the next one.

    Args:
        points: of any dimension.
        labels: cluster of each, below ``clusters``; some may be unused.
        clusters: their number.

    Returns:
        In [-1, 1]; a point that is alone in its cluster counts 0. Minus infinity where all are in one cluster.
    """
    members = one_hot(labels, clusters).to(points.dtype)
    sizes = members.sum(dim=0)
    sums = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist") @ members
    own = labels[:, None]
    others = sizes[labels] - 1
    within = sums.gather(1, own)[:, 0] / others.clamp_min(1)
    means = (sums / sizes.clamp_min(1)).masked_fill(sizes == 0, torch.inf)
    nearest = means.scatter(1, own, torch.inf).amin(dim=1)
    widths = (nearest - within) / torch.maximum(nearest, within).clamp_min(torch.finfo(points.dtype).tiny)
    mean = widths.masked_fill(others == 0, 0).mean()
    return mean.masked_fill((sizes > 0).sum() < 2, -torch.inf)
