"""Where the pixels of a picture lie on a map: the tags of a GeoTIFF, or the world file beside a picture."""

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffcut_bench.errors import UserError

# Of TIFF and of GeoTIFF 1.1 (OGC 19-008r4).
_ORIENTATION, _PIXEL_SCALE, _TIEPOINT, _TRANSFORMATION, _GEO_KEYS = 274, 33550, 33922, 34264, 34735
_RASTER_TYPE, _GEOGRAPHIC_CRS, _PROJECTED_CRS = 1025, 2048, 3072
_PIXEL_IS_POINT = 2
_USER_DEFINED = 32767
_WKT_CODE = re.compile(r'(?:AUTHORITY|ID)\s*\[\s*"EPSG"\s*,\s*"?(\d+)"?\s*\]\s*\]$', re.IGNORECASE)  # of the whole


@dataclass(frozen=True)
class Georeference:
    """A picture on a map.

    Attributes:
        matrix: from (x, y, 1) to map coordinates [2, 3], where x and y count pixels from the upper left corner.
        size: height and width of the picture.
        epsg: code of the map's coordinate reference system, of its GeoTIFF keys or of the ``.prj`` beside a world file;
            None where it is not said.
    """

    matrix: NDArray[np.float64]
    size: tuple[int, int]
    epsg: int | None = None

    def __call__(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map coordinates [n, 2] of points (x, y) [n, 2]."""
        return points @ self.matrix[:, :2].T + self.matrix[:, 2]

    def check_size(self, image: Path, size: tuple[int, ...]) -> None:
        """Raise a UserError where the segments are not of the picture's own pixels."""
        if size != self.size:
            theirs, own = (f"{width} × {height} pixels" for height, width in (self.size, size))
            what = f"its map coordinates are of {theirs}, its segments of {own}"
            raise UserError(what, str(image), "segment it whole: protocol=strict")


def read_georeference(image: Path) -> Georeference | None:
    """What a picture's own tags say, else its world file, such as ``photo.jgw``; None: neither is there.

    Raises:
        UserError: they are there, and can't be used.
        OSError: the picture can't be opened.
    """
    world = next((path for path in _world_files(image) if path.is_file()), None)
    if world is None and image.suffix.lower() not in (".tif", ".tiff"):
        return None
    with Image.open(image) as opened:
        size, turned = (opened.height, opened.width), opened.getexif().get(_ORIENTATION, 1) != 1
        tags: Mapping[int, Any] = getattr(opened, "tag_v2", {})
    matrix = _matrix_of_tags(tags, image)
    epsg = None if matrix is None else _epsg(tags)
    if matrix is None and world is not None:
        matrix, epsg = _matrix_of_world_file(world), _epsg_beside(image)
    if matrix is None:
        return None
    if turned:
        raise UserError("map coordinates of a picture that is stored turned", str(image), "store it upright")
    if not np.isfinite(matrix).all() or np.linalg.det(matrix[:, :2]) == 0:
        raise UserError("its pixels cover no area of the map", str(world or image), "mend its map coordinates")
    return Georeference(matrix, size, epsg)


def _world_files(image: Path) -> list[Path]:
    """Names that a world file may have: first and last letter of the suffix and a w, the whole suffix and a w, wld."""
    suffix = image.suffix.removeprefix(".")
    ends = [f"{suffix[:1]}{suffix[-1:]}w", f"{suffix}w", "wld"]
    return [image.with_suffix(f".{end}") for wanted in ends for end in (wanted, wanted.lower(), wanted.upper())]


def _matrix_of_world_file(path: Path) -> NDArray[np.float64]:
    """Of its six numbers: what a column adds to x and y, what a row adds, and the centre of the first pixel."""
    try:
        a, d, b, e, c, f = (float(word) for word in path.read_text(encoding="utf-8").split())
    except ValueError as error:  # text that is not UTF-8 is one too
        raise UserError(f"not the six numbers of a world file ({error})", str(path), "mend it, or move it") from error
    return np.array([[a, b, c - (a + b) / 2], [d, e, f - (d + e) / 2]])


def _epsg_beside(image: Path) -> int | None:
    """Code of the reference system in the ``.prj`` beside a picture (WKT): as pyproj or rasterio find it, where one of
    them is installed, else the EPSG code that the text itself gives; ESRI's own gives none."""
    path = next((path for path in map(image.with_suffix, (".prj", ".PRJ")) if path.is_file()), None)
    if path is None:
        return None
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    for module in ("pyproj", "rasterio.crs"):
        try:
            found: int | None = importlib.import_module(module).CRS.from_wkt(text).to_epsg()
            return found
        except ImportError:
            continue
        except Exception:  # each has errors of its own for what is no WKT
            return None
    code = _WKT_CODE.search(text)
    return int(code[1]) if code else None


def _matrix_of_tags(tags: Mapping[int, Any], image: Path) -> NDArray[np.float64] | None:
    scale, tiepoint, transformation = (tags.get(tag, ()) for tag in (_PIXEL_SCALE, _TIEPOINT, _TRANSFORMATION))
    if len(transformation) == 16:
        matrix = np.array(transformation, dtype=float).reshape(4, 4)[:2, [0, 1, 3]]
    elif len(scale) >= 2 and len(tiepoint) == 6:
        x, y, _, east, north, _ = tiepoint
        matrix = np.array([[scale[0], 0, east - x * scale[0]], [0, -scale[1], north + y * scale[1]]], dtype=float)
    elif tiepoint:
        raise UserError("points on the map, but no step a pixel", str(image), "rectify it, as gdalwarp does")
    else:
        return None
    if _geo_keys(tags).get(_RASTER_TYPE) == _PIXEL_IS_POINT:  # what is said of a corner is of the pixel's centre
        matrix[:, 2] -= matrix[:, :2].sum(axis=1) / 2
    return matrix


def _epsg(tags: Mapping[int, Any]) -> int | None:
    keys = _geo_keys(tags)
    code = keys.get(_PROJECTED_CRS) or keys.get(_GEOGRAPHIC_CRS) or _USER_DEFINED
    return None if code == _USER_DEFINED else code


def _geo_keys(tags: Mapping[int, Any]) -> dict[int, int]:
    """Of the directory, four numbers each: a header, then a key's id, where its value is (0: here), count and value."""
    directory = tags.get(_GEO_KEYS, ())
    quads = [directory[start : start + 4] for start in range(4, len(directory) - 3, 4)]
    return {key: value for key, place, _, value in quads if place == 0}
