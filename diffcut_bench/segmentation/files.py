"""Files of pictures, segmented in batches; each is recorded as it is done, and found again by the next call."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffcut_bench.datasets.decoding import TooManyPixelsError
from diffcut_bench.errors import UserError
from diffcut_bench.segmentation.entries import Key
from diffcut_bench.segmentation.formats import FORMATS, Format, Segmented, read_georeference
from diffcut_bench.segmentation.listing import NamedPicture
from diffcut_bench.segmentation.picture import PictureSegmenter
from diffcut_bench.segmentation.reading import as_rgb
from diffcut_bench.segmentation.record import SegmentRecord
from diffcut_bench.segmentation.result import Segmentation
from diffcut_bench.store import CellLock, log_error
from diffcut_bench.traces import CodeError, error_in_code, is_debugging


@dataclass(frozen=True)
class SegmentedFile:
    """How the segmentation of a file ended.

    Attributes:
        path: of the picture.
        entry: its entry in segments.json; None where it could not be segmented.
        before: whether it was recorded by an earlier call, or by another process meanwhile.
        error: why it could not be segmented.
        is_too_large: whether that is because it has more pixels than ``max_pixels``; it was not decoded.
    """

    path: Path
    entry: dict[str, Any] | None = None
    before: bool = False
    error: UserError | None = None

    @property
    def is_too_large(self) -> bool:
        return self.error is not None and isinstance(self.error.__cause__, TooManyPixelsError)


@dataclass(frozen=True)
class _Claimed:
    """A picture that this process segments.

    Attributes:
        picture: the file.
        claim: the right to it.
        key: of the file's content now; None where it can't be read.
    """

    picture: NamedPicture
    claim: CellLock
    key: Key | None


class FileSegmenter:
    """Segments files of pictures into a folder.

    Args:
        segmenter: of pictures.
        record: of the folder that they are written into.
        formats: to write; the label picture is among them.
        simplify: how far the borders of polygons may move, in pixels.
        overwrite: segment all, also those that were segmented before.
        batch_size: pictures that are segmented together.
        max_pixels: width × height that a picture may have.

    Raises:
        UserError: the segmenter has no tree where a format needs one.
    """

    def __init__(
        self,
        segmenter: PictureSegmenter,
        record: SegmentRecord,
        formats: Sequence[Format],
        simplify: float = 0,
        overwrite: bool = False,
        batch_size: int = 1,
        max_pixels: int = 64_000_000,
    ) -> None:
        self._segmenter, self._record, self._formats, self._simplify = segmenter, record, formats, simplify
        self._overwrite, self._batch_size, self._max_pixels = overwrite, batch_size, max_pixels
        self._is_only_one = False
        self._tau = segmenter.tree_method().tau if any(each.needs_tree for each in formats) else None
        if FORMATS["explorer"] in formats:
            segmenter.tree_method(nested=True)

    def __call__(self, pictures: Sequence[NamedPicture]) -> Iterator[SegmentedFile]:
        """Segment files; each is recorded as it is done, and one that was recorded before is not done again.

        Several processes share the files of a folder: each segments those that no other process is working on, and at
        the end waits for the rest, in case a process dies.

        Yields:
            How each ended, about in their order.

        Raises:
            UserError: the folder can't be written, or its record is damaged.
            Exception: of the only picture, if it is none of a user's mistakes.
        """
        self._is_only_one = len(pictures) == 1
        taken: list[NamedPicture] = []  # by others
        batch: list[_Claimed] = []
        try:
            for picture in pictures:
                found = self._before(picture, self._entry(picture))
                if found is not None:
                    yield found
                    continue
                claim = self._record.claim(picture.path)
                if not claim.acquire():
                    taken.append(picture)
                    continue
                yield from self._begin(picture, claim, batch)
                if len(batch) == self._batch_size:
                    yield from self._finish(batch)
            yield from self._finish(batch)
            for picture in taken:
                claim = self._record.claim(picture.path)
                claim.wait(lambda holder: None)
                yield from self._begin(picture, claim, batch)
                yield from self._finish(batch)
        finally:
            for each in batch:
                each.claim.release()

    def _entry(self, picture: NamedPicture) -> dict[str, Any] | None:
        """Of a file that was segmented before; None where that does not matter. It reads the whole file."""
        return None if self._overwrite else self._record.find(picture.path)

    def _before(self, picture: NamedPicture, entry: dict[str, Any] | None) -> SegmentedFile | None:
        """A file that was segmented before, if all of its formats are there."""
        if entry is None or self._record.missing(entry, self._formats, self._simplify):
            return None
        return SegmentedFile(picture.path, entry, before=True)

    def _begin(self, picture: NamedPicture, claim: CellLock, batch: list[_Claimed]) -> Iterator[SegmentedFile]:
        """Finish a picture that needs no segmenting; put any other into the batch."""
        try:
            entry = self._entry(picture)  # another process may have done it meanwhile
            found = self._before(picture, entry)
            if found is None and entry is not None:
                found = self._written_anew(picture, entry)
            key = self._key(picture.path) if found is None else None
        except BaseException:
            claim.release()
            raise
        if found is None:
            batch.append(_Claimed(picture, claim, key))
        else:
            claim.release()
            yield found

    def _key(self, path: Path) -> Key | None:
        try:
            return self._record.key(path)
        except OSError:  # the segmenter says why
            return None

    def _written_anew(self, picture: NamedPicture, entry: Mapping[str, Any]) -> SegmentedFile | None:
        """Further formats of segments that are there, if they can be made of label picture and picture."""
        missing = self._record.missing(entry, self._formats, self._simplify)
        if any(each.needs_tree for each in missing):
            return None
        try:
            key = self._record.key(picture.path)
            result = _read_back(entry, self._record.folder / entry["labels"], picture.path, self._max_pixels)
        except (OSError, ValueError, UserError):
            return None
        if result is None or key != (entry["image"], entry["sha256"]):
            return None
        return self._written(picture, key, result, [FORMATS["labels"], *missing], entry)

    def _finish(self, batch: list[_Claimed]) -> Iterator[SegmentedFile]:
        """Segment a batch, write it, and empty it."""
        paths = [each.picture.path for each in batch]
        results: list[Segmentation | Exception]
        try:
            results = list(self._segmenter.try_map(paths, max(len(batch), 1)))
        except Exception:  # whatever it is, it is of one of them
            if is_debugging():
                raise
            results = [self._alone(path) for path in paths]
        for each, result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                yield self._failed(each.picture.path, result)
            elif each.key is None or each.key != self._key(each.picture.path):
                yield self._failed(
                    each.picture.path, UserError("changed meanwhile", str(each.picture.path), "try again")
                )
            else:
                yield self._written(each.picture, each.key, result, self._formats)
            each.claim.release()
        batch.clear()

    def _alone(self, path: Path) -> Segmentation | Exception:
        try:
            return next(self._segmenter.try_map([path]))
        except Exception as error:
            return error

    def _failed(self, path: Path, error: Exception) -> SegmentedFile:
        """A picture that failed. What is neither a user's mistake nor of her code is raised where there is only this
        picture; under ``--debug`` whatever code raised."""
        if is_debugging() and (isinstance(error, CodeError) or not isinstance(error, UserError)):
            raise error
        if isinstance(error, UserError):
            log_error(self._record.base, error)
            return SegmentedFile(path, error=error)
        found = error_in_code(error, str(path))
        if self._is_only_one and not (isinstance(found, CodeError) and found.trace.of_user):
            raise error
        log_error(self._record.base, found)
        return SegmentedFile(path, error=found)

    def _written(
        self,
        picture: NamedPicture,
        key: Key,
        result: Segmentation,
        formats: Sequence[Format],
        entry: Mapping[str, Any] | None = None,
    ) -> SegmentedFile:
        """Encode and record a picture's segments, of now or of an earlier call (``entry``)."""
        path = picture.path
        try:
            georeference = read_georeference(path) if FORMATS["geojson"] in formats else None
            if georeference is not None:
                georeference.check_size(path, result.labels.shape)
            segmented = Segmented(picture.relative.as_posix(), result, self._simplify, georeference, self._tau)
            contents = {each: each.encode(segmented) for each in formats}
            height, width = result.labels.shape
            segments = segmented.described if entry is None else entry["segments"]
        except Exception as error:
            return self._failed(path, error)
        described = {"width": width, "height": height, "segments": segments}
        return SegmentedFile(path, self._record.add(picture, key, described, contents, self._simplify))


def _read_back(entry: Mapping[str, Any], labels_path: Path, image: Path, max_pixels: int) -> Segmentation | None:
    """Segments from their label picture; None where it is not as it was written, or the picture was cropped.

    Raises:
        OSError, ValueError, UserError: one of the pictures can't be read.
    """
    with Image.open(labels_path) as picture:
        labels = np.asarray(picture).astype(np.int64)
    pixels = np.asarray(as_rgb(image, max_pixels))
    segments = entry["segments"]
    if pixels.shape[:2] != labels.shape or not np.array_equal(np.unique(labels), np.arange(len(segments))):
        return None
    named = all("name" in segment for segment in segments)
    return Segmentation(pixels, labels, tuple((each["name"], each["score"]) for each in segments) if named else None)
