"""LOST: a seed with few similar patches, expanded by patches like it; the object is what resembles them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffcut_bench.ncut.arguments import as_nodes, check_count
from diffcut_bench.segmenters.objects import images_at_once, objects_at


@dataclass(frozen=True)
class Lost:
    """LOST (Siméoni et al., BMVC 2021): one object an image, the rest of it the other segment.

    ``A = k kᵀ`` of the keys as they are, not normalised. The degree of a patch counts the patches, itself included,
    whose entry of A is positive. The seed is the patch of least degree, the first of equal ones. Of the ``expansion``
    patches of least degree, those positively similar to the seed are the expansion set; the object mask holds the
    patches whose similarities to that set sum to more than 0, and the object is its connected component that holds
    the seed.

    The benchmark's paper names neither the mask, the treatment of ties nor what happens in images of fewer patches
    than ``expansion``: the mask is LOST's own, before its bounding box; equal degrees go by position; a small image's
    patches all take part.

    Args:
        expansion: patches of least degree that may join the seed.

    Raises:
        ValueError: an argument is out of range.
    """

    expansion: int = 100

    def __post_init__(self) -> None:
        check_count("expansion", self.expansion, 1)

    def __call__(self, features: Float[Tensor, "batch channels rows cols"]) -> Int[Tensor, "batch rows cols"]:
        """Segment of each patch: 0, and 1 for the object.

        Raises:
            ValueError: the features hold NaN or infinity.
        """
        nodes = as_nodes(features)
        groups = [self._object(group) for group in nodes.split(images_at_once(nodes.shape[1]))]
        masks, seeds = (torch.cat(parts) for parts in zip(*groups, strict=True))
        return objects_at(masks, seeds, features.shape[2:])

    def _object(self, nodes: Float[Tensor, "batch nodes channels"]) -> tuple[Tensor, Tensor]:
        """Object mask [batch, nodes] and seed [batch] of each image."""
        positive = nodes @ nodes.mT > 0
        ascending = positive.sum(dim=2).argsort(dim=1, stable=True)
        seed, lowest = ascending[:, :1], ascending[:, : self.expansion]
        joins = positive.gather(1, seed[:, :, None].expand(-1, -1, nodes.shape[1]))[:, 0].gather(1, lowest)
        chosen = nodes.gather(1, lowest[:, :, None].expand(-1, -1, nodes.shape[2])) * joins[:, :, None]
        # The sum of the similarities to a set is the similarity to the sum of its features.
        return (nodes @ chosen.sum(dim=1)[:, :, None])[:, :, 0] > 0, seed[:, 0]
