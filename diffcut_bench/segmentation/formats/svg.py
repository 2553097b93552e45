"""SVG: a path a segment, in the colours of the overlay, to be laid over the picture."""

from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from diffcut_bench.escaping import visible
from diffcut_bench.reporting import palette
from diffcut_bench.segmentation.formats.interface import Format, Segmented


def _encode(segmented: Segmented) -> str:
    import shapely

    height, width = segmented.result.labels.shape
    frame = {"width": str(width), "height": str(height), "viewBox": f"0 0 {width} {height}"}
    root = ElementTree.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", **frame, "fill-rule": "evenodd"})
    colours = palette(segmented.result.num_segments).tolist()
    for segment, (whole, colour) in enumerate(zip(segmented.polygons, colours, strict=True)):
        rings = shapely.get_rings(shapely.get_parts(whole))
        path = "".join(_ring(shapely.get_coordinates(ring)) for ring in rings)
        attributes = {"id": f"segment-{segment}", "fill": "#{:02x}{:02x}{:02x}".format(*colour), "d": path}
        element = ElementTree.SubElement(root, "path", attributes)
        ElementTree.SubElement(element, "title").text = visible(f"{segmented.name_of(segment)} {segment}")
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _ring(points: NDArray[np.float64]) -> str:
    return "M" + "L".join(f"{x:.10g},{y:.10g}" for x, y in points[:-1].round(2).tolist()) + "Z"


SVG = Format("svg", ".svg", _encode, ("shapely",), has_polygons=True)
