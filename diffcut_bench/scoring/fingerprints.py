"""What the code of a stage is, where it is not ours: a changed file gives another cell, as a changed option does.

The package's own code is covered by the version numbers that are raised when a change moves figures. A stage from
outside is covered by what it says of itself, or else by the source of its module and of every module of its author's
that this one uses, directly or through others. Installed packages among those are covered by their versions.
"""

import functools
import hashlib
import inspect
import io
import pickle
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from types import CodeType, FunctionType, ModuleType, NoneType
from typing import Any

import torch

from diffcut_bench.errors import UserError

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


def settings_of(method: Callable[..., Any]) -> dict[str, Any]:
    """What a function or object that the user built was built with, in the place of a config's settings.

    That is its name, its plain attributes or arguments, and the SHA-256 of all that it holds: attributes and weights,
    arguments of a partial function, defaults, variables from around it, code. Global variables count where a file
    sets them (`code_fingerprint`). One that changes while it is used gets other settings then; it can have an attribute
    ``code_version``, whose text counts instead.

    Raises:
        UserError: it holds what can't be digested, such as a lock or an open file.
    """
    own: Any = method
    while isinstance(own, functools.partial):
        own = own.func
    kind = own if inspect.isroutine(own) else type(own)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if hasattr(method, "code_version"):
        return {"name": name, "code_version": str(method.code_version)}
    written = io.BytesIO()
    try:
        _Pickler(written).dump(method)
    except Exception as error:  # whatever a class of the user's raises when it is pickled
        what = f"what {name} holds can't be digested: {error}"
        hint = "give it an attribute code_version: text that you change whenever its segments may change"
        raise UserError(what, "segmenter", hint) from error
    values = {**getattr(method, "__dict__", {}), **getattr(method, "keywords", {})}
    plain = {key: value for key, value in values.items() if isinstance(value, (int, float, str, NoneType))}
    return {**plain, "name": name, "digest": hashlib.sha256(written.getvalue()).hexdigest()}


class _Pickler(pickle.Pickler):
    """Writes what tensors, functions and classes hold, not where that lies; nothing reads it."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            content = value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
            return tuple, ((str(value.dtype), list(value.shape), content),)
        if isinstance(value, CodeType):
            return tuple, ((value.co_code, value.co_consts, value.co_names, value.co_varnames),)
        if isinstance(value, FunctionType):
            around = [cell.cell_contents for cell in value.__closure__ or ()]
            parts = (value.__code__, value.__defaults__, value.__kwdefaults__, value.__dict__, around)
            return tuple, ((value.__module__, value.__qualname__, *parts),)
        if isinstance(value, type) and getattr(sys.modules.get(value.__module__), "__spec__", None) is None:
            # Of a notebook or a session: no file holds it.
            return tuple, ((value.__qualname__, [each for each in vars(value).values() if inspect.isfunction(each)]),)
        return NotImplemented


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
