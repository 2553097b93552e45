"""Paths in options and on the command line: which options are paths, how they are read, and how they are written into
files that others read.

Read: ``~`` and environment variables are expanded. Written: relative to the output folder or the home folder, without
the user's name, so that a result can be shown to anyone and is still found when its folder has been moved.
"""

# ruff: noqa: PTH100, PTH111, PTH118
# Paths as text, without following links: pathlib has no such functions.
import getpass
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffcut_bench.errors import UserError, without_credentials
from diffcut_bench.redaction import replace_folders

_ALWAYS = ("output_dir", "data_dir", "root", "folder")  # options that are paths, by the last part of their key
_ENDINGS = ("_dir", "_path", "_file", "_folder", "_root")  # … of any other name, such as those of your own options
_SOMETIMES = ("prepared", "model", "vae", "checkpoint", "ids")  # … a path, a URL, or a name: see `_looks_like_path`
_NAMES = ("auto", "never", "curated", "all")  # that these take for something else than a path
_OUTPUT = "{output_dir}"
_USER = "USER"
_HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")
_NODE = re.compile(r"(linker\.)?(backbone\.parts\.)?[^.]*")  # that holds an option's settings
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})", re.ASCII)


def conf_dir() -> Path:
    """The yaml options: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def paper_order(name: str) -> tuple[bool, int, str]:
    """Sorts files of conf/reproduction/ by name: tables before figures, by number."""
    return not name.startswith("table"), int(re.sub(r"[^0-9]", "", name) or 0), name


def read_regular(path: str, most: int = 16 << 20) -> bytes:
    """Content of a file that a person wrote. A device or pipe, which may never end, and a huge file are refused.

    Args:
        path: of the file.
        most: largest size in bytes.

    Raises:
        OSError: the file can't be read, is no regular one, or is larger.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode):
            raise OSError(f"{path} is no regular file")
        if state.st_size > most:
            raise OSError(f"{path} has {state.st_size} bytes, more than {most}")
        return file.read(most)


def is_path_option(key: str) -> bool:
    """Whether an option (``output_dir``, ``dataset.root``) holds a path, always or where it looks like one."""
    group, _, last = key.rpartition(".")
    return bool(_NODE.fullmatch(group)) and (last in _ALWAYS + _SOMETIMES or last.endswith(_ENDINGS))


def is_hub_id(model: object) -> bool:
    """Whether a model is one of the hub, ``OWNER/MODEL``, and no folder here."""
    return isinstance(model, str) and bool(_HUB_ID.fullmatch(model)) and not Path(model).is_dir()


def expanded(text: str, where: str) -> str:
    """A path as typed, with ``~`` and environment variables expanded; ``file://`` is taken off.

    Args:
        text: the path. If a file or folder with a dollar sign in its name exists as typed, it is taken as typed.
        where: option or argument that it belongs to, for the error.

    Raises:
        UserError: it is empty, or names a variable or user that does not exist.
    """
    if not text.strip():
        raise UserError("an empty path", where, "name a folder or file; . is the folder that you are in")
    text = text.removeprefix("file://") if text.startswith("file:///") else text
    path = text
    if "$" in text and not os.path.lexists(text):
        for match in _VARIABLE.finditer(text):
            name = match[1] or match[2]
            if not name[0].isdecimal() and not os.environ.get(name):
                raise UserError(f"${name} is not set", f"{where}: {text}", f"export {name}=…, or give the path in full")
        path = os.path.expandvars(text)
    path = os.path.expanduser(path)
    if path.startswith("~"):
        user = path.partition("/")[0]
        raise UserError(f"no user {user[1:]}", f"{where}: {text}", f"write ./{path} for a folder or file named {user}")
    return path


def expand_options(config: dict[str, Any]) -> dict[str, Any]:
    """A composed config with every path in it expanded.

    Raises:
        UserError: one is empty, no text, or names a variable or user that does not exist.
    """

    def expand(key: str, value: Any) -> Any:
        if not is_path_option(key) or value is None:
            return value
        last = key.rpartition(".")[2]
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)  # from a yaml; on the command line it is text already
        if not isinstance(value, str):
            if last not in _ALWAYS:
                return value
            raise UserError(f"{key} must be a path, not {value}", key, f"{key}=DIR; in a yaml, quote it")
        if last in _SOMETIMES and value.strip() and not _looks_like_path(value):
            return value
        return expanded(value, key)

    return _map_values(config, expand)


def portable(config: dict[str, Any], output_dir: str | Path) -> dict[str, Any]:
    """A config as it may be shown to anyone; `reopened` undoes it.

    A path below ``output_dir`` is written as ``{output_dir}/…``, one below the home folder as ``~/…``, any other as
    ``{output_dir}/../…``; the user's own name in it becomes ``USER``. URLs lose their credentials, for good.
    """

    def carry(key: str, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        last = key.rpartition(".")[2]
        names_path = is_path_option(key) and (last not in _SOMETIMES or _looks_like_path(value))
        if value.startswith("/") or (names_path and value and "://" not in value):
            return portable_path(value, output_dir)
        return without_credentials(value)

    return _map_values(config, carry)


def portable_path(path: str | Path, output_dir: str | Path) -> str:
    """A path as `portable` writes it."""
    text = str(path)
    if text.startswith((_OUTPUT, "~")):
        return text
    absolute, base, home = (os.path.abspath(each) for each in (text, output_dir, os.path.expanduser("~")))
    if _is_below(absolute, home) and home != os.path.sep and not _is_below(absolute, base):
        written = os.path.join("~", os.path.relpath(absolute, home))
    else:
        written = os.path.join(_OUTPUT, os.path.relpath(absolute, base))
    parts = written.removesuffix("/.").split(os.path.sep)
    return "/".join(_USER if part and part == _user() else part for part in parts)


def portable_text(text: str, config: dict[str, Any], output_dir: str | Path) -> str:
    """A message as it may be shown to anyone: folders that options name are written as ``{dataset.root}/…``, the home
    folder as ``~``, the user's own name in a path as ``USER``."""
    names: dict[str, str] = {os.path.abspath(output_dir): _OUTPUT}  # of folders

    def note(key: str, value: Any) -> None:
        if isinstance(value, str) and is_path_option(key) and value.startswith("/"):
            names.setdefault(os.path.normpath(value), f"{{{key}}}")

    _map_values(config, note)
    names.setdefault(os.path.expanduser("~"), "~")
    text = replace_folders(text, names)
    if _user():
        text = re.sub(rf"(?<=/){re.escape(_user())}(?=/|$|[^\w.-])", _USER, text)
    return without_credentials(text)


def reopened(stored: dict[str, Any], output_dir: str | Path) -> dict[str, Any]:
    """The config of a result below ``output_dir``, with the paths that `portable` wrote as they are on this machine.

    Paths of older results, which are absolute or relative to the folder that the run was started in, stay as they are.
    """
    return _map_values(stored, lambda key, value: _reopened(value, output_dir) if isinstance(value, str) else value)


def _reopened(text: str, output_dir: str | Path) -> str:
    """A path that `portable_path` wrote, as it is on this machine; any other text unchanged."""
    if _is_below(text, _OUTPUT):
        path = os.path.normpath(os.path.join(output_dir, text[len(_OUTPUT) + 1 :]))
    elif _is_below(text, "~"):
        path = os.path.expanduser(text)
    else:
        return text
    if _user() and not os.path.lexists(path):
        return os.path.sep.join(_user() if part == _USER else part for part in path.split(os.path.sep))
    return path


def _looks_like_path(text: str) -> bool:
    """Whether the value of an option that may also be a name (``org/model``, ``auto``) or a URL is a path."""
    if text in _NAMES or not text:
        return False
    return text.startswith(("~", "$", ".", "/", "file:///", _OUTPUT)) or ("://" not in text and os.path.lexists(text))


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.path.sep) + os.path.sep)


def _user() -> str:
    """The user's name; empty where the system knows none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""


def _map_values(tree: dict[str, Any], change: Callable[[str, Any], Any]) -> dict[str, Any]:
    """A copy with every value replaced; the values of a list have the key of the list."""

    def walk(key: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: walk(f"{key}.{name}" if key else str(name), inner) for name, inner in value.items()}
        if isinstance(value, (list, tuple)) and not (is_path_option(key) and key.rpartition(".")[2] in _ALWAYS):
            return [walk(key, inner) for inner in value]
        return change(key, value)

    changed: dict[str, Any] = walk("", tree)
    return changed
