"""From the cuts of a tree to pixels, cut by cut: segments of pixels that are nested as those of patches. Knows tensors
only."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from diffcut_bench.refinement.upsampling import Similarity


def assign_cut_by_cut(
    features: Float[Tensor, "channels rows cols"],
    sides: Bool[Tensor, "cuts nodes"],
    divided: list[int],
    size: tuple[int, int],
    similarity: Similarity = "cosine",
) -> Int[Tensor, "height width"]:
    """Last region of each pixel: at every cut it goes to the side whose concept is more similar to it.

    `assign_concepts` compares a pixel with all segments of one tau at once, and its borders at two values of tau need
    not agree. Here a pixel goes down the tree, so that the segments at any tau are unions of those at the largest.
    A cut looks at the pixels of its own region only; an accelerator waits for the host once a cut.

    Args:
        features: feature map of one image.
        sides: for each cut, the patches on its first side; cuts in depth-first order.
        divided: region that each cut divides: c + 1 for the first side of cut c, 0 for the whole image.
        size: (height, width) of the map.
        similarity: with the mean as it is, or with the mean scaled to length 1; see `assign_concepts`.

    Returns:
        Region of each pixel: c + 1 where its last first side is that of cut c; 0 where it is on none.
    """
    unit = normalize(features.float(), dim=0).flatten(1)  # channels × patches
    ones = torch.cat([torch.ones_like(sides[:1]), sides]).to(unit.dtype)
    # Of what a region still holds when it is cut: its first side, less the first sides that were cut from it before.
    sums, counts = unit @ ones.mT, ones.sum(dim=1)  # channels × regions, regions
    between = _Between.of(features.shape[1:], size, unit.device)
    held = {0: torch.arange(size[0] * size[1], device=unit.device)}  # pixels of each region so far
    for cut, region in enumerate(divided):
        first = cut + 1
        sums[:, region] -= sums[:, first]
        counts[region] -= counts[first]
        concepts = sums[:, [first, region]] / counts[[first, region]].clamp_min(1)  # channels × 2
        if similarity == "cosine":
            concepts = normalize(concepts, dim=0)
        goes = between(((concepts[:, :1] - concepts[:, 1:]).mT @ unit)[0], held[region]) > 0
        held[first], held[region] = held[region][goes], held[region][~goes]
    pixels = torch.zeros(size[0] * size[1], dtype=torch.int64, device=unit.device)
    for region, inside in held.items():
        pixels[inside] = region
    return pixels.view(size)


@dataclass(frozen=True)
class _Between:
    """Bilinear interpolation (half-pixel centres) of a map of patches at some pixels only.

    Attributes:
        corners: the four patches around each pixel [4, pixels], as indices.
        weights: of these patches [4, pixels].
    """

    corners: Int[Tensor, "4 pixels"]
    weights: Float[Tensor, "4 pixels"]

    @classmethod
    def of(cls, near: Sequence[int], far: Sequence[int], device: torch.device) -> "_Between":
        (top, bottom, down), (left, right, across) = (_ends(*each, device) for each in zip(near, far, strict=True))
        rows, cols = (top, top, bottom, bottom), (left, right, left, right)
        of_rows, of_cols = (1 - down, 1 - down, down, down), (1 - across, across, 1 - across, across)
        corners = [(row[:, None] * near[1] + col).flatten() for row, col in zip(rows, cols, strict=True)]
        weights = [(row[:, None] * col).flatten() for row, col in zip(of_rows, of_cols, strict=True)]
        return cls(torch.stack(corners), torch.stack(weights))

    def __call__(self, values: Float[Tensor, " patches"], pixels: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        return (values[self.corners[:, pixels]] * self.weights[:, pixels]).sum(dim=0)


def _ends(near: int, far: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Along one axis: the patches before and behind each pixel, and how far the pixel is towards the latter."""
    place = ((torch.arange(far, device=device) + 0.5) * (near / far) - 0.5).clamp_min(0)
    before = place.long().clamp_max(near - 1)
    return before, (before + 1).clamp_max(near - 1), place - before
