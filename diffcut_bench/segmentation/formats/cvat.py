"""XML of "CVAT for images 1.1": polygons of all parts, those of one segment in one group, painted by their z-order."""

from xml.etree import ElementTree

from diffcut_bench.escaping import visible
from diffcut_bench.segmentation.formats.annotators import painted_parts
from diffcut_bench.segmentation.formats.interface import Format, Segmented


def _encode(segmented: Segmented) -> str:
    height, width = segmented.result.labels.shape
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    labels = ElementTree.SubElement(task, "labels")
    for name in segmented.class_names:
        label = ElementTree.SubElement(labels, "label")
        ElementTree.SubElement(label, "name").text = visible(name)
        ElementTree.SubElement(label, "attributes")
    size = {"width": str(width), "height": str(height)}
    image = ElementTree.SubElement(root, "image", {"id": "0", "name": segmented.title, **size})
    for order, (segment, outline) in enumerate(painted_parts(segmented)):
        polygon = {
            "label": visible(segmented.name_of(segment)),
            "source": "auto",
            "occluded": "0",
            "points": ";".join(f"{x:.2f},{y:.2f}" for x, y in outline),
            "z_order": str(order),
            "group_id": str(segment + 1),  # 0 is no group
        }
        ElementTree.SubElement(image, "polygon", polygon)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


CVAT = Format("cvat", "_cvat.xml", _encode, ("shapely",), has_polygons=True)
