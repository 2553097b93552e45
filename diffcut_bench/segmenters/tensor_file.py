"""Tensors of a file that somebody else trained, by name. Whatever the file holds, no code of it is run."""

import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from diffcut_bench.errors import UserError

_DEPTH = 3  # of dicts in dicts
# What trainers keep beside the weights: settings, and who wrote them. A file that names anything else is refused.
_SETTINGS = re.compile(
    r"(omegaconf|lightning|pytorch_lightning|lightning_fabric|lightning_utilities|numpy|typing|argparse|pathlib)\..*"
    r"|collections\.defaultdict|builtins\.(dict|list|tuple|int|float|bool|str|type)"
)


class _StandIn:
    """In the place of an object of somebody else's class: takes what it is given, and keeps nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors file, or of what ``torch.save`` wrote, on the host.

    A dict within a dict gives its tensors' names a prefix (``cluster_model_state_dict.clusters``), save for
    ``state_dict`` at the top, which goes without and, where it is there, is all that is read (PyTorch Lightning).

    Files of ``torch.save`` are pickles, which could hold code: only ``torch.load(weights_only=True)`` reads them. The
    settings that trainers keep beside the weights (of OmegaConf, Lightning, NumPy) become empty stand-ins.

    Raises:
        UserError: there is no such file, it can't be read, or it names code.
    """
    try:
        there = path.is_file()
    except OSError:  # a name too long, or a folder that may not be entered
        there = False
    if not there:
        raise UserError("no such file", str(path.absolute()), "check the path, or set segmenter.checkpoint=FILE")
    try:
        content: Any = load_file(path) if path.suffix == ".safetensors" else _load(path)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))  # the rest is torch's advice to its programmers
        raise _refused(path, f"it names code: {named[1]}" if named else "it holds more than tensors") from error
    except Exception as error:  # zip, pickle and safetensors each have their own
        what = f"this is no file of tensors ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
        hint = "fetch it again; a .safetensors file and what torch.save wrote can be read"
        raise UserError(what, str(path.absolute()), hint) from error
    top = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    return dict(_named(top)) if isinstance(top, Mapping) else {}


def _load(path: Path) -> Any:
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except ValueError:  # of torch before 1.6, which had no zip files
        return torch.load(path, map_location="cpu", weights_only=True)
    if code := sorted(name for name in foreign if not _SETTINGS.fullmatch(name)):
        raise _refused(path, f"it names code: {', '.join(code[:3])}")
    named = [name.rpartition(".") for name in foreign]
    stand_ins: Any = [type(name, (_StandIn,), {"__module__": module}) for module, _, name in named]
    with torch.serialization.safe_globals(stand_ins):
        # Mapped: the network beside a head is never read.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _refused(path: Path, why: str) -> UserError:
    name = path.name
    load = f"torch.load('{name}', map_location='cpu', weights_only=False)"
    return UserError(
        f"this file is not read, so that none of its code is run: {why}",
        str(path.absolute()),
        f'if you trust it, where it can do no harm: python -c "import torch; s = {load}; '
        "torch.save(s.get('state_dict', s), 'plain.pth')\", then segmenter.checkpoint=plain.pth",
    )


def _named(node: Mapping[Any, Any], prefix: str = "", depth: int = _DEPTH) -> Iterator[tuple[str, Tensor]]:
    for key, value in node.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping) and isinstance(key, str) and depth:
            yield from _named(value, f"{prefix}{key}.", depth - 1)
