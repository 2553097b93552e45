"""What the code of a stage is, where it is not ours: a changed file gives another cell, as a changed option does.

The package's own code is covered by the version numbers that are raised when a change moves figures. A stage from
outside is covered by what it says of itself, or else by the source of its module and of every module of its author's
that this one uses, directly or through others. Installed packages among those are covered by their versions.
"""

import copyreg
import dis
import functools
import hashlib
import inspect
import io
import pickle
import pkgutil
import random
import sys
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

_OURS = __package__.partition(".")[0]
_INSTALLED = ("site-packages", "dist-packages")
_PLAIN = (bool, int, float, complex, str, bytes, Enum, Path, np.generic, torch.dtype, torch.device)  # told by repr
_CHANGING = (Iterator, random.Random, np.random.Generator, np.random.RandomState, torch.Generator)


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
        waiting += [str(stage.__module__)] if inspect.isroutine(stage) else [kind.__module__ for kind in kinds]
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


def object_fingerprint(value: object) -> str:
    """SHA-256 of what an object of the user's is: of every value that it holds, and of its code.

    An object that says so itself, by a method ``fingerprint()`` without arguments, is taken at its word. Code is what
    it was compiled to, with the functions and values that it reads from its module; code of installed packages, of
    Python and of this package goes by its name. A value that code reads and that can't be told counts by its type.

    Args:
        value: a function, or an object whose attributes are numbers, text, arrays, tensors, networks, functions,
            containers of these, or objects that could be pickled.

    Raises:
        ValueError: it holds something else, whose value can't be told; the message says what.
    """
    digest = hashlib.sha256()
    for part in _Walk().parts(value, ""):
        digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"\0")
    return digest.hexdigest()


class _Walk:
    """Text and bytes that together tell a value from every other one."""

    def __init__(self) -> None:
        self._met: dict[int, tuple[int, Any]] = {}  # number and value, by identity: held, so that none is used again

    def parts(self, value: Any, where: str) -> Iterator[str | bytes]:
        yield f"{where}:{type(value).__module__}.{type(value).__qualname__}"
        if value is None or isinstance(value, _PLAIN):
            yield repr(value)
            return
        number, _ = self._met.setdefault(id(value), (len(self._met), value))
        yield str(number)
        if number < len(self._met) - 1:  # met before, perhaps within itself
            return
        if callable(getattr(value, "fingerprint", None)) and not isinstance(value, type):
            yield repr(value.fingerprint())
        elif isinstance(value, torch.Tensor):
            value = value.detach().to_dense().cpu().resolve_conj().resolve_neg().contiguous()
            yield f"{value.dtype} {tuple(value.shape)}"
            yield hashlib.sha256(value.reshape(-1).view(torch.uint8).numpy()).digest()
        elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
            yield f"{value.dtype} {value.shape}"
            yield hashlib.sha256(np.ascontiguousarray(value).tobytes()).digest()
        elif isinstance(value, Mapping):
            for name in sorted(value, key=repr):
                yield from self.parts(value[name], f"{where}[{name!r}]")
        elif isinstance(value, (list, tuple)):
            for index, each in enumerate(value):
                yield from self.parts(each, f"{where}[{index}]")
        elif isinstance(value, (set, frozenset)):
            yield from sorted(map(object_fingerprint, value))
        elif isinstance(value, functools.partial):
            yield from self.parts([value.func, value.args, value.keywords], where)
        elif isinstance(value, MethodType):
            yield from self.parts([value.__func__, value.__self__], where)
        elif isinstance(value, FunctionType):
            yield from self._function(value, where)
        elif isinstance(value, (staticmethod, classmethod)):
            yield from self.parts(value.__func__, where)
        elif isinstance(value, property):
            yield from self.parts([value.fget, value.fset], where)
        elif isinstance(value, type):
            yield f"{value.__module__}.{value.__qualname__}"
            if _is_the_users(value):
                own = {name: each for name, each in vars(value).items() if _is_code(each) or not name.startswith("__")}
                yield from self._read(own, where)
                yield from self.parts(value.__bases__, where)
        elif isinstance(value, torch.jit.ScriptModule):
            torch.jit.save(value, stored := io.BytesIO())
            yield hashlib.sha256(stored.getbuffer()).digest()
        elif isinstance(value, ModuleType):
            yield value.__name__
        elif inspect.isbuiltin(value):
            yield value.__name__
            yield from self.parts(value.__self__, where)
        else:
            yield from self._pickled(value, where)

    def _function(self, function: FunctionType, where: str) -> Iterator[str | bytes]:
        yield f"{function.__module__}.{function.__qualname__}"
        held = [cell.cell_contents for cell in function.__closure__ or ()]
        yield from self.parts([function.__defaults__, function.__kwdefaults__, held, vars(function)], where)
        if _is_the_users(function):
            yield from self._code(function.__code__, where)
            named = _globals_read(function.__code__) & function.__globals__.keys()
            yield from self._read({name: function.__globals__[name] for name in named}, where)

    def _code(self, code: CodeType, where: str) -> Iterator[str | bytes]:
        yield code.co_code
        yield repr((code.co_names, code.co_varnames, code.co_freevars))
        for constant in code.co_consts:
            within = isinstance(constant, CodeType)
            yield from self._code(constant, where) if within else self.parts(constant, where)

    def _read(self, values: Mapping[str, Any], where: str) -> Iterator[str | bytes]:
        """Of values that code reads, those that can be told: a lock or a file of a module is no setting of it."""
        for name in sorted(values):
            met = dict(self._met)
            try:
                told = list(self.parts(values[name], f"{where}.{name}"))
            except ValueError:
                self._met, told = met, [f"{where}.{name}: {type(values[name])}"]
            yield from told

    def _pickled(self, value: Any, where: str) -> Iterator[str | bytes]:
        """What pickle would store of it."""
        try:
            if isinstance(value, _CHANGING):
                raise TypeError("its state changes while it is used")
            registered = copyreg.dispatch_table.get(type(value))
            told = registered(value) if registered is not None else value.__reduce_ex__(4)
        except (TypeError, pickle.PickleError) as error:
            what = f"what it holds at {where or 'its top'}, a {type(value).__qualname__}, can't be compared"
            raise ValueError(what) from error
        if isinstance(told, str):  # it goes by a name
            yield told
            yield from self.parts(getattr(value, "__dict__", None), where)
            return
        made, arguments, state, *items = (*told, None, None, None)[:5]
        yield from self.parts([made, arguments, *(list(each) for each in items if each is not None)], where)
        yield from self.parts(state, where)


def _globals_read(code: CodeType) -> set[str]:
    """Global names that code looks up and does not set itself, with those of functions within it."""
    steps = [(step.opname, step.argval) for step in dis.get_instructions(code)]
    read = {name for done, name in steps if done in ("LOAD_GLOBAL", "LOAD_NAME")}
    read -= {name for done, name in steps if done == "STORE_GLOBAL"}
    return read.union(*(_globals_read(constant) for constant in code.co_consts if isinstance(constant, CodeType)))


def _is_the_users(value: Any) -> bool:
    """Whether code is neither this package's nor Python's nor that of an installed package."""
    name = str(value.__module__)
    path = getattr(sys.modules.get(name), "__file__", None) or ""
    known = name.partition(".")[0] in (_OURS, *sys.stdlib_module_names)
    return not known and not any(part in _INSTALLED for part in Path(path).parts)


def _is_code(value: Any) -> bool:
    return isinstance(value, (FunctionType, staticmethod, classmethod, property))
