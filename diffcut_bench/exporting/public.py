"""Settings of a result as anyone may see them."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from diffcut_bench.redaction import public, public_text

Value = str | int | float | bool | None
_OF_THE_DISK = ("output_dir", "data_dir", "choices")  # no settings of a cell; the last are told by themselves


def settings_of(config: Mapping[str, Any]) -> dict[str, Value]:
    """Every option and value of a cell by the name that an override gives it, such as ``segmenter`` and
    ``segmenter.tau``.

    Lists are text. Of a path or URL the last part is told, of an account or secret nothing.
    """
    choices = config.get("choices")
    settings: dict[str, Value] = {}
    for name, value in choices.items() if isinstance(choices, dict) else ():
        settings[public_text(str(name))] = public_value(str(name), value)
    for name, value in _leaves({name: value for name, value in config.items() if name not in _OF_THE_DISK}):
        settings.setdefault(public_text(name), public_value(name, value))
    return settings


def public_value(name: str, value: object) -> Value:
    """`public`, as text where it is no single value."""
    told: Value = public(name, value)
    return json.dumps(told) if isinstance(told, (dict, list)) else told


def _leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, object]]:
    for key, value in tree.items():
        name = f"{above}{json.dumps(key) if '.' in key else key}"  # a dot of its own makes no other setting
        if isinstance(value, dict):
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value
