"""GeoJSON (RFC 7946): a feature a segment. In map coordinates where the picture has them, else in pixels."""

import json
from typing import Any

from diffcut_bench.segmentation.formats.interface import Format, Segmented


def _encode(segmented: Segmented) -> str:
    import shapely

    collection: dict[str, Any] = {"type": "FeatureCollection", "name": segmented.title, "features": []}
    on_map, polygons = segmented.georeference, segmented.polygons
    if on_map is not None:
        polygons = [shapely.transform(polygon, on_map) for polygon in polygons]
        if on_map.epsg is not None:
            # RFC 7946 knows longitude and latitude only. GDAL and QGIS read the member of the GeoJSON before it.
            name = f"urn:ogc:def:crs:EPSG::{on_map.epsg}"
            collection["crs"] = {"type": "name", "properties": {"name": name}}
    for properties, polygon in zip(segmented.described, shapely.orient_polygons(polygons), strict=True):
        geometry = shapely.geometry.mapping(polygon)
        collection["features"].append(
            {"type": "Feature", "id": properties["id"], "properties": properties, "geometry": geometry}
        )
    return json.dumps(collection) + "\n"


GEOJSON = Format("geojson", ".geojson", _encode, ("shapely",), has_polygons=True)
