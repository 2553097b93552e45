"""Typed readers of values from a yaml or the command line. YAML reads bare words as numbers, truth values and null, so
each kind is checked where it is used, and the error says what to type."""

from collections.abc import Sequence
from typing import Any

from diffcut_bench.errors import UserError


def whole_number(option: str, value: Any, least: int, most: int) -> int:
    """An integer within a range; True and 255.0 are not accepted.

    Raises:
        UserError: it is something else; the message names the option.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        hint = f"set {option} to one of {least}..{most}"
        if isinstance(value, float) and value.is_integer():
            hint = f"write {option}={int(value)}"
        elif isinstance(value, str) and value.strip().lower() in ("none", "nil", "~", ""):
            hint = f"write {option}=null if you mean none"
        raise UserError(f"{option} takes a whole number, not {_shown(value)}", option, hint)
    if not least <= value <= most:
        raise UserError(f"{option}={value} is out of range", option, f"set {option} to one of {least}..{most}")
    return value


def truth_value(option: str, value: Any) -> bool:
    """True or False; a word or number that reads like one is not accepted.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(value, bool):
        raise UserError(f"{option} takes true or false, not {_shown(value)}", option, f"{option}=true|false")
    return value


def text(option: str, value: Any) -> str:
    """Text that is not empty; a number is not accepted.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(value, str) or not value.strip():
        is_number = isinstance(value, int | float)
        hint = f"put it in quotes: {option}=\"'{value}'\"" if is_number else f"{option}=NAME"
        raise UserError(f"{option} takes text, not {_shown(value)}", option, hint)
    return value


def names(option: str, value: Any, count: int) -> tuple[str, ...]:
    """``count`` different names.

    Raises:
        UserError: there are more or fewer, one comes twice, or one is not text: YAML reads yes, no, on, off, true,
            false, null and numbers as something else unless they are in quotes.
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise UserError(
            f"{value} are not {count} different class names", option, f"write {option}=[name,…], one a class"
        )
    for index, name in enumerate(value):
        if not isinstance(name, str) or not name.strip():
            raise UserError(
                f"name {index} of {option} is no text but {_shown(name)}",
                f"{option}={list(value)}",
                "put names that read like numbers, yes, no, true, false or null in quotes: "
                f"\"{option}=['yes','no','0']\", in a yaml ['yes', 'no', '0']",
            )
    if len(value) != count or len(set(value)) != count:
        raise UserError(
            f"{list(value)} are not {count} different class names",
            option,
            "give one name for each class, in the order of the ids",
        )
    return tuple(value)


def _shown(value: Any) -> str:
    """The value as YAML writes it, and whether it is text."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"{value}".lower()
    return f"the text {value!r}" if isinstance(value, str) else f"{value}"
