"""Labels of a small picture, enlarged to a large one and refined on its pixels, tile by tile. Knows tensors only."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

_LEAST_SHARE = 1e-4  # far above what sums round to, so that no tie depends on a tile

_Box = tuple[slice, slice]  # rows and columns


@runtime_checkable
class LocalRefiner(Protocol):
    """A refiner whose label of a pixel depends on no pixel that is farther away than ``reach``, in rows or columns. It
    numbers segments from 0 in ascending order of their ids."""

    @property
    def reach(self) -> int: ...

    def __call__(self, image: Tensor, labels: Tensor) -> Tensor: ...


def enlarge_in_tiles(
    labels: Int[Tensor, "rows cols"],
    image: UInt8[Tensor, "colours height width"],
    refiner: LocalRefiner | None = None,
    tile: int = 512,
) -> Int[Tensor, "height width"]:
    """Labels at the resolution of a picture, their borders at its edges.

    A pixel takes the segment with the greatest share of the nine labels around it, weighted by a quadratic B-spline:
    borders without stairs. Then the refiner moves them on the picture's own pixels. A tile is refined with as much of
    its surroundings as the refiner reaches, so the result is that of the whole picture at once; what is far from any
    border is not refined at all. Memory depends on the tile and the refiner's reach, not on the picture.

    Args:
        labels: segment ids of the picture made smaller, on the host.
        image: colours, 0..255.
        refiner: of labels at full resolution; None: enlarging is all.
        tile: its side in pixels.

    Returns:
        Segment ids (int32) on the host, among those of ``labels``.
    """
    size = (image.shape[1], image.shape[2])
    down, right = (_Axis.of(near, far) for near, far in zip(labels.shape, size, strict=True))
    reach = 0 if refiner is None else refiner.reach
    enlarged = torch.empty(size, dtype=torch.int32)
    for inner, outer in _tiles(size, tile, reach):
        rows, cols = down.span(outer[0]), right.span(outer[1])
        around = labels[rows, cols]
        present = around.unique()
        if len(present) == 1:
            enlarged[inner] = int(present)
            continue
        shares = (around == present[:, None, None]).float()
        shares = down.weights(outer[0], rows) @ shares @ right.weights(outer[1], cols).T
        # Equal ones: the segment of the nearest label.
        nearest = labels[down.nearest[outer[0]]][:, right.nearest[outer[1]]]
        shares += _LEAST_SHARE * (nearest == present[:, None, None])
        found = present[shares.argmax(dim=0)].int()
        enlarged[inner] = found[_within(inner, outer)]
        changed = None if refiner is None else _near_borders(found, inner, outer, reach)
        if refiner is not None and changed is not None:
            looked_at = _widened(changed, reach, size)
            own = found[_within(looked_at, outer)]
            refined = refiner(image[:, *looked_at][None] / 255, own[None].long().to(image.device))[0].cpu()
            enlarged[changed] = own.unique()[refined][_within(changed, looked_at)]
    return enlarged


def _tiles(size: tuple[int, int], tile: int, reach: int) -> Iterator[tuple[_Box, _Box]]:
    """Each tile, and the tile with its surroundings."""
    height, width = size
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            inner = slice(top, min(top + tile, height)), slice(left, min(left + tile, width))
            yield inner, _widened(inner, reach, size)


def _near_borders(found: Int[Tensor, "rows cols"], inner: _Box, outer: _Box, reach: int) -> _Box | None:
    """The part of a tile that borders may be in reach of; None where there is no such part.

    Args:
        found: labels of the tile with its surroundings.
        inner, outer: the tile, and with its surroundings.
        reach: in pixels.
    """
    border = torch.zeros(found.shape, dtype=torch.bool)
    border[1:] |= found[1:] != found[:-1]
    border[:, 1:] |= found[:, 1:] != found[:, :-1]
    box = []
    for axis, (own, around) in enumerate(zip(inner, outer, strict=True)):
        lines = border.any(dim=1 - axis).nonzero().flatten()
        if not len(lines):
            return None
        first, last = around.start + int(lines[0]), around.start + int(lines[-1])
        box.append(slice(max(first - reach, own.start), min(last + reach, own.stop)))
    return (box[0], box[1]) if all(side.start < side.stop for side in box) else None


def _within(box: _Box, other: _Box) -> _Box:
    """A box in the coordinates of another one that holds it."""
    rows, cols = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(box, other, strict=True))
    return rows, cols


def _widened(box: _Box, reach: int, size: tuple[int, int]) -> _Box:
    rows, cols = (slice(max(s.start - reach, 0), min(s.stop + reach, n)) for s, n in zip(box, size, strict=True))
    return rows, cols


@dataclass(frozen=True)
class _Axis:
    """Where the pixels of a large picture lie in a small one, along one axis.

    Attributes:
        length: of the small one.
        nearest: pixel of the small one that each lies in.
        offset: from its centre, in its pixels: −0.5 to 0.5.
    """

    length: int
    nearest: Int[Tensor, " far"]
    offset: Float[Tensor, " far"]

    @classmethod
    def of(cls, near: int, far: int) -> "_Axis":
        place = (torch.arange(far, dtype=torch.float64) + 0.5) * (near / far)
        nearest = place.long().clamp_max(near - 1)
        return cls(near, nearest, (place - nearest - 0.5).float())

    def span(self, pixels: slice) -> slice:
        """Pixels of the small one that have a say in these."""
        first, last = self.nearest[pixels][[0, -1]].tolist()
        return slice(max(first - 1, 0), min(last + 2, self.length))

    def weights(self, pixels: slice, span: slice) -> Float[Tensor, "pixels span"]:
        """Of the quadratic B-spline: the nearest pixel and its two neighbours; beyond the edge the edge is repeated."""
        nearest, t = self.nearest[pixels], self.offset[pixels]
        weights = torch.zeros(len(nearest), span.stop - span.start)
        for step, weight in ((-1, (0.5 - t) ** 2 / 2), (0, 0.75 - t**2), (1, (0.5 + t) ** 2 / 2)):
            where = (nearest + step).clamp(0, self.length - 1) - span.start
            weights.scatter_add_(1, where[:, None], weight[:, None])
        return weights
