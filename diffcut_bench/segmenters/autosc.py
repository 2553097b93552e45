"""AutoSC: spectral clustering whose exponent and number of clusters are read from the eigengap."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffcut_bench.ncut import scaled_cosines
from diffcut_bench.ncut.arguments import check_positive
from diffcut_bench.segmenters.spectral_embedding import Spectrum, cluster_by_pivoted_qr, cut_each


@dataclass(frozen=True)
class AutoSC:
    """Spectral clustering at the exponent of greatest relative eigengap, which also gives K (DiffCut, table 2).

    Args:
        alphas: exponents of the affinity that are tried, > 0; the first wins a tie.
        released_bug: take the eigenvectors of the last exponent with the K of the best, as the released code does.
        max_memory_gib: an image whose spectrum needs more is refused.

    Raises:
        ValueError: an argument is out of range.
    """

    alphas: Sequence[float] = (1, 5, 10, 15)
    released_bug: bool = False
    max_memory_gib: float = 4

    def __post_init__(self) -> None:
        if not isinstance(self.alphas, (list, tuple)) or not self.alphas:
            raise ValueError(f"alphas must be a list of at least one number, not {self.alphas!r}")
        for alpha in self.alphas:
            check_positive("each of alphas", alpha)
        check_positive("max_memory_gib", self.max_memory_gib)

    def __call__(self, features: Float[Tensor, "batch channels rows cols"]) -> Int[Tensor, "batch rows cols"]:
        """Partition of each feature map."""
        return cut_each(features, self._clusters, self.max_memory_gib)

    def _clusters(self, patches: Float[Tensor, "nodes channels"]) -> Int[Tensor, " nodes"]:
        cosines = scaled_cosines(patches[None])[0]
        greatest, clusters = -1.0, 1
        for alpha in self.alphas:
            spectrum = Spectrum.of(cosines.pow(alpha))
            gaps = relative_gaps(spectrum.values).tolist()
            if max(gaps) > greatest:
                greatest, clusters, best = max(gaps), max(gaps.index(max(gaps)), 1), spectrum
        chosen = spectrum if self.released_bug else best
        return cluster_by_pivoted_qr(chosen.vectors[:, :clusters])


def relative_gaps(values: Float[Tensor, " nodes"]) -> Float[Tensor, " nodes"]:
    """How far each of the ascending eigenvalues lies above the mean of it and those before, relative to that mean."""
    count = torch.arange(1, len(values) + 1, dtype=values.dtype, device=values.device)
    mean = values.cumsum(dim=0) / count
    return (values - mean) / (mean + 1e-6)
