"""What of a result may be given away: settings without folders, hosts, accounts and secrets."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from diffcut_bench.errors import without_credentials

Value = str | int | float | bool | None
HIDDEN = "***"
_OF_THE_DISK = ("output_dir", "data_dir", "choices")  # no settings of a cell; the last are told by themselves
_PRIVATE = re.compile(r"token|secret|passw|credential|api_?key|^(entity|user|username|email|host)$", re.IGNORECASE)
_URL = re.compile(r"[A-Za-z][\w+.-]*://\S*")
_HOME = re.compile(r"(?<![\w./…])(?:/home/[^/\s]+|/Users/[^/\s]+|/root)(?=/|$)")
_ACCOUNT = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")  # of mail
_IS_PATH = re.compile(r"[/~\\]|\{output_dir\}|\.\.?/|[A-Za-z]:[/\\]|[\w.@-]+:[/~]")  # begins one of a disk or host
_FOLDERS = re.compile(r"(?<![\w.~/…@])(?:~|\{output_dir\}|[\w.@-]+:)?[/\\](?:[^\s/\\'\"()\[\],:]+[/\\])+")


def settings_of(config: Mapping[str, Any]) -> dict[str, Value]:
    """Every option and value of a cell by the name that an override gives it, such as ``segmenter`` and
    ``segmenter.tau``.

    Lists are text. Of a path or URL the last part is told, of an account or secret nothing.
    """
    choices = config.get("choices")
    settings: dict[str, Value] = {}
    for name, value in choices.items() if isinstance(choices, dict) else ():
        settings[public_text(str(name))] = public(str(name), value)
    for name, value in _leaves({name: value for name, value in config.items() if name not in _OF_THE_DISK}):
        settings.setdefault(public_text(name), public(name, value))
    return settings


def public(name: str, value: object) -> Value:
    """A value as anyone may see it; whatever is no single value as text.

    Args:
        name: of the option, dotted.
        value: of it.
    """
    if value is not None and _PRIVATE.search(name.rpartition(".")[2]):
        return HIDDEN
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = value if isinstance(value, str) else json.dumps(value)
    if _IS_PATH.match(text) and not _URL.match(text):  # as a whole: names of folders may have blanks
        text = _HOME.sub("~", text).replace("\\", "/")
        return public_text(f"…/{PurePath(text).name}")
    return public_text(text)


def public_text(text: str) -> str:
    """Text that names files of this disk and URLs by their last parts alone, and no account of mail."""
    text = _HOME.sub("~", without_credentials(text.encode(errors="replace").decode()))
    text = _ACCOUNT.sub(HIDDEN, text)
    text = _URL.sub(lambda found: f"…/{PurePath(found[0].partition('?')[0]).name}", text)
    return _FOLDERS.sub("…/", text)


def _leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, object]]:
    for key, value in tree.items():
        name = f"{above}{json.dumps(key) if '.' in key else key}"  # a dot of its own makes no other setting
        if isinstance(value, dict):
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value
