"""K-way Normalized Cut by spectral relaxation, with a given number of segments."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffcut_bench.ncut import affinity
from diffcut_bench.ncut.arguments import check_choice, check_count, check_positive
from diffcut_bench.segmenters.kmeans import Clusters, KMeans, TakesClusters
from diffcut_bench.segmenters.spectral_embedding import Spectrum, cluster_by_pivoted_qr, cut_each

Discretisation = Literal["qr", "kmeans"]


@dataclass(frozen=True)
class Spectral(TakesClusters):
    """The first K eigenvectors of the normalised Laplacian of ``minmax(cosine) ** alpha``, made K clusters of patches.

    Args:
        clusters: K, or ``annotated``: as many as classes are annotated in an image; at most as many as patches.
        alpha: exponent of the affinity, > 0.
        discretisation: ``qr``: column-pivoted QR (Damle, Minden, Ying 2019), without random numbers; ``kmeans``: of
            the patches' directions in the embedding (Ng, Jordan, Weiss 2001).
        seeds, seed: of ``kmeans``; see `KMeans`.
        max_memory_gib: an image whose spectrum needs more is refused.

    Raises:
        ValueError: an argument is out of range.
    """

    clusters: Clusters = 6
    alpha: float = 10
    discretisation: Discretisation = "qr"
    seeds: int = 10
    seed: int = 0
    max_memory_gib: float = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("alpha", self.alpha)
        check_positive("max_memory_gib", self.max_memory_gib)
        check_choice("discretisation", self.discretisation, get_args(Discretisation))
        check_count("seeds", self.seeds, 1)

    def __call__(
        self, features: Float[Tensor, "batch channels rows cols"], class_counts: Sequence[int] | None = None
    ) -> Int[Tensor, "batch rows cols"]:
        """Partition of each feature map."""
        counts = self.cluster_counts(len(features), class_counts)
        return cut_each(features, self._cut, self.max_memory_gib, counts)

    def _cut(self, patches: Float[Tensor, "nodes channels"], clusters: int) -> Int[Tensor, " nodes"]:
        embedding = Spectrum.of(affinity(patches[None], self.alpha)[0]).vectors[:, :clusters]
        if self.discretisation == "qr":
            return cluster_by_pivoted_qr(embedding)
        directions = torch.nn.functional.normalize(embedding, dim=1)
        return KMeans(seeds=self.seeds, seed=self.seed).cluster(directions, clusters)
