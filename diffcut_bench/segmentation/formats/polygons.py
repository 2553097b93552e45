"""From a label map to polygons that share their borders: the edges of pixels, traced for all segments at once."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def segment_polygons(labels: NDArray[np.int64], simplify: float = 0) -> list[Any]:
    """Outlines of all segments. Together they cover the picture: no gap, no overlap, at any ``simplify``.

    Args:
        labels: segment of each pixel [height, width], contiguous from 0.
        simplify: how far a border may move, in pixels. Neighbours move together, the edge of the picture stays.

    Returns:
        A valid shapely Polygon or MultiPolygon of each segment, with holes. x runs right and y down from the upper left
        corner of the picture, so that the first pixel is the square from (0, 0) to (1, 1). Pixels that touch at a
        corner only are parts of their own.
    """
    import shapely

    faces = shapely.get_parts(shapely.polygonize(shapely.linestrings(_borders(labels))))
    inside = shapely.get_coordinates(shapely.point_on_surface(faces)).astype(int)
    owner = labels[inside[:, 1], inside[:, 0]]
    if simplify:
        faces = shapely.coverage_simplify(faces, simplify, simplify_boundary=False)
    order = np.argsort(owner, kind="stable")
    ends = np.cumsum(np.bincount(owner))[:-1]
    parts = [np.sort(indices) for indices in np.split(order, ends)]
    return [faces[own[0]] if len(own) == 1 else shapely.multipolygons(faces[own]) for own in parts]


def _borders(labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Straight lines between segments and around the picture [lines, 2, 2], as (x, y) of either end.

    They end where borders meet or turn, so no line has an end of another inside it.
    """
    height, width = labels.shape
    padded = np.pad(labels, 1, constant_values=-1)
    across = padded[:-1, 1:-1] != padded[1:, 1:-1]  # edges above row y [height + 1, width]
    down = padded[1:-1, :-1] != padded[1:-1, 1:]  # edges left of column x [height, width + 1]
    turns_across, turns_down = np.zeros((2, height + 1, width + 1), dtype=bool)
    turns_across[:-1] |= down
    turns_across[1:] |= down
    turns_down[:, :-1] |= across
    turns_down[:, 1:] |= across
    horizontal = _lines(across, turns_across)
    vertical = _lines(down.T, turns_down.T)[:, :, ::-1]
    return np.concatenate([horizontal, vertical])


def _lines(edges: NDArray[np.bool_], stops: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Runs of edges along each row, ended at stops [runs, 2, 2].

    Args:
        edges: from corner x to corner x + 1 [rows, n].
        stops: corners at which no run goes on [rows, n + 1].
    """
    before = np.pad(edges, ((0, 0), (1, 0)))[:, :-1]
    after = np.pad(edges, ((0, 0), (0, 1)))[:, 1:]
    rows, first = np.nonzero(edges & (~before | stops[:, :-1]))
    _, last = np.nonzero(edges & (~after | stops[:, 1:]))
    ends = [np.stack([x, rows], axis=1) for x in (first, last + 1)]
    return np.stack(ends, axis=1).astype(np.float64)
