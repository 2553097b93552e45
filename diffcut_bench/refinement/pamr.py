"""Pixel-adaptive mask refinement and the median filter after it. Knows tensors only."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

from diffcut_bench.ncut.arguments import check_count

_OFFSETS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
_SIGMA_SCALE = 0.1
_SIGMA_FLOOR = 1e-8
# Values of masks, neighbours or colours that are worked on at once (64 MiB in float32); more are split into parts.
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
    refined = []
    for images, neighbours in _neighbourhoods(image, dilations):
        table = _at_least_float32(masks[images]).flatten(2).mT.contiguous()
        refined.append(neighbours.average(table, iterations).mT)
    return torch.cat(refined).view(masks.shape).to(masks.dtype)


@dataclass(frozen=True)
class _Neighbourhoods:
    """Which pixels of some images are averaged, in tables with a row for each pixel, image after image.

    So an iteration is a weighted sum of the rows of a pixel's neighbours, of all these images at once.

    Attributes:
        rows: of the neighbours of each pixel.
        weights: of these neighbours, in the same order.
        starts: of each pixel's neighbours among all.
    """

    rows: Int[Tensor, " neighbours"]
    weights: Float[Tensor, " neighbours"]
    starts: Int[Tensor, " pixels"]

    def average(
        self, masks: Float[Tensor, "batch pixels masks"], iterations: int
    ) -> Float[Tensor, "batch pixels masks"]:
        """Masks after the iterations. They do not influence each other, so they may be given in parts."""
        table, weights = masks.flatten(0, 1), self.weights.to(masks.dtype)
        for _ in range(iterations):
            table = embedding_bag(self.rows, table, self.starts, mode="sum", per_sample_weights=weights)
        return table.view(masks.shape)


def _neighbourhoods(image: Tensor, dilations: Sequence[int]) -> Iterator[tuple[slice, _Neighbourhoods]]:
    """Images that are refined together, a slice of the batch, and what their pixels are averaged over."""
    shifts = [(dy * d, dx * d) for d in dilations for dy, dx in _OFFSETS]
    batch, _, height, width = image.shape
    together = min(_at_once(height * width * len(shifts), image.device), batch)
    number, row, col = (torch.arange(n, dtype=torch.int32, device=image.device) for n in (together, height, width))
    down, across = torch.tensor(shifts, dtype=torch.int32).to(image.device, non_blocking=True).unbind(dim=1)
    rows = (row[:, None] + down).clamp(0, height - 1) + height * number[:, None, None]  # images × rows × neighbours
    cols = (col[:, None] + across).clamp(0, width - 1)
    neighbours = (width * rows[:, :, None] + cols).flatten()
    starts = torch.arange(0, len(neighbours), len(shifts), dtype=torch.int32, device=image.device)
    for first in range(0, batch, together):
        images = slice(first, first + together)
        affinity = _colour_affinity(_at_least_float32(image[images]), shifts, max(dilations), centres=len(dilations))
        weights = affinity.flatten(2).permute(1, 2, 0).flatten()  # image, pixel, neighbour
        yield images, _Neighbourhoods(neighbours[: len(weights)], weights, starts[: len(weights) // len(shifts)])


def _colour_affinity(image: Tensor, shifts: list[tuple[int, int]], reach: int, centres: int) -> Tensor:
    """Softmax over neighbours of ``−|I(p) − I(q)| / (0.1·σ(p))``, colours averaged: neighbours × batch × h × w."""
    padded = pad(image, [reach] * 4, mode="replicate")
    near = [_shifted(padded, shift, reach) for shift in shifts]
    together = _at_once(image.numel(), image.device)

    def groups() -> Iterator[Tensor]:
        for first in range(0, len(near), together):
            yield near[first][None] if together == 1 else torch.stack(near[first : first + together])

    values = len(shifts) + centres  # the centre counts once for each dilation (9 values a neighbourhood)
    total = centres * image
    for group in groups():
        total = _add_each(total, group)
    mean = total / values
    squares = centres * (image - mean).square()
    for group in groups():
        squares = _add_each(squares, (group - mean).square_())
    scale = -(_SIGMA_FLOOR + _SIGMA_SCALE * (squares / (values - 1)).sqrt())
    return torch.cat([(group - image).abs_().div_(scale).mean(dim=2) for group in groups()]).softmax(dim=0)


def _add_each(total: Tensor, terms: Tensor) -> Tensor:
    """The total, which is given away, plus one term after the other: its bits do not depend on how many there are."""
    if len(terms) == 1:
        return total.add_(terms[0])
    rows = torch.cat([total[None], terms]).flatten(1)
    # A bag's rows are added in their order, by one kernel.
    return embedding_bag(torch.arange(len(rows), device=rows.device)[None], rows, mode="sum").view_as(total)


def _at_once(values: int, device: torch.device) -> int:
    """How many things of so many values are worked on together: one on the CPU, where it stays in the caches; on an
    accelerator, which waits for each kernel to be launched, as many as there is room for."""
    return 1 if device.type == "cpu" else max(_CHUNK_VALUES // values, 1)


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
    counts = (labels.amax(dim=(1, 2)) + 1).tolist()
    refined = []
    for images, neighbours in _neighbourhoods(image, dilations):
        pixels = labels[images].flatten(1)
        best = torch.zeros_like(pixels)
        most = torch.full(pixels.shape, -torch.inf, dtype=image.dtype, device=image.device)
        segments = torch.arange(max(counts[images]), device=labels.device)
        for part in segments.split(max(_CHUNK_VALUES // pixels.numel(), 1)):
            masks = _at_least_float32((pixels[:, :, None] == part).to(image.dtype))
            value, index = neighbours.average(masks, iterations).to(image.dtype).max(dim=2)
            best = torch.where(value > most, part[index], best)  # the first wins a tie, as in an argmax over all masks
            most = torch.maximum(value, most)
        refined.append(best)
    return median_filter(torch.cat(refined).view(labels.shape))


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
        check_count("iterations", self.iterations, 0)
        if not isinstance(self.dilations, (list, tuple)) or not self.dilations:
            raise ValueError(f"dilations must be a list of at least one number, not {self.dilations!r}")
        for dilation in self.dilations:
            check_count("each of dilations", dilation, 1)

    @property
    def reach(self) -> int:
        """Rows or columns from a pixel to the farthest one that has a say in its label; one of them is the median's."""
        return self.iterations * max(self.dilations) + 1

    def __call__(self, image: Tensor, labels: Tensor) -> Tensor:
        return refine_labels(image, labels, self.iterations, self.dilations)
