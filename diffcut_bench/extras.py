"""Libraries that not everybody needs: an extra of pyproject.toml brings them, and they are imported where they are
used."""

import importlib.util

from diffcut_bench.errors import UserError


def is_installed(module: str) -> bool:
    """Whether a module is there; it is not imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # nor is the package that holds it
        return False


def require(extra: str, where: str, *modules: str) -> None:
    """Refuse what needs a library that is not installed.

    Args:
        extra: that brings the modules.
        where: what needs them, such as ``backbone=ssd1b``.
        modules: by the names that they are imported by.

    Raises:
        UserError: a module is missing; the hint installs it.
    """
    missing = [module for module in modules if not is_installed(module)]
    if missing:
        raise UserError(f"not installed: {', '.join(missing)}", where, f"pip install 'diffcut_bench[{extra}]'")
