"""What of a text or setting anyone may see, in a report or an export: no folder of a disk, host, account or secret."""

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from diffcut_bench.errors import without_credentials

HIDDEN = "***"
_PRIVATE = re.compile(r"token|secret|passw|credential|api_?key|^(entity|user|username|email|host)$", re.IGNORECASE)
_URL = re.compile(r"[A-Za-z][\w+.-]*://\S*")
_HOME = re.compile(r"(?<![\w./…])(?:/home/[^/\s]+|/Users/[^/\s]+|/root)(?=/|$)")
_ACCOUNT = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")  # of mail
_IS_PATH = re.compile(r"[/~\\]|\{output_dir\}|\.\.?/|[A-Za-z]:[/\\]|[\w.@-]+:[/~]")  # begins one of a disk or host
_FOLDERS = re.compile(r"(?<![\w.~/…@])(?:~|\{output_dir\}|[\w.@-]+:)?[/\\](?:[^\s/\\'\"()\[\],:]+[/\\])+")


def public(name: str, value: Any) -> Any:
    """A setting as anyone may see it: of a path or URL the last part, of an account or secret nothing.

    Args:
        name: of the option, dotted.
        value: of it; a list or dict is gone through.
    """
    if is_private(name) and value is not None and not isinstance(value, bool):
        return HIDDEN
    if isinstance(value, dict):
        return {public_text(str(key)): public(str(key), each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [public(name, each) for each in value]
    if not isinstance(value, str):
        return value
    return public_text(f"…/{PurePath(path_of(value)).name}" if is_path(value) else value)


def public_text(text: str) -> str:
    """Text that names files of this disk and URLs by their last parts alone, and no account of mail."""
    text = _HOME.sub("~", without_credentials(text.encode(errors="replace").decode()))
    text = _ACCOUNT.sub(HIDDEN, text)
    text = _URL.sub(lambda found: f"…/{PurePath(found[0].partition('?')[0]).name}", text)
    return _FOLDERS.sub("…/", text)


def is_private(name: str) -> bool:
    """Whether an option holds a secret or an account."""
    return _PRIVATE.search(name.rpartition(".")[2]) is not None


def is_path(text: str) -> bool:
    """Whether a value as a whole is a path: names of folders may have blanks."""
    return _IS_PATH.match(text) is not None and not _URL.match(text)


def path_of(text: str) -> str:
    """A path with slashes and without the name of a home folder."""
    return _HOME.sub("~", text).replace("\\", "/")


def replace_folders(text: str, names: Mapping[str, str]) -> str:
    """A message in which folders have other names.

    Args:
        text: of the message.
        names: by the folder, which is absolute.
    """
    for folder in sorted(names, key=len, reverse=True):
        if folder not in ("", "/"):
            name = names[folder].replace("\\", r"\\")
            text = re.sub(rf"(?<![\w.~/-]){re.escape(folder)}(?![\w.-])", name, text)
    return text
