"""DiffCut: recursive Normalized Cut of patch features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, get_args

from jaxtyping import Float, Int
from torch import Tensor

from diffcut_bench.errors import UserError
from diffcut_bench.ncut import CoarseGrid, NCutSettings, NCutTree, ncut_trees
from diffcut_bench.ncut.arguments import check_choice, check_count
from diffcut_bench.ncut.settings import check_tau_and_alpha

Approximation = Literal["none", "coarse_to_fine"]


@dataclass(frozen=True)
class DiffCut(NCutSettings):
    """`diffcut_bench.ncut.recursive_ncut` on a feature map.

    Args:
        tau, alpha: see `recursive_ncut`; all that `NCutSettings` has may be given as well.
        approximation: ``none``: exact; ``coarse_to_fine``: `diffcut_bench.ncut.coarse_to_fine_ncut`, for large grids.
        coarse_patches: patches of a map up to which an approximation is exact; `coarse_to_fine_ncut`.

    Raises:
        ValueError: an argument is out of range.
    """

    tau: float = 0.5
    alpha: float = 10
    approximation: Approximation = "none"
    coarse_patches: int = 4096

    tau_meaning: ClassVar[str] = "a region is divided where the Normalized Cut of its best division is below tau"
    slider_end: ClassVar[float] = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_tau_and_alpha(self.tau, self.alpha)
        check_choice("approximation", self.approximation, get_args(Approximation))
        check_count("coarse_patches", self.coarse_patches, 1)

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
        size = features.shape[2:]
        groups: dict[tuple[NCutSettings, int | None], list[int]] = {}
        for index, one in enumerate(segmenters):
            approximate = one.approximation == "coarse_to_fine" and size.numel() > one.coarse_patches
            # These may differ and still share a recursion: either kind of label codes is read from one tree.
            shared = replace(one, tau=0, alpha=1, label_codes="exact", approximation="none", coarse_patches=1)
            groups.setdefault((shared, one.coarse_patches if approximate else None), []).append(index)
        for (settings, coarse_patches), members in groups.items():
            greatest: dict[float, float] = {}  # tau, by alpha
            for one in (segmenters[index] for index in members):
                greatest[one.alpha] = max(one.tau, greatest.get(one.alpha, 0.0))
            pairs = [(tau, alpha) for alpha, tau in greatest.items()]
            grid = None if coarse_patches is None else CoarseGrid.of(features, coarse_patches)
            trees = grid.trees(pairs, settings) if grid else ncut_trees(features.flatten(2).mT, pairs, settings)
            by_alpha = dict(zip(greatest, trees, strict=True))
            for index in members:
                one = segmenters[index]
                labels = by_alpha[one.alpha].labels(one.tau, one.label_codes)
                found[index] = grid.refine(labels) if grid else labels.unflatten(1, size)
        return [found[index] for index in range(len(segmenters))]

    def tree(self, features: Float[Tensor, "batch channels rows cols"], max_tau: float) -> NCutTree:
        """The exact recursion of each feature map up to ``max_tau``."""
        (tree,) = ncut_trees(features.flatten(2).mT, [(max_tau, self.alpha)], self)
        return tree

    def tree_settings(self) -> Mapping[str, Any]:
        """What the tree depends on besides the features, as its JSON says it."""
        return {"alpha": self.alpha}

    def tree_fault(self, nested: bool) -> UserError | None:
        """Only the exact cut has a tree; label codes that merge segments make its segments no unions of one another."""
        if self.approximation != "none":
            where = f"segmenter.approximation={self.approximation}"
            return UserError("an approximated cut has no tree of patches", where, "segmenter.approximation=none")
        if nested and self.label_codes != "exact":
            where = f"segmenter.label_codes={self.label_codes}"
            return UserError("label codes that merge segments have no tree", where, "segmenter.label_codes=exact")
        return None
