"""What a format of segments is, and what it is written from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from diffcut_bench.escaping import visible
from diffcut_bench.extras import require
from diffcut_bench.segmentation.formats.georeference import Georeference
from diffcut_bench.segmentation.formats.polygons import segment_polygons
from diffcut_bench.segmentation.result import Segmentation
from diffcut_bench.store import unwritable, write_atomically

Content = str | bytes | Mapping[str, bytes]  # of a file; of each file of a folder, by name
UNNAMED = "segment"  # the class of segments without names


@dataclass(frozen=True)
class Segmented:
    """A picture and its segments, as all formats see them.

    Attributes:
        image: path of the picture below the folder that named it, or its file name.
        result: its segments.
        simplify: how far the borders of polygons may move, in pixels; 0: they are the edges of pixels.
        georeference: where its pixels lie on a map; None where the picture does not say so.
        tau: that the segments were found at; None where that is not known, or no threshold.
    """

    image: str
    result: Segmentation
    simplify: float = 0
    georeference: Georeference | None = None
    tau: float | None = None

    @property
    def title(self) -> str:
        """The file name, with characters that no text file takes written out."""
        return visible(self.image)

    @cached_property
    def described(self) -> list[dict[str, Any]]:
        return self.result.describe()

    @cached_property
    def polygons(self) -> list[Any]:
        """A shapely Polygon or MultiPolygon of each segment; see `segment_polygons`."""
        return segment_polygons(self.result.labels, self.simplify)

    @property
    def class_names(self) -> list[str]:
        """Of the segments, each once, in the order of their names."""
        return sorted({self.name_of(segment) for segment in range(self.result.num_segments)})

    def name_of(self, segment: int) -> str:
        return UNNAMED if self.result.names is None else self.result.names[segment][0]


@dataclass(frozen=True)
class Format:
    """One way to write segments.

    Attributes:
        name: after ``--format``.
        suffix: of its file, or folder, behind the picture's name.
        encode: content of the file; of a folder's files by name.
        libraries: that it is written with, beyond those that the package always has.
        has_polygons: whether ``simplify`` changes it.
        needs_tree: whether it is made of features and cuts; else label picture and picture suffice.
    """

    name: str
    suffix: str
    encode: Callable[[Segmented], Content]
    libraries: tuple[str, ...] = ()
    has_polygons: bool = field(default=False, kw_only=True)
    needs_tree: bool = field(default=False, kw_only=True)

    def check_libraries(self) -> None:
        """Raise a UserError where a library is missing."""
        require("formats", f"--format {self.name}", *self.libraries)

    def recorded(self, simplify: float) -> dict[str, Any]:
        """What it depends on besides the segments, for segments.json."""
        return {"simplify": simplify} if self.has_polygons else {}


def write_content(path: Path, content: Content) -> None:
    """Write what `Format.encode` gives, each file atomically.

    Raises:
        UserError: the folder can't be written.
    """
    if isinstance(content, (str, bytes)):
        write_atomically(path, content)
        return
    for name, data in content.items():
        write_atomically(path / name, data)
    for left in _numbered(path):  # of an earlier call that found more segments
        if left.name not in content:
            left.unlink(missing_ok=True)


def remove_written(path: Path) -> None:
    """Remove what `write_content` wrote; of a link, the link alone. Whatever else lies in its folder stays.

    Raises:
        UserError: it can't be removed.
    """
    try:
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
            return
        for each in _numbered(path):
            each.unlink(missing_ok=True)
        if not any(path.iterdir()):
            path.rmdir()
    except OSError as error:
        raise unwritable(path, error) from error


def _numbered(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.png") if path.stem.isdecimal()]
