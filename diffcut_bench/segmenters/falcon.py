"""Falcon: discrete K-way Normalized Cut by proximal steps with monotone backtracking, K by the spectrum."""

from collections.abc import Iterator
from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffcut_bench.ncut import affinity
from diffcut_bench.ncut.arguments import check_count, check_number, check_positive
from diffcut_bench.segmenters.kway_ncut import ascend
from diffcut_bench.segmenters.spectral_embedding import Spectrum, cluster_by_pivoted_qr, cut_each


@dataclass(frozen=True)
class Falcon:
    """K-way Normalized Cut of ``minmax(cosine) ** alpha`` (Zhang et al., ICLR 2026).

    With X the one-hot assignment, D the degrees, v_k the volume ``x_kᵀDx_k`` and q_k the association ``x_kᵀWx_k`` of
    segment k, ``f(X) = Σ_k q_k / v_k`` is raised: each node takes the segment of greatest ``μ_ik + τ·X_ik``, where
    ``μ = 2 (WX / v − DX q / v²)`` is the gradient of f and τ, the inertia, favours the segment that the node has. A
    step starts with τ = ``tau0`` and is taken if f rises by at least ``delta · τ / 2 · ‖ΔX‖²``; else τ is multiplied by
    ``gamma``. It ends when no node moves any more. Segments may become empty.

    Its code could not be had, and what could be had of its text leaves open: the values of all constants, which are
    ours, and the start, which is ours too: the spectral partition by column-pivoted QR, of greater f on seven of eight
    photographs than what k-means or a random start becomes. The eigenvalues are those of the normalised Laplacian; the
    paper has a negative threshold, so perhaps of ``−D^-1/2 W D^-1/2``, whose eigenvalues are less by 1. A rise of f by
    no more than its rounding is none.

    Args:
        kappa: K is the number of eigenvalues below it; in (0, 2].
        alpha: exponent of the affinity, > 0.
        min_clusters: K is raised to it; at most as many as patches.
        max_clusters: K is lowered to it.
        tau0: inertia that each step starts with, > 0. A node's gradient is of the size of 2 K / patches.
        gamma: factor of the inertia after a step that was not taken, > 1.
        delta: share of the rise, as the inertia promises it, that a step has to bring; in [0, 1].
        iterations: steps that are taken at most.
        max_memory_gib: an image whose spectrum needs more is refused.

    Raises:
        ValueError: an argument is out of range.
    """

    kappa: float = 0.5
    alpha: float = 10
    min_clusters: int = 2
    max_clusters: int = 30
    tau0: float = 1e-4
    gamma: float = 1.25
    delta: float = 0.1
    iterations: int = 100
    max_memory_gib: float = 4

    def __post_init__(self) -> None:
        check_positive("kappa", self.kappa)
        check_number("kappa", self.kappa, 0, 2)
        for name in ("alpha", "tau0", "gamma", "max_memory_gib"):
            check_positive(name, getattr(self, name))
        if self.gamma <= 1:
            raise ValueError(f"gamma must be above 1, not {self.gamma!r}")
        check_number("delta", self.delta, 0, 1)
        check_count("min_clusters", self.min_clusters, 1)
        check_count("max_clusters", self.max_clusters, self.min_clusters)
        check_count("iterations", self.iterations, 0)

    def __call__(self, features: Float[Tensor, "batch channels rows cols"]) -> Int[Tensor, "batch rows cols"]:
        """Partition of each feature map; one of equal patches is one segment."""
        return cut_each(features, self._cut, self.max_memory_gib)

    def _cut(self, patches: Float[Tensor, "nodes channels"]) -> Int[Tensor, " nodes"]:
        weights = affinity(patches[None], self.alpha)[0]
        spectrum = Spectrum.of(weights)
        clusters = int((spectrum.values < self.kappa).sum())
        clusters = min(max(clusters, self.min_clusters), self.max_clusters, len(patches))
        start = cluster_by_pivoted_qr(spectrum.vectors[:, :clusters])
        labels = ascend(weights, start, self.iterations, attempts=self._by_inertia)
        return labels.masked_fill(weights.amin() == 1, 0)

    def _by_inertia(self, gain: Float[Tensor, " nodes"]) -> Iterator[tuple[Bool[Tensor, " nodes"], float]]:
        """Steps of growing inertia, as long as it lets a node move."""
        tau, greatest = self.tau0, float(gain.max())
        while tau < greatest:
            yield gain > tau, self.delta * tau  # ‖ΔX‖² is twice the nodes that move
            tau *= self.gamma
