"""Falcon's first form, as a third party reads its preprint: soft steps on an affinity that they sharpen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from diffcut_bench.ncut import affinity
from diffcut_bench.ncut.affinity import unit_features
from diffcut_bench.ncut.arguments import check_choice, check_count, check_number, check_positive, check_seed
from diffcut_bench.segmenters.kmeans import Clusters, KMeans, TakesClusters
from diffcut_bench.segmenters.spectral_embedding import Spectrum, cut_each

Start = Literal["kmeans", "spectral", "random"]


@dataclass(frozen=True)
class FalconV1(TakesClusters):
    """Soft K-way Normalized Cut of ``W = minmax(cosine) ** alpha + diagonal · D`` by `alternate`.

    The fractional alternating cut of Falcon's first preprint (arXiv 2504.05613), of which no code could be had, in the
    form of github.com/qbit-glitch/unsupervised_panoptic_segmentation, whose constants these are. Three things are ours:
    k-means is Lloyd's instead of by mini-batches, its clusters are softened by the mean of the noise that is added
    there, and an eigenvector has the sign that makes its greatest entry positive.

    Args:
        clusters: K, or ``annotated``: as many as classes are annotated in an image. Some may stay empty.
        alpha: exponent of the affinity, > 0; 4.5 to 5.5 there.
        diagonal: share of a patch's degree that is added to its affinity to itself, in [0, 1]; up to 0.7 there, where
            hardly a patch leaves the segment that the start gave it.
        start: ``kmeans`` of the patches' directions; ``spectral``: the softmax of ten times the eigenvectors of the
            normalised Laplacian after the first; ``random``: uniform.
        iterations: of `alternate`.
        temperature: of its softmax, > 0.
        beta: of its affinity, > 0, or None: the affinity stays.
        seeds: starts of k-means.
        seed: of k-means and of the random start.
        max_memory_gib: an image whose matrices need more is refused.

    Raises:
        ValueError: an argument is out of range.
    """

    clusters: Clusters = 27
    alpha: float = 4.5
    diagonal: float = 0
    start: Start = "kmeans"
    iterations: int = 15
    temperature: float = 1
    beta: float | None = 0.5
    seeds: int = 3
    seed: int = 0
    max_memory_gib: float = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("alpha", "temperature", "max_memory_gib"):
            check_positive(name, getattr(self, name))
        if self.beta is not None:
            check_positive("beta, if not null,", self.beta)
        check_number("diagonal", self.diagonal, 0, 1)
        check_choice("start", self.start, get_args(Start))
        check_count("iterations", self.iterations, 0)
        check_count("seeds", self.seeds, 1)
        check_seed(self.seed)

    @property
    def immaterial(self) -> tuple[str, ...]:
        if self.start == "kmeans":
            return ()
        return ("seeds",) if self.start == "random" else ("seeds", "seed")

    def __call__(
        self, features: Float[Tensor, "batch channels rows cols"], class_counts: Sequence[int] | None = None
    ) -> Int[Tensor, "batch rows cols"]:
        """Partition of each feature map; one of equal patches is one segment."""
        counts = self.cluster_counts(len(features), class_counts)
        return cut_each(features, self._cut, self.max_memory_gib, counts)

    def _cut(self, patches: Float[Tensor, "nodes channels"], clusters: int) -> Int[Tensor, " nodes"]:
        clusters = min(clusters, len(patches))
        if clusters == 1:
            return torch.zeros(len(patches), dtype=torch.long, device=patches.device)
        weights = affinity(patches[None], self.alpha)[0]
        equal = weights.amin() == 1
        weights.diagonal().add_(self.diagonal * weights.sum(dim=1))
        start = self._start(patches, weights, clusters)
        labels = alternate(weights, start, self.iterations, self.temperature, self.beta).argmax(dim=1)
        return labels.masked_fill(equal, 0)

    def _start(self, patches: Tensor, weights: Tensor, clusters: int) -> Float[Tensor, "nodes clusters"]:
        """The soft assignment that the steps begin with."""
        if self.start == "kmeans":
            labels = KMeans(seeds=self.seeds, seed=self.seed).cluster(unit_features(patches[None])[0], clusters)
            assignment = one_hot(labels, clusters).to(weights.dtype) + 0.025
        elif self.start == "spectral":
            first = min(1, len(patches) - clusters)
            vectors = Spectrum.of(weights).vectors[:, first : first + clusters]
            vectors = weights.sum(dim=1).sqrt()[:, None] * vectors  # of norm 1
            peak = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True))
            return (10 * peak.sign() * vectors).softmax(dim=1)
        else:
            generator = torch.Generator().manual_seed(self.seed)
            assignment = torch.rand(len(patches), clusters, generator=generator, dtype=patches.dtype)
            assignment = assignment.to(patches.device, non_blocking=True)
        return assignment / assignment.sum(dim=1, keepdim=True)


def alternate(
    weights: Float[Tensor, "nodes nodes"],
    assignment: Float[Tensor, "nodes clusters"],
    iterations: int,
    temperature: float = 1,
    beta: float | None = 0.5,
) -> Float[Tensor, "nodes clusters"]:
    """Alternate between a soft assignment X and the affinities W that it sharpens.

    With D the degrees of W and ``y_k = sqrt(x_kᵀWx_k / x_kᵀDx_k)``, a step scores cluster k for node i by
    ``(WX)_ik / (Σ_j X_jk d_j) · y_k``. A node's scores, less their mean and divided by their standard deviation (plus
    1e-8), go through a softmax and are the new X. Then ``W_ij`` is multiplied by ``exp(−(1 − cos(X_i, X_j))² / beta)``.

    Args:
        weights: symmetric affinities; stay as they are.
        assignment: start; rows of sum 1, of at least two clusters.
        iterations: steps.
        temperature: of the softmax.
        beta: None: W stays.

    Returns:
        Soft assignment; rows of sum 1.
    """
    tiny = torch.finfo(weights.dtype).tiny
    for _ in range(iterations):
        degree = weights.sum(dim=1)
        links = weights @ assignment
        ratio = (assignment * links).sum(dim=0) / (assignment.square().mT @ degree).clamp_min(tiny)
        scores = links / (assignment.mT @ degree).clamp_min(tiny) * ratio.sqrt()
        scores = scores - scores.mean(dim=1, keepdim=True)
        scores = scores / (scores.std(dim=1, keepdim=True) + 1e-8)
        assignment = (scores / temperature).softmax(dim=1)
        if beta is not None:
            unit = normalize(assignment, dim=1)
            weights = weights * torch.exp(-((1 - unit @ unit.mT) ** 2) / beta)
    return assignment
