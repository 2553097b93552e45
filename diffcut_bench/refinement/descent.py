"""From the cuts of a tree to pixels, cut by cut: segments of pixels that are nested as those of patches. Knows tensors
only."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import interpolate, normalize

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
    pixels = torch.zeros(size, dtype=torch.int64, device=unit.device)
    for cut, region in enumerate(divided):
        first = cut + 1
        sums[:, region] -= sums[:, first]
        counts[region] -= counts[first]
        held = torch.stack([counts[first], counts[region]])
        concepts = torch.stack([sums[:, first], sums[:, region]], dim=1) / held.clamp_min(1)  # channels × 2
        if similarity == "cosine":
            concepts = normalize(concepts, dim=0)
        gain = ((concepts[:, :1] - concepts[:, 1:]).mT @ unit).view(1, 1, *features.shape[1:])
        gain = interpolate(gain, size, mode="bilinear", align_corners=False)[0, 0]
        pixels = torch.where((pixels == region) & (gain > 0), first, pixels)
    return pixels
