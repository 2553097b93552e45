"""Checks of options: a user's value of whatever type, and an error that names it."""

from math import inf
from typing import TypeGuard


def check_above_0(name: str, value: object) -> None:
    """Raise a ValueError that names an option which is no finite number above 0."""
    if not is_number(value) or not 0 < value < inf:
        raise ValueError(f"{name} must be a number above 0, not {value!r}")


def check_at_least(name: str, value: object, least: float, whole: bool = False) -> None:
    """Raise a ValueError that names an option which is no finite (with ``whole``, no whole) number of at least this."""
    if not is_number(value) or not least <= value < inf or (whole and not isinstance(value, int)):
        raise ValueError(f"{name} must be a {'whole ' if whole else ''}number of at least {least:g}, not {value!r}")


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a number; a truth value is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
