"""Files of pictures, segmented one by one; each is recorded as it is done, and found again by the next call."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from diffcut_bench.errors import UserError
from diffcut_bench.paths import expanded
from diffcut_bench.segmentation.formats import Format, Segmented, read_georeference
from diffcut_bench.segmentation.picture import PictureSegmenter
from diffcut_bench.segmentation.record import SegmentRecord


@dataclass(frozen=True)
class SegmentedFile:
    """How the segmentation of a file ended.

    Attributes:
        path: of the picture.
        entry: its entry in segments.json; None where it could not be segmented.
        before: whether it was recorded by an earlier call.
        error: why it could not be segmented.
    """

    path: Path
    entry: dict[str, Any] | None = None
    before: bool = False
    error: UserError | None = None


def picture_files(words: Sequence[str]) -> list[Path]:
    """Every picture that is named, or that lies in a folder that is named; none twice.

    Raises:
        UserError: there is no picture in a folder.
    """
    paths: list[Path] = []
    suffixes = Image.registered_extensions()
    for path in (Path(expanded(word, "picture")) for word in words):
        found = [path]
        if path.is_dir():
            found = [p for p in path.iterdir() if p.suffix.lower() in suffixes and p.name[0] != "." and p.is_file()]
        if not found:
            hint = "name the pictures, or a folder that holds them"
            raise UserError("no picture in this folder", str(path), hint)
        paths += sorted(found)
    return list(dict.fromkeys(paths))


def segment_files(
    paths: Sequence[Path],
    segmenter: PictureSegmenter,
    record: SegmentRecord,
    if_exists: str,
    formats: Sequence[Format] = (),
    simplify: float = 0,
) -> Iterator[SegmentedFile]:
    """Segment files of pictures; each is recorded as it is done, and one that was recorded before is not done again.

    Args:
        paths: of the pictures.
        segmenter: of pictures.
        record: of the folder that they are written into.
        if_exists: ``overwrite`` segments all.
        formats: written besides label and overlay pictures.
        simplify: how far the borders of polygons may move, in pixels.

    Raises:
        UserError: the only one could not be read, the segmenter has no tree where one is asked for, or the record in
            the folder is damaged.
    """
    names = {each.name for each in formats}
    if "tree" in names:
        segmenter.check_has_tree()
    if "explorer" in names:
        segmenter.check_explorable()
    for path in paths:
        entry = record.find(path, formats, simplify) if if_exists != "overwrite" else None
        if entry is not None:
            yield SegmentedFile(path, entry, before=True)
            continue
        try:
            georeference = read_georeference(path) if "geojson" in names else None
            result = segmenter(path)
            if georeference is not None:
                georeference.check_size(path, result.labels.shape)
            segmented = Segmented(path.name, result, simplify, georeference)
            contents = {each: each.encode(segmented) for each in formats}
        except Exception as error:  # whatever it is, the other pictures are segmented
            if len(paths) == 1:
                raise
            what = f"{type(error).__name__}: {error}".splitlines()[0]
            unexpected = UserError(what, str(path), "segment this picture alone to see more")
            yield SegmentedFile(path, error=error if isinstance(error, UserError) else unexpected)
            continue
        yield SegmentedFile(path, record.add(path, result, contents, simplify))
