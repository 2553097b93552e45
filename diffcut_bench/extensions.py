"""What comes from outside the package: folders with options and metrics, named by the user or brought by installed
packages. Light, since every command and each press of Tab may ask for it: nothing of anybody's is imported here."""

import importlib.util
import os
import shlex
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

OPTIONS = "diffcut_bench.conf"  # group of entry points: packages with options
METRICS = "diffcut_bench.metrics"  # … with metrics
SEARCHPATH = "hydra.searchpath"  # key of the user's own folders

# Of the process: what the user said holds for everything that a command does, in every thread of it.
_named: tuple[Path, ...] = ()
_current: Path | None = None


def is_searchpath(override: str) -> bool:
    """Whether an override names folders with options of the user's own."""
    return override.partition("=")[0].lstrip("+") == SEARCHPATH


@contextmanager
def using_folders(folders: Iterable[Path]) -> Iterator[None]:
    """Within, these folders hold options and metrics, before those of installed packages."""
    global _named
    before, _named = _named, tuple(folders)
    try:
        yield
    finally:
        _named = before


def named_folders() -> tuple[Path, ...]:
    """Folders that the user names for what is running."""
    return _named


def option_folders() -> tuple[Path, ...]:
    """Every folder besides conf/ that holds groups of options: the user's own, then those of installed packages."""
    return tuple(dict.fromkeys((*_named, *_installed_folders(tuple(sys.path)))))


def holds_options(folder: Path) -> bool:
    """Whether a folder holds a group: yaml files in a folder of it, such as ``segmenter/mine.yaml``, or metrics."""
    return any(next(folder.glob(one), None) for one in ("*/*.yaml", "metrics/*.py", "*/*/*.yaml"))


def command(words: str) -> str:
    """A command for the user to type next, with the folders of options that this one was given.

    Args:
        words: behind ``diffcut-bench``, such as ``data verify voc``.
    """
    return " ".join(["diffcut-bench", words, *folder_flags()])


def folder_flags() -> list[str]:
    """``--config-dir DIR`` for each folder that the user named, quoted for a shell."""
    here = f"{Path.cwd()}{os.sep}"
    return [f"--config-dir {shlex.quote(str(folder).removeprefix(here))}" for folder in _named]


def folder_of(place: str) -> Path | None:
    """The folder that ``package``, ``package.part`` or ``package:part`` names, found without importing any of it; of a
    module the folder that it is in; None where there is none."""
    first, *others = place.replace(":", ".").split(".")
    try:
        spec = importlib.util.find_spec(first)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    beside = [str(Path(spec.origin).parent)] if spec.origin and spec.has_location else []
    for base in spec.submodule_search_locations or beside:
        path = Path(base, *others)
        if path.is_dir():
            return path
        if path.with_suffix(".py").is_file():
            return path.parent
    return None


def installed(group: str) -> "tuple[EntryPoint, ...]":
    """Entry points of installed packages."""
    return _installed(group, tuple(sys.path))


def describe(entry: "EntryPoint") -> str:
    """An entry point as its package writes it, with the package."""
    package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown"
    return f"package {package}, entry point {entry.name} = {entry.value} of {entry.group}"


@cache
def _installed(group: str, path: Sequence[str]) -> "tuple[EntryPoint, ...]":
    from importlib.metadata import entry_points  # takes longer than all else here, and is asked for by few commands

    return tuple(sorted(entry_points(group=group), key=lambda entry: entry.name))


@cache
def _installed_folders(path: Sequence[str]) -> tuple[Path, ...]:
    found = []
    for entry in _installed(OPTIONS, path):
        folder = folder_of(entry.value.replace(" ", ""))
        if folder is not None and holds_options(folder):
            found.append(folder)
        else:
            what = "no such folder can be found" if folder is None else f"{folder} holds no group/NAME.yaml"
            warnings.warn(f"options left out: {what} ({describe(entry)})", RuntimeWarning, stacklevel=2)
    return tuple(found)


@contextmanager
def current_folder_importable() -> Iterator[None]:
    """Within, an option may name a module of the current folder, as under ``python -m``; see `find_target`."""
    global _current
    before, path = _current, sys.path[:]
    try:
        _current = None if sys.flags.safe_path else Path.cwd()
    except OSError:  # deleted
        _current = None
    try:
        yield
    finally:
        _current, sys.path[:] = before, path


def find_target(target: str) -> None:
    """Let the current folder join the end of ``sys.path`` if the module of a target lies in it and nowhere else.

    Not before: whoever works in a folder of somebody else's, and names no module in it, imports nothing from there.
    """
    module = target.partition(".")[0]
    if _current is None or str(_current) in sys.path or module in sys.modules or not module.isidentifier():
        return
    is_here = (_current / f"{module}.py").is_file() or (_current / module).is_dir()
    if is_here and importlib.util.find_spec(module) is None:
        sys.path.append(str(_current))
        importlib.invalidate_caches()
