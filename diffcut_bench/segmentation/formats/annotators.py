"""For tools whose polygons have no holes: outlines of all parts, in an order that paints the segments."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from diffcut_bench.segmentation.formats.interface import Segmented


def painted_parts(segmented: Segmented) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Segment and outline (x, y) [points, 2] of each part, the largest outline first.

    What lies in a hole has a smaller outline, so whoever paints them in this order has the segments, holes and all.
    """
    import shapely

    polygons = segmented.polygons
    parts = [(segment, part.exterior) for segment, whole in enumerate(polygons) for part in shapely.get_parts(whole)]
    parts.sort(key=lambda each: -shapely.polygons(each[1]).area)
    for segment, outline in parts:
        yield segment, shapely.get_coordinates(outline)[:-1]  # the last point is the first
