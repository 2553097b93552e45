"""Pixel-adaptive mask refinement and the median filter after it. Knows tensors only."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

_OFFSETS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
_SIGMA_SCALE = 0.1
_SIGMA_FLOOR = 1e-8
# Mask values that are refined at once (64 MiB in float32); if there are more, the segments are split into parts.
_CHUNK_VALUES = 1 << 24


def pamr(
    image: Float[Tensor, "batch colours height width"],
    masks: Float[Tensor, "batch masks height width"],
    iterations: int = 10,
    dilations: Sequence[int] = (1, 2, 4, 8),
) -> Float[Tensor, "batch masks height width"]:
    """Pixel-adaptive mask refinement (Araslanov & Roth, CVPR 2020, section 4.2).

    Each iteration replaces a pixel's mask values by the mean over its dilated 3×3 neighbourhoods, weighted by
    similarity of colour relative to the local contrast. Memory: one weight and one index for each neighbour of a pixel,
    and a few copies of the masks; never a copy of the masks for each neighbour.

    Args:
        image: colours in [0, 1], at the resolution of the masks; the affinities are computed in float32 or better.
        masks: soft or one-hot masks.
        iterations: how often the masks are averaged, >= 0.
        dilations: distance of the neighbours in pixels; eight neighbours for each.

    Returns:
        Refined masks; they sum to one over the masks where the input does.
    """
    return _propagation(image, iterations, dilations)(masks)


def _propagation(image: Tensor, iterations: int, dilations: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """The iterations as a function of the masks; masks do not influence each other, so they may be given in parts.

    The values of a pixel are one row of a table, so that an iteration is a weighted sum of the rows of its neighbours.
    """
    shifts = [(dy * d, dx * d) for d in dilations for dy, dx in _OFFSETS]
    affinity = _colour_affinity(_at_least_float32(image), shifts, max(dilations), centres=len(dilations))
    weights = affinity[:, :, 0].flatten(2).permute(1, 2, 0).contiguous()  # batch × pixels × neighbours
    height, width = image.shape[-2:]
    rows, cols = torch.arange(height, device=image.device), torch.arange(width, device=image.device)
    neighbours = torch.stack(
        [
            ((rows + dy).clamp(0, height - 1)[:, None] * width + (cols + dx).clamp(0, width - 1)).flatten()
            for dy, dx in shifts
        ],
        dim=1,
    ).int()

    def propagate(masks: Tensor) -> Tensor:
        refined = []
        for weight, values in zip(weights, _at_least_float32(masks).flatten(2).transpose(1, 2), strict=True):
            table, weight = values.contiguous(), weight.to(values.dtype)
            for _ in range(iterations):
                table = embedding_bag(neighbours, table, per_sample_weights=weight, mode="sum")
            refined.append(table.T)
        return torch.stack(refined).view(masks.shape).to(masks.dtype)

    return propagate


def _colour_affinity(image: Tensor, shifts: list[tuple[int, int]], reach: int, centres: int) -> Tensor:
    """Softmax over neighbours of ``−|I(p) − I(q)| / (0.1·σ(p))``, colours averaged: neighbours × batch × 1 × h × w.

    One neighbour at a time, so that no copy of the image for each neighbour is held.
    """
    padded = pad(image, [reach] * 4, mode="replicate")
    values = len(shifts) + centres  # the centre counts once for each dilation (9 values a neighbourhood)
    mean = (sum((_shifted(padded, shift, reach) for shift in shifts), start=centres * image)) / values
    squares = centres * (image - mean).square()
    for shift in shifts:
        squares += (_shifted(padded, shift, reach) - mean).square()
    scale = _SIGMA_FLOOR + _SIGMA_SCALE * (squares / (values - 1)).sqrt()
    logits = torch.stack(
        [-((_shifted(padded, shift, reach) - image).abs() / scale).mean(dim=1, keepdim=True) for shift in shifts]
    )
    return logits.softmax(dim=0)


def _at_least_float32(image: Tensor) -> Tensor:
    return image if image.dtype == torch.float64 else image.float()


def _shifted(padded: Tensor, shift: tuple[int, int], reach: int) -> Tensor:
    top, left = reach + shift[0], reach + shift[1]
    height, width = padded.shape[-2] - 2 * reach, padded.shape[-1] - 2 * reach
    return padded[..., top : top + height, left : left + width]


def median_filter(labels: Int[Tensor, "batch height width"]) -> Int[Tensor, "batch height width"]:
    """3×3 median of integer labels, as the released evaluation smooths PAMR's result.

    Two segments are smoothed by majority; where three meet, the median of label *numbers* depends on the numbering.

    Args:
        labels: segment ids.

    Returns:
        Filtered ids; the border row is repeated outwards.
    """
    padded = pad(labels[:, None].float(), [1] * 4, mode="replicate")
    windows = padded.unfold(2, 3, 1).unfold(3, 3, 1).flatten(4)
    return windows.median(dim=-1).values[:, 0].to(labels.dtype)


def refine_labels(
    image: Float[Tensor, "batch colours height width"],
    labels: Int[Tensor, "batch height width"],
    iterations: int = 10,
    dilations: Sequence[int] = (1, 2, 4, 8),
) -> Int[Tensor, "batch height width"]:
    """PAMR of the one-hot masks of a label map, argmax, median filter.

    The masks are numbered before they are refined, as in the released evaluation: a segment that the refinement removes
    leaves a gap, and under the released matching that is no detail (docs/protocol.md).

    Args:
        image: colours in [0, 1], at the resolution of the labels.
        labels: segment ids from 0.
        iterations, dilations: see `pamr`.

    Returns:
        Numbers of the masks: those of an image's segments, from 0 in ascending order of their ids in ``labels``.
    """
    labels = _renumber(labels, int(labels.max()) + 1)
    segments = torch.arange(int(labels.max()) + 1, device=labels.device)
    propagate = _propagation(image, iterations, dilations)
    best = labels.new_zeros(labels.shape)
    most = torch.full(labels.shape, -torch.inf, dtype=image.dtype, device=image.device)
    for part in segments.split(max(_CHUNK_VALUES // labels.numel(), 1)):
        masks = (labels[:, None] == part[:, None, None]).to(image.dtype)
        value, index = propagate(masks).max(dim=1)
        best = torch.where(value > most, part[index], best)  # the first wins a tie, as in an argmax over all masks
        most = torch.maximum(value, most)
    return median_filter(best)


def _renumber(labels: Tensor, ids: int) -> Tensor:
    """Ids below ``ids`` made contiguous within each image, in their order, without a synchronisation with the host."""
    flat = labels.flatten(1)
    seen = torch.zeros(len(labels), ids, dtype=labels.dtype, device=labels.device).scatter_(1, flat, 1)
    return (seen.cumsum(dim=1) - 1).gather(1, flat).view_as(labels)


@dataclass(frozen=True)
class PamrRefiner:
    """`refine_labels` with its settings fixed; the ``refiner=pamr`` option."""

    iterations: int = 10
    dilations: Sequence[int] = (1, 2, 4, 8)

    def __post_init__(self) -> None:
        if self.iterations < 0 or not self.dilations or min(self.dilations) < 1:
            raise ValueError(
                f"PAMR needs iterations >= 0 and dilations >= 1, not {self.iterations} and {list(self.dilations)}"
            )

    def __call__(self, image: Tensor, labels: Tensor) -> Tensor:
        return refine_labels(image, labels, self.iterations, self.dilations)
