"""DiffCut: recursive Normalized Cut of patch features."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from diffcut_bench.ncut import CoarseGrid
from diffcut_bench.ncut.fiedler import Solver
from diffcut_bench.ncut.recursive import ZeroAffinity, check_arguments
from diffcut_bench.ncut.tree import LabelCodes

Approximation = Literal["none", "coarse_to_fine"]


@dataclass(frozen=True)
class DiffCut:
    """`diffcut_bench.ncut.recursive_ncut` on a feature map; its arguments are described there.

    Args:
        approximation: ``none``: exact; ``coarse_to_fine``: `diffcut_bench.ncut.coarse_to_fine_ncut`, for large grids.
        coarse_patches: patches of a map up to which an approximation is exact; `coarse_to_fine_ncut`.

    Raises:
        ValueError: an argument is out of range.
    """

    tau: float = 0.5
    alpha: float = 10
    solver: Solver = "lanczos"
    zero_affinity: ZeroAffinity = "drop"
    label_codes: LabelCodes = "exact"
    splitting_points: int = 100
    max_memory_gib: float = 4
    approximation: Approximation = "none"
    coarse_patches: int = 4096

    def __post_init__(self) -> None:
        check_arguments(self.tau, self.alpha, self.solver, self.zero_affinity, self.label_codes, self.splitting_points)
        if self.approximation not in ("none", "coarse_to_fine"):
            raise ValueError(f"approximation must be one of none, coarse_to_fine, not {self.approximation!r}")
        if not isinstance(self.coarse_patches, int) or self.coarse_patches < 1:
            raise ValueError(f"coarse_patches must be a whole number of at least 1, not {self.coarse_patches!r}")

    def __call__(self, features: Float[Tensor, "batch channels rows cols"]) -> Int[Tensor, "batch rows cols"]:
        """Partition of each feature map."""
        return self.together([self], features)[0]

    @classmethod
    def together(
        cls, segmenters: Sequence["DiffCut"], features: Float[Tensor, "batch channels rows cols"]
    ) -> list[Int[Tensor, "batch rows cols"]]:
        """Partitions of several settings: one cosine matrix an image, and one recursion an alpha at its largest tau.

        Args:
            segmenters: any settings.
            features: feature maps.

        Returns:
            What each segmenter alone would give, in their order.
        """
        found: dict[int, Tensor] = {}
        kinds: dict[tuple[Solver, ZeroAffinity, int, float, int | None], list[int]] = {}
        for place, one in enumerate(segmenters):
            coarse = one.coarse_patches if one.approximation == "coarse_to_fine" else None
            kind = (one.solver, one.zero_affinity, one.splitting_points, one.max_memory_gib, coarse)
            kinds.setdefault(kind, []).append(place)
        for (solver, zero_affinity, splitting_points, max_memory_gib, coarse), places in kinds.items():
            grid = CoarseGrid.of(features, coarse)
            greatest: dict[float, float] = {}
            for place in places:
                one = segmenters[place]
                greatest[one.alpha] = max(one.tau, greatest.get(one.alpha, 0.0))
            trees = grid.trees(
                [(tau, alpha) for alpha, tau in greatest.items()],
                solver=solver,
                zero_affinity=zero_affinity,
                splitting_points=splitting_points,
                max_memory_gib=max_memory_gib,
            )
            by_alpha = dict(zip(greatest, trees, strict=True))
            for place in places:
                one = segmenters[place]
                labels = by_alpha[one.alpha].labels(one.tau, one.label_codes)
                found[place] = grid.refine(labels)
        return [found[place] for place in range(len(segmenters))]
