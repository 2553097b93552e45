"""Discrete K-way Normalized Cut without recursion, by proximal gradient ascent on one-hot assignments."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffcut_bench.ncut import cosine_matrix
from diffcut_bench.ncut.arguments import check_choice, check_count, check_number, check_positive
from diffcut_bench.segmenters.spectral_embedding import Spectrum, cluster_by_pivoted_qr, cut_each

Volume = Literal["quadratic", "linear"]

# Step lengths, in units of the one at which the first node moves; the last moves little more than that one.
_STEPS = (*(2.0**power for power in range(10, 0, -1)), 1.01)


@dataclass(frozen=True)
class KWayNCut:
    """K-way Normalized Cut of ``max(cosine, 0) ** alpha``: ours, of the kind of `Falcon`.

    K is the number of eigenvalues of the normalised Laplacian below ``kappa``; the spectral partition into K
    (column-pivoted QR) is the start of `ascend`. Three things differ from `Falcon`: negative cosines become 0 instead
    of a scale from the least to the greatest cosine; K is not held in a range; and a step is shortened from the
    length at which nearly all nodes move, until the objective rises at all.

    Args:
        kappa: in (0, 2]; greater gives more segments.
        alpha: exponent of the affinity, > 0.
        volume: how the gradient sees a segment's volume, see `Association.gradient`: ``quadratic`` as published;
            ``linear`` is seldom stuck at the start.
        iterations: of the ascent, at most.
        max_memory_gib: an image whose spectrum needs more is refused.

    Raises:
        ValueError: an argument is out of range.
    """

    kappa: float = 0.5
    alpha: float = 10
    volume: Volume = "quadratic"
    iterations: int = 100
    max_memory_gib: float = 4

    def __post_init__(self) -> None:
        check_positive("kappa", self.kappa)
        check_number("kappa", self.kappa, 0, 2)
        check_positive("alpha", self.alpha)
        check_positive("max_memory_gib", self.max_memory_gib)
        check_choice("volume", self.volume, get_args(Volume))
        check_count("iterations", self.iterations, 0)

    def __call__(self, features: Float[Tensor, "batch channels rows cols"]) -> Int[Tensor, "batch rows cols"]:
        """Partition of each feature map."""
        return cut_each(features, self._cut, self.max_memory_gib)

    def _cut(self, patches: Float[Tensor, "nodes channels"]) -> Int[Tensor, " nodes"]:
        # Dissimilar patches attract each other no more than unrelated ones, whether alpha is odd or even.
        weights = cosine_matrix(patches[None])[0].clamp_min(0).pow(self.alpha)
        spectrum = Spectrum.of(weights)
        clusters = max(int((spectrum.values < self.kappa).sum()), 1)
        start = cluster_by_pivoted_qr(spectrum.vectors[:, :clusters])
        return ascend(weights, start, self.iterations, self.volume)


@dataclass(frozen=True)
class Association:
    """What K segments of a graph hold together; K minus the sum of their ratios is their K-way Normalized Cut.

    Attributes:
        members: the assignment X, one-hot.
        links: affinity of each node to each segment.
        volume: sum of degrees of each segment.
        within: affinity inside each segment.
    """

    members: Float[Tensor, "nodes clusters"]
    links: Float[Tensor, "nodes clusters"]
    volume: Float[Tensor, " clusters"]
    within: Float[Tensor, " clusters"]

    @classmethod
    def of(cls, weights: Float[Tensor, "nodes nodes"], labels: Int[Tensor, " nodes"], clusters: int) -> "Association":
        """Of a partition whose labels are below ``clusters``; segments may be empty."""
        members = torch.nn.functional.one_hot(labels, clusters).to(weights.dtype)
        links = weights @ members
        return cls(members, links, links.sum(dim=0), (members * links).sum(dim=0))

    @property
    def objective(self) -> float:
        """Sum over segments of ``xᵀWx / xᵀDx``, in [0, K]; an empty one adds nothing."""
        return float((self.within / self._divisor).sum())

    def gradient(self, degree: Float[Tensor, " nodes"], volume: Volume) -> Float[Tensor, "nodes clusters"]:
        """Of the objective by each entry of the assignment; 0 for an empty segment.

        With v the volumes and q the affinities within, it is ``2 (WX / v − DX q / v²)`` for the ``quadratic`` volume
        ``xᵀDx``, which tells a node nothing of what it would add to another segment's volume. For the ``linear`` volume
        ``dᵀx``, the same on one-hot assignments, it is ``2 WX / v − d q / v²``: to first order, what a move gains.
        """
        growth = 2 * degree[:, None] * self.members if volume == "quadratic" else degree[:, None]
        return 2 * self.links / self._divisor - growth * self.within / self._divisor**2

    @property
    def _divisor(self) -> Tensor:
        return self.volume.masked_fill(self.volume == 0, torch.inf)


Attempts = Callable[[Float[Tensor, " nodes"]], Iterator[tuple[Bool[Tensor, " nodes"], float]]]
"""Of what each node gains to first order: the steps to try, in order. A step is which nodes move, and the rise of the
objective that each of them has to bring for it to be taken."""


def by_step_length(gain: Float[Tensor, " nodes"]) -> Iterator[tuple[Bool[Tensor, " nodes"], float]]:
    """Steps from one that moves nearly all nodes to one that moves hardly more than the first; any rise will do."""
    greatest = gain.max()
    for step in _STEPS:
        yield step * gain > greatest, 0


def ascend(
    weights: Float[Tensor, "nodes nodes"],
    labels: Int[Tensor, " nodes"],
    iterations: int,
    volume: Volume = "quadratic",
    attempts: Attempts = by_step_length,
) -> Int[Tensor, " nodes"]:
    """Raise `Association.objective` by proximal steps on one-hot assignments; it never falls.

    A step of length t takes each row's largest entry of ``X + t·gradient``: a node moves where that gains it more than
    1 / t. Steps are shortened until the objective rises, and it ends when none does.

    Args:
        weights: symmetric affinities.
        labels: start.
        iterations: at most.
        volume: see `Association.gradient`.
        attempts: how a step is shortened.

    Returns:
        Labels of the start's range; some may have become unused.
    """
    clusters, degree = int(labels.max()) + 1, weights.sum(dim=1)
    now = Association.of(weights, labels, clusters)
    reached = now.objective
    least_rise = 16 * torch.finfo(weights.dtype).eps * clusters  # less is rounding
    for _ in range(iterations):
        gradient = now.gradient(degree, volume)
        gain, target = (gradient - gradient.gather(1, labels[:, None])).max(dim=1)
        for moves, asked in attempts(gain):
            moved = torch.where(moves, target, labels)
            then = Association.of(weights, moved, clusters)
            objective = then.objective
            risen = objective > reached + least_rise
            if risen and (not asked or objective - reached >= asked * int(moves.sum())):
                labels, now, reached = moved, then, objective
                break
        else:
            break
    return labels
