"""Clusters of the segments of all images: spherical k-means of their prototypes."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from diffcut_bench.ncut.arguments import check_count, check_number
from diffcut_bench.segmenters import KMeans

_STARTS = 5  # of each clustering, of which the best is taken: of a single one many miss what is plain to see
_LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class KMeansLinker:
    """Clusters prototypes by spherical k-means, as PiCIE (Cho et al., CVPR 2021) and CUPS (Hahn et al., CVPR 2025)
    cluster features of a whole data set before its one matching.

    Args:
        clusters: None: as many as classes.
        seeds: clusterings, each the best of five k-means++ starts of its own.
        seed: of the first clustering; the others' follow.

    Raises:
        ValueError: an argument is out of range.
    """

    clusters: int | None = None
    seeds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.clusters is not None:
            check_count("clusters, if not null,", self.clusters, 1)
        check_count("seeds", self.seeds, 1)
        check_count("seed", self.seed, 0)
        check_number("seed", self.seed, 0, _LARGEST_SEED)

    def __call__(
        self, prototypes: Float[Tensor, "segments channels"], num_classes: int
    ) -> Int[Tensor, "seeds segments"]:
        """Cluster of each segment in each clustering; fewer clusters where there are fewer segments.

        No order of the segments changes what belongs together, nor the number that it gets.
        """
        clusters = min(self.clusters or num_classes, len(prototypes))
        # In an order that only their contents decide; those that are equal have one place, and are one cluster.
        _, place = prototypes.float().unique(dim=0, return_inverse=True)
        order = place.argsort(stable=True)
        points = normalize(prototypes[order].float(), dim=1)
        found = []
        for seed in range(self.seed, self.seed + self.seeds):
            labels = KMeans(clusters, spherical=True, seeds=_STARTS, seed=seed).cluster(points, clusters)
            found.append(torch.empty_like(order).scatter_(0, order, labels))
        return torch.stack(found)
