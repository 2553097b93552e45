"""Entries of segments.json and of the journal beside it, in memory: what is valid, and what a killed process left."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from diffcut_bench.paths import portable_path
from diffcut_bench.segmentation.formats import FORMATS
from diffcut_bench.store.schema import typed

SCHEMA_VERSION = 3
_SUFFIXES = tuple(each.suffix for each in FORMATS.values())
_ALONE = ("labels", "overlay")  # formats whose path an entry has under the format's own name

Key = tuple[str, str | None]  # path of a file, and SHA-256 of its content; None in version 1
Files = dict[str, dict[str, Any]]  # by format: path below the folder, and what it depends on besides the segments


@dataclass
class Entries:
    """What a folder holds.

    Attributes:
        by_key: the entries, in the order in which they were added.
        configs: by the key of their settings.
        unfinished: files that are being written, or were when their process was killed, by the key of their entry.
    """

    by_key: dict[Key, dict[str, Any]] = field(default_factory=dict)
    configs: dict[str, Any] = field(default_factory=dict)
    unfinished: dict[Key, list[str]] = field(default_factory=dict)
    _paths: dict[str, set[Key]] = field(default_factory=dict)
    _files: dict[str, Key] = field(default_factory=dict)  # in lower case: on some file systems that is one name

    @classmethod
    def of(cls, record: Any, base: Path) -> "Entries":
        """From the content of a segments.json of this version or an earlier one.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: it is none.
        """
        record = _checked(record, base)
        made = cls(configs=record["configs"])
        for entry in record["images"]:
            made._put((entry["image"], entry["sha256"]), entry)
        return made

    def to_dict(self) -> dict[str, Any]:
        used = {entry["settings"] for entry in self.by_key.values()}
        configs = {key: config for key, config in self.configs.items() if key in used}
        return {"schema_version": SCHEMA_VERSION, "configs": configs, "images": list(self.by_key.values())}

    def apply(self, line: Mapping[str, Any]) -> None:
        """A line of the journal: a config, an entry, the beginning of one, or the end of all that were begun.

        Lines may be applied once more to what they made before, all of them in their order.

        Raises:
            ValueError, KeyError, TypeError: it is none; nothing was applied.
        """
        if "config" in line:
            self.configs[typed(str, line["settings"], "settings")] = line["config"]
        elif "begin" in line:
            path, digest = typed(list[str | None], line["begin"], "begin") and line["begin"]
            typed(list[str], line["files"], "files")
            if not all(_is_inside(file) and file.endswith(_SUFFIXES) for file in line["files"]):
                raise ValueError(f"files of others: {', '.join(line['files'])}")
            if line["entry"] is not None:
                _check_entry(line["entry"])
            self.unfinished[path, digest] = line["files"]
            self._put((path, digest), line["entry"])
        elif "entry" in line:
            _check_entry(line["entry"])
            key: Key = (line["entry"]["image"], line["entry"]["sha256"])
            self.unfinished.pop(key, None)
            self._put(key, line["entry"])
        else:
            self.unfinished.clear()

    def has_path(self, path: str) -> bool:
        return path in self._paths

    def is_named(self, path: str) -> bool:
        """Whether an entry has a file of this path below the folder."""
        return path.lower() in self._files

    def has_file(self, path: str) -> bool:
        """The same, also of files inside a format's folder, and of those that are being written."""
        place = PurePosixPath(path.lower())
        names = {str(place), str(place.parent)}
        unfinished = (file.lower() for files in self.unfinished.values() for file in files)
        return any(name in self._files for name in names) or any(file in names for file in unfinished)

    def find(self, key: Key) -> dict[str, Any] | None:
        # Of a record of version 1 only the path is known.
        return self.by_key.get(key) or self.by_key.get((key[0], None))

    def _put(self, key: Key, entry: dict[str, Any] | None) -> None:
        """Replace an entry; the new one is the last."""
        for each in (key, (key[0], None)):
            former = self.by_key.pop(each, None)
            if former is not None:
                for file in files_of(former).values():
                    self._files.pop(file["path"].lower(), None)
                self._paths[key[0]].discard(each)
        if entry is not None:
            self.by_key[key] = entry
            self._paths.setdefault(key[0], set()).add(key)
            self._files |= {file["path"].lower(): key for file in files_of(entry).values()}


def files_of(entry: Mapping[str, Any]) -> Files:
    """What an entry says of each of its files."""
    return {name: {"path": entry[name]} for name in _ALONE if name in entry} | entry.get("formats", {})


def with_files(entry: Mapping[str, Any], files: Files) -> dict[str, Any]:
    """The entry with these files and no others."""
    rest = {name: value for name, value in entry.items() if name not in (*_ALONE, "formats")}
    others = {name: file for name, file in files.items() if name not in _ALONE}
    alone = {name: files[name]["path"] for name in _ALONE if name in files}
    return rest | alone | ({"formats": others} if others else {})


@dataclass(frozen=True)
class _Entry:
    """What is relied on of an entry."""

    image: str
    settings: str
    labels: str
    segments: list[dict[str, Any]]
    sha256: str | None
    overlay: str = ""
    file_name: str = ""


def _checked(record: Any, base: Path) -> dict[str, Any]:
    """A record of this version or an earlier one, as one of this version."""
    typed(dict[str, Any], record, "the file")  # looked at, not taken: it has names that are not Unicode
    if record.get("schema_version") not in (1, 2, SCHEMA_VERSION):
        raise ValueError(f"version {record.get('schema_version')}; known: 1 to {SCHEMA_VERSION}")
    if record["schema_version"] == 1:
        for entry in record["images"]:
            entry["image"] = portable_path(entry["image"], base)
            entry.update(sha256=None, settings="version 1")
        record["configs"] = {"version 1": record.get("config")}
    typed(list[_Entry], record.get("images"), "images")
    typed(dict[str, Any], record.get("configs"), "configs")
    for entry in record["images"]:
        _check_files(entry)
    return dict(record)


def _check_entry(entry: Any) -> None:
    """Raise a ValueError where this is no entry."""
    typed(_Entry, entry, "entry")
    _check_files(entry)


def _check_files(entry: Mapping[str, Any]) -> None:
    formats = typed(dict[str, dict[str, Any]], entry.get("formats", {}), "formats")
    names = [typed(str, file.get("path"), "path") for file in formats.values()]
    names += [entry["labels"], *([entry["overlay"]] if "overlay" in entry else [])]
    if not all(_is_inside(name) for name in names):
        raise ValueError(f"files in another folder: {', '.join(names)}")


def _is_inside(path: str) -> bool:
    place = PurePosixPath(path)
    return bool(place.name) and "\0" not in path and not place.is_absolute() and ".." not in place.parts
