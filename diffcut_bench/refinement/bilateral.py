"""Concept assignment whose upsampling follows the picture's colours. Knows tensors only."""

from dataclasses import dataclass
from typing import ClassVar, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, embedding_bag

from diffcut_bench.ncut.arguments import check_choice, check_count, check_positive
from diffcut_bench.refinement.upsampling import Similarity, concept_similarities

# Weights, similarities or colours that are worked on at once (16 MiB in float32).
_CHUNK_VALUES = 1 << 22


def assign_concepts_by_colour(
    features: Float[Tensor, "batch channels rows cols"],
    partition: Int[Tensor, "batch rows cols"],
    image: Float[Tensor, "batch colours height width"],
    similarity: Similarity = "dot",
    sigma_space: float = 1.0,
    sigma_colour: float = 0.1,
    radius: int = 2,
) -> Int[Tensor, "batch height width"]:
    """`assign_concepts` by joint bilateral upsampling (Kopf et al., SIGGRAPH 2007) in the place of bilinear one.

    A pixel's similarity to a concept is the mean of the patches' similarities around it, weighted by
    ``exp(−|p − q|² / 2σ_s² − |I(p) − I(q)|² / 2σ_c²)``: p − q from the pixel to the centre of the patch, in patches;
    I the colour of the pixel, and of the patch the mean of its pixels. The patches in the square of side 2·radius + 1
    around the pixel's own have a say. Upsampling is linear, so the result is that of upsampled features. The sigmas
    and the radius are ours. Nothing is learned: FeatUp's stack of joint bilateral upsamplers, which has weights, is
    another method.

    Memory: a few copies of the picture, and parts of bounded size; nothing for each pixel and segment.

    Args:
        features: feature map.
        partition: segment of each patch, ids from 0.
        image: colours in [0, 1], of the label map's size.
        similarity: see `assign_concepts`.
        sigma_space: of the kernel of distance, in patches.
        sigma_colour: of the kernel of colour: Euclidean distance of colours in [0, 1].
        radius: in patches.

    Returns:
        Segment id of each pixel; a segment that wins no pixel vanishes.
    """
    scores, counts = concept_similarities(features, partition, similarity)
    grid, colours = (features.shape[-2], features.shape[-1]), image.float()
    radius = min(radius, max(grid) - 1)  # there is nothing beyond
    # Farther than that weights do not change, and float32 ends.
    spread_space, spread_colour = (2 * min(max(sigma, 1e-9), 1e9) ** 2 for sigma in (sigma_space, sigma_colour))
    means = adaptive_avg_pool2d(colours, grid).flatten(2).mT  # batch × patches × colours
    rows, cols = (_Axis.of(*each, radius, image.device) for each in zip(grid, image.shape[-2:], strict=True))
    labels = torch.empty((len(image), *image.shape[-2:]), dtype=torch.int64, device=image.device)
    side = 2 * radius + 1
    strip = max(_CHUNK_VALUES // (image.shape[-1] * max(scores.shape[1], image.shape[1] * side**2)), 1)
    for one, table in enumerate(scores.flatten(2).mT.contiguous()):  # patches × segments
        for part in torch.arange(image.shape[-2], device=image.device).split(strip):
            patches = (rows.patches[part, None, :, None] * grid[1] + cols.patches[:, None, :]).flatten(2)
            distance = (rows.distance[part, None, :, None] + cols.distance[:, None, :]).flatten(2)
            pixels = colours[one][:, part].permute(1, 2, 0)[:, :, None]  # rows × cols × 1 × colours
            apart = (pixels - means[one][patches]).square().sum(dim=-1)
            weights = (-distance / spread_space - apart / spread_colour).softmax(dim=-1)
            bags = patches.flatten(0, 1), table
            similarities = embedding_bag(*bags, mode="sum", per_sample_weights=weights.flatten(0, 1))
            similarities = similarities.masked_fill(counts[one] == 0, -torch.inf)
            labels[one, part] = similarities.argmax(dim=1).view(patches.shape[:2])
    return labels


@dataclass(frozen=True)
class _Axis:
    """Along one axis: the patches around each pixel.

    Attributes:
        patches: [pixels, side], as indices; one beyond the edge stands for the patch at the edge.
        distance: squared, in patches, to each of them [pixels, side]; infinite beyond the edge.
    """

    patches: Int[Tensor, "pixels side"]
    distance: Float[Tensor, "pixels side"]

    @classmethod
    def of(cls, near: int, far: int, radius: int, device: torch.device) -> "_Axis":
        place = (torch.arange(far, device=device) + 0.5) * (near / far) - 0.5  # of a pixel, in centres of patches
        own = place.round().long().clamp(0, near - 1)
        around = own[:, None] + torch.arange(-radius, radius + 1, device=device)
        distance = (around - place[:, None]).square().masked_fill((around < 0) | (around >= near), torch.inf)
        return cls(around.clamp(0, near - 1), distance)


@dataclass(frozen=True)
class BilateralUpsampler:
    """`assign_concepts_by_colour` with its settings fixed; the ``upsampler=bilateral`` option."""

    assigns_concepts: ClassVar[bool] = True
    takes_images: ClassVar[bool] = True

    similarity: Similarity = "dot"
    sigma_space: float = 1.0
    sigma_colour: float = 0.1
    radius: int = 2

    def __post_init__(self) -> None:
        check_choice("similarity", self.similarity, get_args(Similarity))
        check_positive("sigma_space", self.sigma_space)
        check_positive("sigma_colour", self.sigma_colour)
        check_count("radius", self.radius, 0)

    def __call__(self, features: Tensor, partition: Tensor, size: tuple[int, int], image: Tensor) -> Tensor:
        return assign_concepts_by_colour(
            features, partition, image, self.similarity, self.sigma_space, self.sigma_colour, self.radius
        )
