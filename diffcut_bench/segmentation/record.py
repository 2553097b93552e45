"""The folder that `diffcut-bench segment` writes: files of each picture, and segments.json, which lists them.

An entry is of a file: its path and the SHA-256 of its content. Other settings replace it; another content or another
path gets an entry and names of its own, so that no picture of an earlier call is written over. An entry is found only
while its label picture is there. Several processes may add to one folder.

While calls run, each picture adds two lines to a journal, segments.jsonl: one before its files are written, which names
them, and its entry after them. A first line without a second is of a process that was killed: the next process that
writes removes its files. `SegmentRecord.close` makes segments.json of both, and removes the journal.
"""

import hashlib
import io
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from diffcut_bench.errors import UserError
from diffcut_bench.paths import portable_path
from diffcut_bench.segmentation.entries import Entries, Key, files_of, with_files
from diffcut_bench.segmentation.formats import FORMATS, Content, Format, remove_written, write_content
from diffcut_bench.segmentation.formats.coco import COCO_OF_ALL, is_joined_coco, joined_coco
from diffcut_bench.segmentation.listing import RECORD_NAMES, NamedPicture
from diffcut_bench.store import (
    CellLock,
    append_line,
    cell_key,
    parse_lines,
    remove_partial,
    unwritable,
    write_atomically,
)

_SETTINGS = 12  # digits of the key of the settings
_WHOSE = "segments"
_CLAIMS = ".locks"
_LONGEST = 180  # bytes of a file's stem: folders hold names of 255, and suffixes and a writer's temporary name join it


class SegmentRecord:
    """The record of a folder, read anew before each addition.

    Args:
        folder: that everything is written into.
        base: folder that paths in it are written relative to, see `diffcut_bench.paths.portable_path`.
        config: of this call, as it may be shown to anyone.
        identity: everything that segments depend on, see `PictureSegmenter.identity`.

    Raises:
        UserError: a segments.json is there that is damaged or none of ours.
    """

    def __init__(self, folder: Path, base: Path, config: dict[str, Any], identity: dict[str, Any]) -> None:
        self.folder, self.base = folder, base
        self.path, self._journal = (folder / name for name in RECORD_NAMES)
        self._config, self._settings = config, cell_key(identity)[:_SETTINGS]
        self._known = Entries()
        self._states: tuple[Any, Any] = ((), ())  # of segments.json and the journal, when they were read
        self._read_to = 0  # bytes of the journal
        self._refresh()

    def key(self, image: Path) -> Key:
        """Of the entry of a file.

        Raises:
            OSError: it is no file, or can't be read.
        """
        if not image.is_file():  # a pipe or a device may never end
            raise OSError(f"{image} is no file")
        with image.open("rb") as file:
            return portable_path(image, self.base), hashlib.file_digest(file, "sha256").hexdigest()

    def find(self, image: Path) -> dict[str, Any] | None:
        """The entry of a file that was segmented with these settings, its label picture being there."""
        self._refresh()
        if not self._known.has_path(portable_path(image, self.base)):
            return None
        try:
            entry = self._known.find(self.key(image))
        except OSError:  # whoever segments it says why
            return None
        if entry is None or entry["settings"] != self._settings or not (self.folder / entry["labels"]).is_file():
            return None
        return entry

    def missing(self, entry: Mapping[str, Any], formats: Sequence[Format], simplify: float = 0) -> list[Format]:
        """Those of the formats that an entry does not have, or whose files are not there."""
        files = files_of(entry)
        return [
            each
            for each in formats
            if (file := files.get(each.name)) is None
            or file != {"path": file["path"], **each.recorded(simplify)}
            or not (self.folder / file["path"]).exists()
        ]

    def files(self, entry: Mapping[str, Any]) -> dict[str, Path]:
        """The files of an entry, by format."""
        return {name: self.folder / file["path"] for name, file in files_of(entry).items()}

    def is_written(self, path: Path) -> bool:
        """Whether a file is one of those that this command wrote into the folder."""
        try:
            inside = path.absolute().relative_to(self.folder.absolute())
        except ValueError:
            return False
        return self._known.has_file(inside.as_posix())

    def claim(self, image: Path) -> CellLock:
        """The right to segment a file, which one process has at a time; its death gives it back."""
        name = portable_path(image, self.base).encode("utf-8", "surrogatepass")
        return CellLock(self.folder / _CLAIMS / f"{hashlib.sha256(name).hexdigest()[:16]}.lock")

    def add(
        self,
        picture: NamedPicture,
        key: Key,
        described: Mapping[str, Any],
        contents: Mapping[Format, Content],
        simplify: float = 0,
    ) -> dict[str, Any]:
        """Write the files of a picture, and its entry.

        Args:
            picture: its file.
            key: of the file as it was segmented.
            described: ``width``, ``height`` and ``segments`` of the entry.
            contents: of its files, the label picture's among them. What a former entry has besides stays where the
                label picture is the same; else it goes, since it is of other segments.
            simplify: that the contents were made with.

        Returns:
            The entry.

        Raises:
            UserError: the folder can't be written, or its record is damaged.
        """
        with self._locked():
            self._remove_unfinished()
            former = self._known.find(key)
            before = {} if former is None else files_of(former)
            labels = FORMATS["labels"]
            kept = {}
            if former and former["settings"] == self._settings and self._holds(former["labels"], contents[labels]):
                contents = {each: content for each, content in contents.items() if each is not labels}
                made = {each.name for each in contents}
                kept = {each: file for each, file in before.items() if each not in made}
            name = self._name(former, picture.relative, contents)
            written = {each.name: {"path": name + each.suffix, **each.recorded(simplify)} for each in contents}
            gone = [file["path"] for each, file in before.items() if each not in kept]
            entry = with_files(
                {
                    "image": key[0],
                    "sha256": key[1],
                    "file_name": picture.relative.as_posix(),
                    "settings": self._settings,
                    **described,
                },
                kept | written,
            )
            if self._settings not in self._known.configs:
                self._append({"settings": self._settings, "config": self._config})
            files = list(dict.fromkeys([*gone, *(file["path"] for file in written.values())]))
            self._append({"begin": key, "entry": with_files(entry, kept) if kept else None, "files": files})
            for path in gone:
                remove_written(self._place(path))
            for each, content in contents.items():
                write_content(self.folder / written[each.name]["path"], content)
            self._append({"entry": entry})
        return entry

    def close(self) -> None:
        """Make segments.json of all that was added, and the COCO file of all pictures that have one each; remove the
        journal.

        Raises:
            UserError: the folder can't be written, or its record is damaged.
        """
        has_coco = any("coco" in files_of(entry) for entry in self._known.by_key.values())
        if self._journal.is_file() or has_coco != (self.folder / COCO_OF_ALL).is_file():
            with self._locked():
                self._remove_unfinished()
                self._write_coco()
                remove_partial(self.path)
                write_atomically(self.path, json.dumps(self._known.to_dict(), indent=1) + "\n")
                self._journal.unlink(missing_ok=True)
        with suppress(OSError, UserError):  # others hold claims
            for left in (self.folder / _CLAIMS).glob("*.lock"):  # by a process that was killed
                claim = CellLock(left)
                if claim.acquire():
                    claim.release()
            (self.folder / _CLAIMS).rmdir()

    def _write_coco(self) -> None:
        path = self.folder / COCO_OF_ALL
        joined = joined_coco(self.folder, self._known.by_key.values())
        is_ours = path.is_file() and is_joined_coco(path)
        if joined is None and is_ours:
            remove_written(path)
        elif joined is not None:
            if path.exists() and not is_ours:
                what = "not written by this command, and in the way of the COCO file of all pictures"
                raise UserError(what, str(path.absolute()), "move this file away, and call again: nothing is lost")
            write_atomically(path, joined)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Within, no other process writes, and all that others wrote is known."""
        lock = FileLock(self.folder / ".segments.lock")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
            cause = error if isinstance(error, OSError) else OSError(str(error))
            raise unwritable(self.path, cause) from error
        try:
            self._refresh()
            yield
        finally:
            lock.release()

    def _refresh(self) -> None:
        """Read what was written since the last time. A folder may hold a hundred thousand pictures, so that no more is
        read again than what has changed."""
        record, journal = _state(self.path), _state(self._journal)
        if (record, journal) == self._states:
            return
        same = record == self._states[0] and journal[:1] == self._states[1][:1]
        start = self._read_to if same else 0
        try:
            # The journal first: a process that closes the record writes segments.json before it removes the journal.
            lines = _content_from(self._journal, start)
            if not same:
                self._known = self._read()
        except OSError as error:
            raise unwritable(self.path, error) from error
        end = lines.rfind(b"\n") + 1  # what follows is being written
        for line in parse_lines(lines[:end], _WHOSE):
            if line is not None:
                with suppress(ValueError, KeyError, TypeError):  # a line of others: it costs its picture only
                    self._known.apply(line)
        self._states, self._read_to = (record, journal), start + end

    def _read(self) -> Entries:
        try:
            return Entries.of(json.loads(self.path.read_text(encoding="utf-8")), self.base)
        except FileNotFoundError:
            return Entries()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(
                f"damaged, or not written by this command ({error})",
                str(self.path.absolute()),
                "move this file away, or choose another folder; its pictures are left alone",
            ) from error

    def _append(self, line: dict[str, Any]) -> None:
        try:
            append_line(self._journal, line, _WHOSE)
        except OSError as error:
            raise unwritable(self._journal, error) from error
        self._refresh()

    def _remove_unfinished(self) -> None:
        """Remove the files of processes that were killed: all unfinished ones, as the lock is held."""
        if not self._known.unfinished:
            return
        for path in itertools.chain.from_iterable(self._known.unfinished.values()):
            if not self._known.is_named(path):
                remove_partial(self._place(path))
                remove_written(self._place(path))
        self._append({"removed": True})

    def _place(self, path: str) -> Path:
        """Of a file that is to be removed. A record may come from anyone: none outside the folder is."""
        place = self.folder / path
        if not place.parent.resolve().is_relative_to(self.folder.resolve()):
            raise UserError("a link leads out of the folder", str(place.parent), "move this link away, and call again")
        return place

    def _holds(self, path: str, labels: Content) -> bool:
        """Whether a label picture that is there has the same segments."""
        assert isinstance(labels, bytes)
        try:
            before = (self.folder / path).read_bytes()
            return before == labels or np.array_equal(_values(before), _values(labels))
        except Exception:  # Pillow raises many kinds
            return False

    def _name(self, former: Mapping[str, Any] | None, relative: PurePath, formats: Iterable[Format]) -> str:
        """Of a picture's files that are written now: that of its earlier ones, else its own without suffix, or with -2
        and so on where other files have it.

        Upper and lower case are one name: on some file systems they are.
        """
        if former is not None:
            name = str(former["labels"]).removesuffix(FORMATS["labels"].suffix)
            own = {file["path"] for file in files_of(former).values()}
            if not any(self._is_taken(name + each.suffix) for each in formats if name + each.suffix not in own):
                return name
        stem = _short(relative.with_suffix("")).as_posix()
        names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
        return next(name for name in names if not any(self._is_taken(name + each.suffix) for each in FORMATS.values()))

    def _is_taken(self, path: str) -> bool:
        return path == COCO_OF_ALL or self._known.is_named(path) or os.path.lexists(self.folder / path)


def _short(stem: PurePath) -> PurePath:
    """A path whose last part has room for suffixes; one that is too long is cut, with a digest at its end."""
    name = os.fsencode(stem.name)
    if len(name) <= _LONGEST:
        return stem
    cut = name[:_LONGEST].decode(errors="ignore")
    return stem.with_name(f"{cut}-{hashlib.sha256(name).hexdigest()[:8]}")


class WrittenFiles:
    """Whether files were written by this command: segments are no pictures to segment.

    Args:
        record: of the folder that is written into now, which need not be read again. Those of other folders are found.
    """

    def __init__(self, record: SegmentRecord | None = None) -> None:
        self._records: dict[Path, SegmentRecord | UserError | None] = {}
        if record is not None:
            self._records[record.folder.absolute()] = record

    def __call__(self, path: Path, root: Path) -> bool:
        """Whether a file is one of those, or lies in a folder below ``root`` whose record can't be read."""
        top = root.absolute()
        for folder in path.absolute().parents:
            record = self._of(folder)
            if folder != top and isinstance(record, UserError) and folder.is_relative_to(top):
                return True
            if isinstance(record, SegmentRecord) and record.is_written(path):
                return True
        return False

    def _of(self, folder: Path) -> SegmentRecord | UserError | None:
        if folder not in self._records:
            found: SegmentRecord | UserError | None = None
            if any((folder / name).is_file() for name in RECORD_NAMES):
                try:
                    found = SegmentRecord(folder, folder, {}, {})
                except UserError as error:
                    found = error
            self._records[folder] = found
        return self._records[folder]


def _state(path: Path) -> tuple[int, ...]:
    """Changes whenever a file is written; its first number when it is replaced."""
    try:
        state = path.stat()
    except OSError:
        return ()
    return state.st_ino, state.st_size, state.st_mtime_ns


def _content_from(path: Path, start: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read()
    except FileNotFoundError:
        return b""


def _values(png: bytes) -> NDArray[np.generic]:
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture)
