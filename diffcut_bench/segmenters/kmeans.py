"""k-means of patch features: Lloyd's iteration from several k-means++ starts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize, one_hot, pad

from diffcut_bench.ncut.affinity import unit_features
from diffcut_bench.ncut.arguments import as_nodes, check_count, check_seed
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
        check_seed(self.seed)
        check_count("iterations", self.iterations, 1)

    def __call__(
        self, features: Float[Tensor, "batch channels rows cols"], class_counts: Sequence[int] | None = None
    ) -> Int[Tensor, "batch rows cols"]:
        """Partition of each feature map; fewer segments than clusters where fewer patches differ."""
        patches = as_nodes(features)
        if self.spherical:
            patches = unit_features(patches)
        counts = self.cluster_counts(len(patches), class_counts)
        # The CPU is through with an image when its own starts are.
        together = 1 if patches.device.type == "cpu" else len(patches)
        labels = [
            self.cluster_together(patches[first : first + together], counts[first : first + together])
            for first in range(0, len(patches), together)
        ]
        return torch.cat(labels).unflatten(1, features.shape[2:])

    def cluster(self, points: Float[Tensor, "points channels"], clusters: int) -> Int[Tensor, " points"]:
        """`cluster_together` of one image."""
        return self.cluster_together(points[None], [clusters])[0]

    def cluster_together(
        self, points: Float[Tensor, "batch points channels"], clusters: Sequence[int]
    ) -> Int[Tensor, "batch points"]:
        """Clusters of least inertia (sum of squared distances to the centres) among several starts, all run together.

        Args:
            points: of each image; at norm 1 if ``spherical``.
            clusters: of each image, in place of the option.

        Returns:
            Cluster ids, contiguous from 0 within each image.
        """
        counts = [min(count, points.shape[1]) for count in clusters]
        starts = [
            pad(first_centres(image, count, self.seeds, self.seed), (0, max(counts) - count))
            for image, count in zip(points.cpu(), counts, strict=True)
        ]
        image = torch.arange(len(points), device=points.device)
        centres = points[image[:, None, None], torch.stack(starts).to(points.device, non_blocking=True)]
        spare = None  # which of an image's centres are none, where others have more clusters
        if min(counts) < max(counts):
            spare = torch.arange(max(counts)) >= torch.tensor(counts)[:, None]
            spare = spare.to(points.device, non_blocking=True)
        before = None
        for _ in range(self.iterations):
            distance, labels = _nearest(points, centres, spare)
            labels = _fill_empty(labels, distance, centres.shape[2], spare)
            # What is at rest stays so while other starts and images move.
            if before is not None and torch.equal(labels, before):
                break
            before = labels
            # batch × seeds × clusters × points
            members = one_hot(labels, centres.shape[2]).mT.to(points.dtype)
            sizes = members.sum(dim=3, keepdim=True)
            sums = _product(members.flatten(1, 2), points).view_as(centres)
            centres = torch.where(sizes > 0, sums / sizes.clamp_min(1), centres)
            if self.spherical:
                centres = normalize(centres, dim=3)
        distance, labels = _nearest(points, centres, spare)
        return contiguous(labels[image, distance.sum(dim=2).argmin(dim=1)], centres.shape[2])


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
        nearest = nearest.minimum(squared_distances(host[None], host[None, chosen[-1], None])[0, :, :, 0])
        # Where every point is a centre already, any will do.
        chance = nearest.masked_fill(nearest.sum(dim=1, keepdim=True) == 0, 1.0).cumsum(dim=1)
        drawn = torch.searchsorted(chance, draw[:, None] * chance[:, -1:], right=True)
        chosen.append(drawn[:, 0].clamp_max(len(host) - 1))
    return torch.stack(chosen, dim=1).to(points.device)


def squared_distances(
    points: Float[Tensor, "batch points channels"], centres: Float[Tensor, "batch seeds clusters channels"]
) -> Float[Tensor, "batch seeds points clusters"]:
    """Of every point of an image to every centre of every start, in one product of matrices."""
    products = _product(points, centres.flatten(1, 2).mT).unflatten(2, centres.shape[1:3]).transpose(1, 2)
    squares = points.square().sum(dim=2)[:, None, :, None] + centres.square().sum(dim=3)[:, :, None]
    return (squares - 2 * products).clamp_min(0)


def _product(first: Tensor, second: Tensor) -> Tensor:
    """Of the matrices of each image; of one image by the plain product, whose rounding is its own."""
    return (first[0] @ second[0])[None] if len(first) == 1 else first @ second


def _nearest(points: Tensor, centres: Tensor, spare: Tensor | None) -> tuple[Tensor, Tensor]:
    """Squared distance of every point to its nearest centre, and the number of that [batch, seeds, points]."""
    distances = squared_distances(points, centres)
    if spare is not None:
        distances = distances.masked_fill(spare[:, None, None], torch.inf)
    distance, labels = distances.min(dim=3)
    return distance, labels


def _fill_empty(
    labels: Int[Tensor, "batch seeds points"],
    distance: Float[Tensor, "batch seeds points"],
    clusters: int,
    spare: Bool[Tensor, "batch clusters"] | None,
) -> Int[Tensor, "batch seeds points"]:
    """Each cluster without points gets one of those farthest from their centres, which only lowers the inertia."""
    used = torch.zeros(*labels.shape[:2], clusters, dtype=torch.bool, device=labels.device).scatter_(2, labels, True)
    if spare is not None:
        used |= spare[:, None]
    empties = used.to(torch.uint8).argsort(dim=2, stable=True)  # first the empty clusters
    farthest, points = distance.topk(clusters, dim=2)
    rank = torch.arange(clusters, device=labels.device)
    takes = (rank < (~used).sum(dim=2, keepdim=True)) & (farthest > 0)
    return labels.scatter(2, points, torch.where(takes, empties, labels.gather(2, points)))
