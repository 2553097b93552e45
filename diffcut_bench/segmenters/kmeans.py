"""k-means of patch features: Lloyd's iteration from several k-means++ starts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffcut_bench.ncut.affinity import unit_features
from diffcut_bench.ncut.arguments import as_nodes, check_count
from diffcut_bench.ncut.tree import contiguous

Clusters = int | Literal["annotated"]


class TakesClusters:
    """A segmenter whose option ``clusters`` says how many: in each image, or ``annotated``, as many as its classes.

    Raises:
        ValueError: it is no such number.
    """

    clusters: Clusters

    def __post_init__(self) -> None:
        if self.clusters != "annotated":
            check_count("clusters, if not annotated,", self.clusters, 1)

    @property
    def needs(self) -> tuple[str, ...]:
        return ("features", "class_counts") if self.clusters == "annotated" else ("features",)

    def cluster_counts(self, images: int, class_counts: Sequence[int] | None) -> Sequence[int]:
        """Clusters of each image.

        Raises:
            ValueError: they are to be ``annotated``, and no annotation is at hand.
        """
        if isinstance(self.clusters, int):
            return [self.clusters] * images
        if class_counts is None:
            raise ValueError("clusters=annotated needs the number of classes annotated in each image")
        return class_counts


@dataclass(frozen=True)
class KMeans(TakesClusters):
    """k-means on a feature map (DiffCut, table 9).

    Args:
        clusters: in each image, or ``annotated``: as many as classes are annotated in it (K*).
        spherical: by direction instead of by position: patches and centres at norm 1.
        seeds: starts, of which the one of least inertia wins.
        seed: of the starts.
        iterations: at most.

    Raises:
        ValueError: an argument is out of range.
    """

    clusters: Clusters = "annotated"
    spherical: bool = False
    seeds: int = 10
    seed: int = 0
    iterations: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("seeds", self.seeds, 1)
        check_count("iterations", self.iterations, 1)

    def __call__(
        self, features: Float[Tensor, "batch channels rows cols"], class_counts: Sequence[int] | None = None
    ) -> Int[Tensor, "batch rows cols"]:
        """Partition of each feature map; fewer segments than clusters where fewer patches differ."""
        patches = as_nodes(features)
        if self.spherical:
            patches = unit_features(patches)
        counts = self.cluster_counts(len(patches), class_counts)
        labels = [self.cluster(image, count) for image, count in zip(patches, counts, strict=True)]
        return torch.stack(labels).unflatten(1, features.shape[2:])

    def cluster(self, points: Float[Tensor, "points channels"], clusters: int) -> Int[Tensor, " points"]:
        """Clusters of least inertia (sum of squared distances to the centres) among several starts, all run together.

        Args:
            points: of one image; at norm 1 if ``spherical``.
            clusters: in place of the option.

        Returns:
            Cluster ids, contiguous from 0.
        """
        centres = points[first_centres(points, min(clusters, len(points)), self.seeds, self.seed)]
        before = None
        for _ in range(self.iterations):
            distance, labels = squared_distances(points, centres).min(dim=2)
            labels = _fill_empty(labels, distance, centres.shape[1])
            if before is not None and torch.equal(labels, before):
                break
            before = labels
            # seeds × clusters × points
            members = torch.nn.functional.one_hot(labels, centres.shape[1]).mT.to(points.dtype)
            sizes = members.sum(dim=2, keepdim=True)
            centres = torch.where(sizes > 0, members @ points / sizes.clamp_min(1), centres)
            if self.spherical:
                centres = torch.nn.functional.normalize(centres, dim=2)
        distance, labels = squared_distances(points, centres).min(dim=2)
        return contiguous(labels[distance.sum(dim=1).argmin()][None])[0]


def first_centres(
    points: Float[Tensor, "points channels"], clusters: int, seeds: int, seed: int
) -> Int[Tensor, "seeds clusters"]:
    """Indices of the first centres, by k-means++ (Arthur & Vassilvitskii 2007): far from those drawn before.

    Computed on the host in float64, so that they are the same on every device.
    """
    draws = torch.rand(clusters, seeds, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    host = points.cpu().double()
    chosen = [(draws[0] * len(host)).long()]
    nearest = torch.full((seeds, len(host)), torch.inf, dtype=torch.float64)
    for draw in draws[1:]:
        nearest = nearest.minimum(squared_distances(host, host[chosen[-1]][:, None])[:, :, 0])
        # Where every point is a centre already, any will do.
        chance = nearest.masked_fill(nearest.sum(dim=1, keepdim=True) == 0, 1.0).cumsum(dim=1)
        drawn = torch.searchsorted(chance, draw[:, None] * chance[:, -1:], right=True)
        chosen.append(drawn[:, 0].clamp_max(len(host) - 1))
    return torch.stack(chosen, dim=1).to(points.device)


def squared_distances(
    points: Float[Tensor, "points channels"], centres: Float[Tensor, "seeds clusters channels"]
) -> Float[Tensor, "seeds points clusters"]:
    """Of every point to every centre of every start, in one product of matrices."""
    products = (points @ centres.flatten(0, 1).T).unflatten(1, centres.shape[:2]).transpose(0, 1)
    squares = points.square().sum(dim=1)[:, None] + centres.square().sum(dim=2)[:, None]
    return (squares - 2 * products).clamp_min(0)


def _fill_empty(
    labels: Int[Tensor, "seeds points"], distance: Float[Tensor, "seeds points"], clusters: int
) -> Int[Tensor, "seeds points"]:
    """Each cluster without points gets one of those farthest from their centres, which only lowers the inertia."""
    used = torch.zeros(len(labels), clusters, dtype=torch.bool, device=labels.device).scatter_(1, labels, True)
    empties = used.to(torch.uint8).argsort(dim=1, stable=True)  # first the empty clusters
    farthest, points = distance.topk(clusters, dim=1)
    rank = torch.arange(clusters, device=labels.device)
    takes = (rank < (~used).sum(dim=1, keepdim=True)) & (farthest > 0)
    return labels.scatter(1, points, torch.where(takes, empties, labels.gather(1, points)))
