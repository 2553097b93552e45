"""segments.json: what `diffcut-bench segment` has written into a folder, picture by picture.

An entry is of a file: its path and the SHA-256 of its content. Other settings replace it; another content or another
path gets an entry and names of its own, so that no picture of an earlier call is written over. An entry stands there
only while both of its pictures do. Several processes may add to one folder.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from diffcut_bench.errors import UserError
from diffcut_bench.paths import portable_path
from diffcut_bench.segmentation.formats import Content, Format, remove_written, write_content
from diffcut_bench.segmentation.result import Segmentation
from diffcut_bench.store import cell_key, unwritable, write_atomically
from diffcut_bench.store.schema import typed

SCHEMA_VERSION = 2
_SETTINGS = 12  # digits of the key of the settings


class SegmentRecord:
    """The record of a folder, read anew before each addition.

    Args:
        folder: ``segments`` below the output folder.
        config: of this call, as it may be shown to anyone (`diffcut_bench.paths.portable`).
        identity: everything that segments depend on, see `PictureSegmenter.identity`.

    Raises:
        UserError: a segments.json is there that is damaged or none of ours.
    """

    def __init__(self, folder: Path, config: dict[str, Any], identity: dict[str, Any]) -> None:
        self.folder, self.path = folder, folder / "segments.json"
        self._config, self._settings = config, cell_key(identity)[:_SETTINGS]
        self._state, self._known = self._file_state(), self._read()

    def find(self, image: Path, formats: Sequence[Format] = (), simplify: float = 0) -> dict[str, Any] | None:
        """The entry of a file that was segmented with these settings, its pictures and these formats being there."""
        state = self._file_state()
        if state != self._state:  # read again only where it has changed: a folder may hold thousands
            self._state, self._known = state, self._read()
        try:
            entry = self._entry(self._known["images"], image, _digest(image))
        except OSError:  # whoever segments it says why
            return None
        if entry is None or entry["settings"] != self._settings:
            return None
        if not all((self.folder / entry[kind]).is_file() for kind in ("labels", "overlay")):
            return None
        for each in formats:
            written = entry.get("formats", {}).get(each.name)
            if written is None or written != {"path": written["path"], **each.recorded(simplify)}:
                return None
            if not (self.folder / written["path"]).exists():
                return None
        return entry

    def add(
        self,
        image: Path,
        result: Segmentation,
        contents: Mapping[Format, Content] | None = None,
        simplify: float = 0,
    ) -> dict[str, Any]:
        """Write the label and overlay pictures of a file, its other formats, and its entry.

        Args:
            image: path of the picture.
            result: its segments.
            contents: what is written besides. Formats of its former entry stay while the settings are the same;
                else they go, since they are of other segments.
            simplify: that the contents were made with.

        Raises:
            UserError: the folder can't be written, or its record is damaged.
        """
        digest = _digest(image)
        height, width = result.labels.shape
        with self._locked():
            record = self._read()
            entry = self._entry(record["images"], image, digest)
            name = self._name(entry, image, record)
            # A kill before the new entry is there leaves pictures without one: the next call knows their name as free.
            write_atomically(self._unfinished, os.fsencode(name))
            written: dict[str, Any] = {}
            if entry is not None:
                record["images"].remove(entry)
                self._write(record)
                written = entry.get("formats", {})
                if entry["settings"] != self._settings:
                    for each in written.values():
                        remove_written(self.folder / each["path"])
                    written = {}
            entry = {
                "image": portable_path(image, self.folder.parent),
                "sha256": digest,
                "settings": self._settings,
                "width": width,
                "height": height,
                "labels": f"{name}_labels.png",
                "overlay": f"{name}_overlay.png",
                "segments": result.describe(),
            }
            result.save(self.folder / entry["labels"], self.folder / entry["overlay"])
            for format, content in (contents or {}).items():
                path = self.folder / f"{name}{format.suffix}"
                write_content(path, content)
                written[format.name] = {"path": path.name, **format.recorded(simplify)}
            if written:
                entry["formats"] = written
            record["images"].append(entry)
            record["configs"][self._settings] = self._config
            self._write(record)
            self._unfinished.unlink()
        return entry

    def _file_state(self) -> tuple[int, ...]:
        """Changes whenever the record is written."""
        try:
            state = self.path.stat()
        except OSError:
            return ()
        return state.st_ino, state.st_size, state.st_mtime_ns

    @property
    def _unfinished(self) -> Path:
        return self.folder / ".unfinished"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = FileLock(self.folder / ".segments.lock")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
            cause = error if isinstance(error, OSError) else OSError(str(error))
            raise unwritable(self.path, cause) from error
        try:
            yield
        finally:
            lock.release()

    def _read(self) -> dict[str, Any]:
        try:
            return _checked(json.loads(self.path.read_text(encoding="utf-8")), self.folder.parent)
        except FileNotFoundError:
            return {"schema_version": SCHEMA_VERSION, "configs": {}, "images": []}
        except OSError as error:
            raise unwritable(self.path, error) from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(
                f"damaged, or not written by this command ({error})",
                str(self.path.absolute()),
                "move this file away, or choose another folder; its pictures are left alone",
            ) from error

    def _write(self, record: dict[str, Any]) -> None:
        used = {entry["settings"] for entry in record["images"]}
        record["configs"] = {key: config for key, config in record["configs"].items() if key in used}
        write_atomically(self.path, json.dumps(record, indent=1) + "\n")

    def _entry(self, entries: list[dict[str, Any]], image: Path, digest: str) -> dict[str, Any] | None:
        path = portable_path(image, self.folder.parent)
        # Of a record of version 1 only the path is known.
        return next((each for each in entries if each["image"] == path and each["sha256"] in (digest, None)), None)

    def _name(self, entry: dict[str, Any] | None, image: Path, record: dict[str, Any]) -> str:
        """Of an entry's pictures; for a new one the stem, or stem-2 and so on where pictures of another file have it.

        Upper and lower case are one name: on some file systems they are.
        """
        if entry is not None:
            return str(entry["labels"]).removesuffix("_labels.png")
        taken = {path.name.lower() for path in self.folder.glob("*_labels.png")}
        if self._unfinished.is_file():
            taken.discard(f"{os.fsdecode(self._unfinished.read_bytes())}_labels.png".lower())
        taken |= {str(each["labels"]).lower() for each in record["images"]}
        names = itertools.chain([image.stem], (f"{image.stem}-{number}" for number in itertools.count(2)))
        return next(name for name in names if f"{name}_labels.png".lower() not in taken)


@dataclass(frozen=True)
class _Entry:
    """What is relied on of an entry."""

    image: str
    settings: str
    labels: str
    overlay: str
    segments: list[dict[str, Any]]
    sha256: str | None


def _checked(record: Any, output_dir: Path) -> dict[str, Any]:
    """A record of this version or the one before, as one of this version.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is none.
    """
    typed(dict[str, Any], record, "the file")  # looked at, not taken: it has no names that are not Unicode
    if record.get("schema_version") not in (1, SCHEMA_VERSION):
        raise ValueError(f"version {record.get('schema_version')}; known: 1 and {SCHEMA_VERSION}")
    if record["schema_version"] == 1:
        for entry in record["images"]:
            entry["image"] = portable_path(entry["image"], output_dir)
            entry.update(sha256=None, settings="version 1")
        configs = {"version 1": record.get("config")}
        record = {"schema_version": SCHEMA_VERSION, "configs": configs, "images": record["images"]}
    for entry in typed(list[_Entry], record.get("images"), "images"):
        if any(Path(name).name != name for name in (entry.labels, entry.overlay)):
            raise ValueError(f"pictures in another folder: {entry.labels} and {entry.overlay}")
    for each in record["images"]:
        formats = typed(dict[str, dict[str, Any]], each.get("formats", {}), "formats")
        names = [typed(str, one.get("path"), "path") for one in formats.values()]
        if any(Path(name).name != name for name in names):
            raise ValueError(f"formats in another folder: {', '.join(names)}")
    typed(dict[str, Any], record.get("configs"), "configs")
    return record


def _digest(image: Path) -> str:
    with image.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
