"""Checks of segmenters' arguments: a user's value of whatever type, and an error that names it."""


def check_number(name: str, value: object, low: float, high: float) -> None:
    """Raise a ValueError that names an argument outside of [low, high]."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}], not {value!r}")


def check_count(name: str, value: object, low: int) -> None:
    """Raise a ValueError that names an argument which is no whole number of at least ``low``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ValueError(f"{name} must be a whole number of at least {low}, not {value!r}")


def check_positive(name: str, value: object) -> None:
    """Raise a ValueError that names an argument which is no finite number above 0."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < float("inf"):
        raise ValueError(f"{name} must be positive and finite, not {value!r}")
