"""Small pieces of segments, merged into the neighbour that is most similar. Knows tensors only."""

import heapq
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.sparse import coo_array
from skimage.measure import label as connected_pieces
from torch import Tensor


def merge_speckles(
    labels: Int[Tensor, "batch height width"], features: Float[Tensor, "batch channels rows cols"], smallest: float
) -> Int[Tensor, "batch height width"]:
    """Give every small piece of a segment to a neighbour, until no small one is left.

    A *piece* is a connected part of a segment: its pixels have edges in common. The smallest piece comes first, the
    upper left one of equal ones; it goes to the adjacent piece whose mean feature vector is the nearest (Euclidean
    distance), and counts as part of it from then on. So a segment loses its far small pieces, and one that has only
    small ones vanishes. How segments are numbered changes nothing but the numbers.

    Pieces are found on the host: one wait for a batch of any size.

    Args:
        labels: segment ids, at least 0.
        features: what tells neighbours apart, at any resolution: unit features of patches, or colours of pixels. A
            pixel has those of the cell it lies in.
        smallest: area of the smallest piece that stays, as a fraction of the picture's; 0 changes nothing.

    Returns:
        Segment ids: those of the input, of which some may be missing. No piece is smaller than ``smallest``.

    Raises:
        ValueError: ``smallest`` is not from 0 to below 1.
    """
    if not 0 <= smallest < 1:
        raise ValueError(f"smallest must be a fraction of the picture's area, from 0 to below 1, not {smallest}")
    if smallest == 0:
        return labels
    there = features.to("cpu", torch.float32, non_blocking=True)  # it has come when the labels have
    maps = labels.cpu().numpy()
    limit = smallest * maps[0].size
    merged = [_merged(ids, own, limit) for ids, own in zip(maps, there.numpy(), strict=True)]
    whole = merged[0][None] if len(merged) == 1 else np.stack(merged)
    return torch.from_numpy(whole).to(labels.device, non_blocking=True)


def _merged(labels: NDArray[np.integer], features: NDArray[np.float32], limit: float) -> NDArray[np.integer]:
    """Labels [height, width] of one picture without pieces of less than ``limit`` pixels."""
    # From 1, by their first pixels. It gives numbers of 8 bytes, and what follows holds several such maps.
    pieces = connected_pieces(labels, background=-1, connectivity=1).astype(np.int32)
    area = np.bincount(pieces.ravel())
    if area[1:].min() >= limit:
        return labels
    ids = np.zeros(len(area), labels.dtype)
    ids[pieces] = labels
    graph = _Pieces(area, ids, _sums(pieces, features, len(area)), _neighbours(pieces, len(area)))
    return ids[graph.merge(limit)][pieces]


class _Pieces:
    """Pieces and which touch each other; merging changes all of it.

    Attributes:
        area: pixels of each.
        ids: segment of each.
        sums: of the feature vectors of their pixels [pieces, channels].
        near: for each, the pieces that it touches.
        owner: piece that each one has become part of, itself where it stands.
    """

    def __init__(
        self,
        area: NDArray[np.integer],
        ids: NDArray[np.integer],
        sums: NDArray[np.floating],
        near: list[set[int]],
    ) -> None:
        self.area, self.ids, self.sums, self.near = area, ids, sums, near
        self.owner = np.arange(len(area))

    def merge(self, limit: float) -> NDArray[np.integer]:
        """Merge pieces of less than ``limit`` pixels, the smallest first; the piece that each is part of at the end."""
        queue = [(int(self.area[piece]), int(piece)) for piece in np.flatnonzero(self.area < limit)[1:]]
        heapq.heapify(queue)
        while queue:
            area, piece = heapq.heappop(queue)
            if self.owner[piece] != piece or self.area[piece] != area or not self.near[piece]:
                continue  # part of another one, grown since, or the whole picture
            taker = self._most_similar(piece)
            self._join(taker, piece)
            # Pieces of one segment that it separated may touch now.
            for other in sorted(each for each in self.near[taker] if self.ids[each] == self.ids[taker]):
                self._join(taker, other)
            if self.area[taker] < limit:
                heapq.heappush(queue, (int(self.area[taker]), taker))
        while (self.owner != self.owner[self.owner]).any():
            self.owner = self.owner[self.owner]
        return self.owner

    def _most_similar(self, piece: int) -> int:
        near = sorted(self.near[piece])
        means = self.sums[near] / self.area[near, None]
        distances = np.square(means - self.sums[piece] / self.area[piece]).sum(axis=1)
        return near[int(distances.argmin())]  # the first of equal ones

    def _join(self, taker: int, piece: int) -> None:
        self.owner[piece] = taker
        self.area[taker] += self.area[piece]
        self.sums[taker] += self.sums[piece]
        for other in self.near[piece]:
            self.near[other].discard(piece)
            if other != taker:
                self.near[other].add(taker)
                self.near[taker].add(other)


def _sums(pieces: NDArray[np.integer], features: NDArray[np.float32], count: int) -> NDArray[np.float64]:
    """Sum over the pixels of each piece of the features of their cells [pieces, channels], a row of cells at a time."""
    channels, rows, cols = features.shape
    height, width = pieces.shape
    total = np.zeros((count, channels))
    cell = np.arange(width) * cols // width
    row_of = np.arange(height) * rows // height
    for row in np.unique(row_of):
        inside = pieces[np.searchsorted(row_of, row) : np.searchsorted(row_of, row, "right")]
        ones = np.ones(inside.size, np.float32)
        pixels = coo_array((ones, (inside.ravel(), np.tile(cell, len(inside)))), shape=(count, cols)).tocsr()
        total += pixels @ features[:, row].T
    return total


def _neighbours(pieces: NDArray[np.integer], count: int) -> list[set[int]]:
    """For each piece, those with which it has an edge in common."""
    near: list[set[int]] = [set() for _ in range(count)]
    for first, second in _touching(pieces):
        for a, b in np.unique(np.stack([first, second], axis=1), axis=0).tolist():
            near[a].add(b)
            near[b].add(a)
    return near


def _touching(pieces: NDArray[np.integer]) -> Iterator[tuple[NDArray[np.integer], NDArray[np.integer]]]:
    for first, second in ((pieces[1:], pieces[:-1]), (pieces[:, 1:], pieces[:, :-1])):
        border = first != second
        yield first[border], second[border]
