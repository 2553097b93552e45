"""Segments of one picture: as arrays, pictures and other tools' formats, and at any other tau."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import find_objects

from diffcut_bench.errors import UserError
from diffcut_bench.escaping import counted
from diffcut_bench.reporting import Explorer, encode_png, overlay, palette, with_legend
from diffcut_bench.segmentation.hierarchy import Hierarchy
from diffcut_bench.store import write_atomically

_SHOWN = 1024  # pixels of the longer side of what a notebook shows


class Scene(Protocol):
    """What segments at any tau come from; see `diffcut_bench.segmentation.picture`."""

    def at(self, tau: float) -> "Segmentation": ...

    def hierarchy(self, max_tau: float | None) -> Hierarchy: ...

    def explore(self, max_tau: float | None, largest: int) -> Explorer: ...


@dataclass(frozen=True, repr=False)
class Segmentation:
    """Segments of one picture.

    Attributes:
        image: RGB [height, width, 3], 0..255, upright.
        labels: segment of each pixel [height, width], contiguous from 0.
        names: of each segment, with its probability among the classes; None where segments were not named.
        scene: the features and cuts that it was made from, for other values of tau; None where it was made of labels.

    Raises:
        UserError: image, labels and names are none of one picture, or ids are missing between 0 and the largest.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.int64]
    names: tuple[tuple[str, float], ...] | None = None
    scene: Scene | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        wrong = _what_is_wrong(self.image, self.labels)
        if not wrong and self.names is not None and len(self.names) != self.num_segments:
            wrong = f"{len(self.names)} names of {self.num_segments} segments"
        if wrong:
            hint = "np.unique(labels, return_inverse=True)[1].reshape(labels.shape) numbers segments from 0"
            raise UserError(wrong, "Segmentation(image, labels)", hint)
        object.__setattr__(self, "labels", self.labels.astype(np.int64, copy=False))

    @property
    def num_segments(self) -> int:
        return int(self.labels.max()) + 1

    def __repr__(self) -> str:
        height, width = self.labels.shape
        named = "" if self.names is None else f": {', '.join(sorted({name for name, _ in self.names}))}"
        return f"<Segmentation of {width} × {height} pixels into {counted(self.num_segments, 'segment')}{named}>"

    def _repr_png_(self) -> bytes:
        """What a notebook shows: the overlay, made smaller where it is large."""
        picture = self.overlay()
        picture.thumbnail((_SHOWN, _SHOWN))
        return encode_png(np.asarray(picture))

    def at(self, tau: float) -> "Segmentation":
        """The same picture at another tau. Neither its features nor its cuts are computed anew.

        Args:
            tau: threshold of the segmenter, 0 to 1. The first call makes one tree; the first one above the segmenter's
                own tau makes another, to tau 0.8 (``agglomerative``: 1) or to this one where it is greater. All others
                read it.

        Returns:
            What the segmenter gives for the picture with ``segmenter.tau=<tau>``, with names where this one has them.

        Raises:
            UserError: it was made of labels alone, or its segmenter has no tree.
        """
        return self._scene.at(tau)

    def hierarchy(self, max_tau: float | None = None) -> Hierarchy:
        """The tree of its patches: its regions, their parents, and the tau at which each appears.

        Args:
            max_tau: as in `explore`.

        Raises:
            UserError: as `at`.
        """
        return self._scene.hierarchy(max_tau)

    def explore(self, max_tau: float | None = None, largest: int = 1024) -> Explorer:
        """A page in which a slider moves tau. A notebook shows it; `Explorer.page` is its HTML. Where segments have
        names, the page shows them at this tau.

        Args:
            max_tau: end of the slider; None: 0.8 (``agglomerative``: 1). The segmenter's own tau where that is greater.
            largest: pixels of the longer side that the page's picture has at most.

        Raises:
            UserError: as `at`, or the label codes of the segmenter merge segments.
        """
        explorer = self._scene.explore(max_tau, largest)
        return explorer if self.names is None else explorer.named(self.labels, [name for name, _ in self.names])

    def masks(self) -> NDArray[np.bool_]:
        """Which pixels each segment has [segments, height, width]: one byte for each pixel and segment."""
        return self.labels == np.arange(self.num_segments)[:, None, None]

    def to_coco(self, file_name: str = "picture") -> dict[str, Any]:
        """A COCO data set of instances of this picture, with compressed run lengths: what pycocotools loads.

        Args:
            file_name: of the picture, in the data set.

        Raises:
            UserError: pycocotools is missing.
        """
        return self._as_json("coco", file_name)

    def to_geojson(self, simplify: float = 0, file_name: str = "picture") -> dict[str, Any]:
        """A GeoJSON feature collection: a polygon a segment, in pixels from the upper left corner, y down.

        Args:
            simplify: how far borders may move, in pixels; neighbours move together.
            file_name: of the picture, the collection's name.

        Raises:
            UserError: shapely is missing.
        """
        return self._as_json("geojson", file_name, simplify)

    def overlay(self) -> Image.Image:
        """The segments in colours over the picture; a legend of their names beneath it, where they have any."""
        pixels = overlay(self.image, self.labels)
        if self.names is not None:
            legend = zip(self.names, palette(self.num_segments), strict=True)
            pixels = with_legend(pixels, [(name, tuple(colour)) for (name, _), colour in legend])
        return Image.fromarray(pixels)

    def describe(self) -> list[dict[str, Any]]:
        """For each segment: id, area in pixels and as a fraction, bounding box (left, top, right, bottom), mean RGB;
        name and score where it has them."""
        count, pixels = self.num_segments, self.labels.size
        area, colours = np.zeros(count, np.int64), np.zeros((count, 3))
        strips = max(pixels >> 20, 1)  # a large picture has no room for copies
        for ids, rgb in zip(np.array_split(self.labels, strips), np.array_split(self.image, strips), strict=True):
            area += np.bincount(ids.ravel(), minlength=count)
            for channel in range(3):
                colours[:, channel] += np.bincount(ids.ravel(), rgb[..., channel].ravel(), minlength=count)
        boxes = find_objects(np.add(self.labels, 1, dtype=np.int32, casting="same_kind"))
        return [
            {
                "id": segment,
                "area_px": int(area[segment]),
                "area_fraction": round(int(area[segment]) / pixels, 6),
                "bbox": [cols.start, rows.start, cols.stop, rows.stop],
                "mean_rgb": (colours[segment] / area[segment]).round(1).tolist(),
                **({} if self.names is None else dict(zip(("name", "score"), self.names[segment], strict=True))),
            }
            for segment, (rows, cols) in enumerate(boxes)
        ]

    def label_png(self) -> bytes:
        """A PNG whose values are segment ids: 8 bits that a palette shows in the overlay's colours (mode P), or 16 from
        257 segments on."""
        if self.num_segments <= 256:
            return encode_png(self.labels.astype(np.uint8), palette(self.num_segments))
        return encode_png(self.labels.astype(np.uint16))

    def overlay_png(self) -> bytes:
        """The `overlay` as a PNG."""
        return encode_png(np.asarray(self.overlay()))

    def save(self, labels_path: str | Path, overlay_path: str | Path) -> None:
        """Write `label_png` and `overlay_png`.

        Raises:
            UserError: a folder can't be written.
        """
        write_atomically(Path(labels_path), self.label_png())
        write_atomically(Path(overlay_path), self.overlay_png())

    @property
    def _scene(self) -> Scene:
        if self.scene is None:
            raise UserError(
                "made of labels alone, so there are no features for another tau",
                "this Segmentation",
                "diffcut_bench.segment(picture) gives one that has them",
            )
        return self.scene

    def _as_json(self, name: str, file_name: str, simplify: float = 0) -> dict[str, Any]:
        from diffcut_bench.segmentation.formats import FORMATS, Segmented  # they know this class

        FORMATS[name].check_libraries()
        text = FORMATS[name].encode(Segmented(file_name, self, simplify))
        assert isinstance(text, str)
        found: dict[str, Any] = json.loads(text)
        return found


def _what_is_wrong(image: object, labels: object) -> str:
    """With the arrays of a picture and its segments; empty: nothing is."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        return "the image is no uint8 array [height, width, 3]"
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu" or not labels.size:
        return "the labels are no array of integers [height, width]"
    if labels.shape != image.shape[:2]:
        return f"an image of {list(image.shape[:2])} and labels of {list(labels.shape)} pixels"
    if (
        labels.min() < 0
        or labels.max() >= labels.size
        or not np.bincount(labels.ravel().astype(np.int64, copy=False)).all()
    ):
        return "the labels are not all of 0 to the number of segments"
    return ""
