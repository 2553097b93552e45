"""What the code of a stage is, where it is not ours: a changed file gives another cell, as a changed option does.

The package's own code is covered by the version numbers that are raised when a change moves figures. A stage from
outside is covered by what it says of itself, or else by the source of its module and of every module of its author's
that this one uses, directly or through others. Installed packages among those are covered by their versions.
"""

import functools
import hashlib
import inspect
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from types import ModuleType
from typing import Any

_OURS = __package__.partition(".")[0]
_INSTALLED = ("site-packages", "dist-packages")


def code_fingerprint(stages: Iterable[object], settings: Iterable[object] = ()) -> dict[str, str]:
    """Source digests and package versions of the stages that come from outside this package, by module; empty if none.

    Modules that are imported inside functions only are not seen.

    Args:
        stages: objects, classes, functions or partial functions; None is passed over. One with an attribute
            ``code_version`` is covered by its text instead of its source.
        settings: that stages were built from; what a ``_target_`` in them names is a stage too.
    """
    found: dict[str, str] = {}
    waiting: list[str] = []
    for stage in (*stages, *map(pkgutil.resolve_name, _targets(list(settings)))):
        while isinstance(stage, functools.partial):
            stage = stage.func
        said = getattr(stage, "code_version", None)
        if said is not None:
            found[f"{type(stage).__module__}.{type(stage).__qualname__}"] = str(said)
            continue
        kinds = stage.__mro__ if isinstance(stage, type) else type(stage).__mro__
        waiting += [stage.__module__] if inspect.isroutine(stage) else [kind.__module__ for kind in kinds]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        module = sys.modules.get(name)
        if name in seen or name.partition(".")[0] in (_OURS, *sys.stdlib_module_names) or module is None:
            continue
        seen.add(name)
        path = getattr(module, "__file__", None)
        if path is None:
            continue
        if any(part in _INSTALLED for part in Path(path).parts):
            top = name.partition(".")[0]
            found |= {package: _version(package) for package in _distributions().get(top, ())}
        else:
            found[name] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            waiting += _used_by(module)
    return dict(sorted(found.items()))


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    """Installed packages by the modules that they hold: finding them out takes a good part of a second."""
    return packages_distributions()


def _targets(node: object) -> Iterator[str]:
    """Every ``_target_`` below a node of a config."""
    if isinstance(node, dict):
        if isinstance(node.get("_target_"), str):
            yield node["_target_"]
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            yield from _targets(inner)


def _used_by(module: ModuleType) -> list[str]:
    """Names of the modules that a module's names stand for or come from."""
    values: list[Any] = list(vars(module).values())
    return [
        value.__name__ if isinstance(value, ModuleType) else str(getattr(value, "__module__", None) or "")
        for value in values
    ]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
