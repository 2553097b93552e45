"""From a partition of patches to a label map of pixels. Knows tensors only."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import interpolate, normalize, one_hot

Similarity = Literal["dot", "cosine"]
"""How a pixel's feature is compared with the mean feature of a segment."""


def assign_concepts(
    features: Float[Tensor, "batch channels rows cols"],
    partition: Int[Tensor, "batch rows cols"],
    size: tuple[int, int],
    similarity: Similarity = "dot",
) -> Int[Tensor, "batch height width"]:
    """High-resolution concept assignment (Couairon et al., NeurIPS 2024, section 3.3).

    A segment's concept is the mean of its unit features; each pixel of the bilinearly upsampled feature map takes
    the concept most similar to it. Interpolation is linear, so the similarities are computed at patch resolution and
    upsampled: the same map without a feature vector for each pixel.

    Args:
        features: feature map.
        partition: segment of each patch, ids from 0; images may have different numbers of segments.
        size: (height, width) of the label map.
        similarity: ``dot`` with the mean as it is (the released computation), or ``cosine`` (the paper's text). The
            pixel's own norm cannot change its best concept, so only the concept's norm tells the two apart.

    Returns:
        Segment id of each pixel; a segment that wins no pixel vanishes.

    Raises:
        ValueError: unknown similarity.
    """
    scores, counts = concept_similarities(features, partition, similarity)
    scores = interpolate(scores, size, mode="bilinear", align_corners=False)
    return scores.masked_fill((counts == 0)[:, :, None, None], -torch.inf).argmax(dim=1)


def concept_similarities(
    features: Float[Tensor, "batch channels rows cols"],
    partition: Int[Tensor, "batch rows cols"],
    similarity: Similarity,
) -> tuple[Float[Tensor, "batch segments rows cols"], Float[Tensor, "batch segments"]]:
    """How similar each patch is to each segment's concept, and the patches of each segment: 0 for one that an image has
    not; see `assign_concepts`.

    Raises:
        ValueError: unknown similarity.
    """
    if similarity not in ("dot", "cosine"):
        raise ValueError(f"similarity must be dot or cosine, not {similarity!r}")
    unit = normalize(features.float(), dim=1).flatten(2)  # batch × channels × patches
    members = one_hot(partition.flatten(1)).to(unit.dtype)  # batch × patches × segments
    counts = members.sum(dim=1)
    concepts = (unit @ members / counts.clamp_min(1)[:, None, :]).transpose(1, 2)  # batch × segments × channels
    if similarity == "cosine":
        concepts = normalize(concepts, dim=2)
    return (concepts @ unit).unflatten(2, features.shape[-2:]), counts


def upsample_nearest(
    partition: Int[Tensor, "batch rows cols"], size: tuple[int, int]
) -> Int[Tensor, "batch height width"]:
    """Each pixel takes the segment of the patch it lies in: the baseline of the paper's table 8.

    Args:
        partition: segment of each patch.
        size: (height, width) of the label map.

    Returns:
        Segment id of each pixel.
    """
    return interpolate(partition[:, None].float(), size, mode="nearest")[:, 0].to(partition.dtype)


@dataclass(frozen=True)
class ConceptUpsampler:
    """`assign_concepts` with its similarity fixed; the ``upsampler=concepts`` option."""

    assigns_concepts: ClassVar[bool] = True

    similarity: Similarity = "dot"

    def __post_init__(self) -> None:
        if self.similarity not in ("dot", "cosine"):
            raise ValueError(f"similarity must be dot or cosine, not {self.similarity!r}")

    def __call__(self, features: Tensor, partition: Tensor, size: tuple[int, int]) -> Tensor:
        return assign_concepts(features, partition, size, self.similarity)


@dataclass(frozen=True)
class NearestUpsampler:
    """`upsample_nearest`; the ``upsampler=nearest`` option. Features are not used."""

    def __call__(self, features: Tensor, partition: Tensor, size: tuple[int, int]) -> Tensor:
        return upsample_nearest(partition, size)
