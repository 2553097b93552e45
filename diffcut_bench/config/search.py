"""The search path: conf/ first, then the folders that the user names, then those of installed packages. Whatever is
composed is composed along it; what a command is given holds for all that it does (`searching`)."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from diffcut_bench.errors import UserError
from diffcut_bench.extensions import (
    SEARCHPATH,
    folder_of,
    holds_options,
    is_searchpath,
    named_folders,
    option_folders,
    using_folders,
)
from diffcut_bench.paths import conf_dir, expanded

_LAYOUT = "it holds groups: DIR/backbone/NAME.yaml, DIR/segmenter/NAME.yaml, DIR/dataset/NAME.yaml …"


@contextmanager
def searching(overrides: Sequence[str]) -> Iterator[None]:
    """Within, options and metrics are found in the folders that a ``hydra.searchpath`` among the overrides names.

    Raises:
        UserError: one of them is not there. One without options, or with one that is never read, gives a warning.
    """
    folders = _folders_in(overrides)
    for folder in folders:
        if not holds_options(folder):
            warnings.warn(f"{SEARCHPATH}: {folder} holds no options; {_meant(folder)}", RuntimeWarning, stacklevel=3)
        for path in _hidden(folder):
            what = f"{path} is not read: the package's own {path.parent.name}={path.stem} comes first; rename yours"
            warnings.warn(what, RuntimeWarning, stacklevel=3)
    with using_folders((*folders, *named_folders())):
        yield


def with_search_path(overrides: Sequence[str]) -> list[str]:
    """Overrides in Hydra's grammar, with the whole search path in one of them.

    Raises:
        UserError: a folder of it is not there.
    """
    others = [word for word in overrides if not is_searchpath(word)]
    folders = dict.fromkeys((*_folders_in(overrides), *option_folders()))
    return [*others, _word(folders)] if folders else others  # the last one: Hydra's flags come first


def with_addresses(override: str) -> str:
    """A ``hydra.searchpath`` in Hydra's grammar, of whole addresses.

    Raises:
        UserError: a folder of it is not there.
    """
    return _word(_folders_in([override]))


def _word(folders: Iterable[Path]) -> str:
    return f"{SEARCHPATH}=[{','.join(quoted(f'file://{folder}') for folder in folders)}]"


def quoted(value: str) -> str:
    """A value in quotes, which Hydra's grammar reads as it is."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _folders_in(overrides: Sequence[str]) -> list[Path]:
    """Folders that overrides name; a plain folder may stand for ``file://`` and the folder."""
    return [_folder(entry) for word in overrides if is_searchpath(word) for entry in _entries(word)]


def _entries(override: str) -> list[str]:
    text = override.partition("=")[2]
    try:
        value = OverridesParser.create().parse_override(override).value()
    except HydraException:
        value = text.removeprefix("[").removesuffix("]").split(",")
    return [str(each) for each in value] if isinstance(value, list) else [text]


def _folder(entry: str) -> Path:
    if entry.startswith("pkg://"):
        folder = folder_of(entry.removeprefix("pkg://").replace("/", "."))
        if folder is None:
            raise UserError(
                "no such package, or no such folder in it", f"{SEARCHPATH}: {entry}", "pkg://PACKAGE.FOLDER"
            )
    else:
        folder = Path(expanded(entry.removeprefix("file://"), SEARCHPATH)).absolute()
        if not folder.is_dir():
            raise UserError("no such folder", f"{SEARCHPATH}: {folder}", f"check the path: {_LAYOUT}")
    return folder


def _hidden(folder: Path) -> list[Path]:
    """Options of a folder that have a name of the package's own, and say something else."""
    own = {path: conf_dir() / path.relative_to(folder) for path in sorted(folder.glob("*/*.yaml"))}
    both = {path: ours for path, ours in own.items() if ours.is_file() and path.is_file()}
    return [path for path, ours in both.items() if ours.read_bytes() != path.read_bytes()]


def _meant(folder: Path) -> str:
    """The folder beside it or in it that holds options, or what one looks like."""
    near = [folder.parent] if next(folder.glob("*.yaml"), None) else []
    near += [path for path in (folder / "conf", folder / "options") if path.is_dir()]
    return next((f"did you mean {path}?" for path in near if holds_options(path)), _LAYOUT)
