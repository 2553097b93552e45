"""Features on disk: sets of safetensors shards, each set under a key that names everything that can change them.

``<folder>/<title>-<key>/key.json`` is the key in plain; beside it lie shards, each written once, whole, and named by
its content. A tensor's name is the SHA-256 of the image file that it was computed from, so that every data set, subset
and shard with that image shares it; its checksum is in the shard's header. Two writers never touch the same file: at
worst both compute an image, and both copies are right.
"""

import contextlib
import hashlib
import json
import re
import shutil
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from diffcut_bench.errors import UserError
from diffcut_bench.store.atomic import remove_leftovers, sync_folder, write_atomically
from diffcut_bench.store.cells import cell_key

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
_SHORT = 12
_MIB = 2**20
_SHARDS = "*.safetensors"  # two may hold the same image: either copy is right
_OPEN_SHARDS = 16
# What has not been written is lost if the process is killed: at most so many seconds of work.
_PATIENCE_S = 60.0
# Kept free on the disk beside the features, for results and logs: this much, or a tenth of them if that is less.
_RESERVE = 256 * _MIB
_SET = "set"  # name in a shard's header under which the key of its set stands; images are 64 digits
_TOLD = ("crop", "image_size", "checkpoint", "block", "layer", "facet", "timestep", "unet_dtype", "device_type")
_ELSEWHERE = "features.folder=DIR keeps them elsewhere, features=memory keeps none"


@dataclass(frozen=True)
class StoreOptions:
    """``features=store``: where features are kept, and how.

    Attributes:
        folder: of all sets.
        dtype: float16, bfloat16 or float32; what is read back, and therefore what is segmented. ``auto`` is the
            backbone's own, which loses nothing; see `kept_as`.
        shard_mib: size at which a shard is written.
    """

    folder: str
    dtype: str = "auto"
    shard_mib: int = 256

    def __post_init__(self) -> None:
        if self.dtype not in ("auto", *DTYPES):
            raise ValueError(f"features.dtype must be auto | {' | '.join(DTYPES)}, not {self.dtype!r}")
        if self.shard_mib < 1:
            raise ValueError(f"features.shard_mib must be at least 1, not {self.shard_mib}")

    def kept_as(self, computed: torch.dtype) -> "StoreOptions":
        """With ``auto`` as the precision that the features are computed in (float32 for any that can't be kept)."""
        own = next((name for name, dtype in DTYPES.items() if dtype == computed), "float32")
        return replace(self, dtype=own) if self.dtype == "auto" else self


class FeatureStore:
    """One set of features: of one backbone, preparation and precision.

    Args:
        options: folder, precision (not ``auto``) and size of shards.
        title: readable part of the folder's name.
        identity: everything that can change the features, as plain JSON; the precision is added.

    Raises:
        UserError: the folder holds features of another key, or can't be read.
    """

    def __init__(self, options: StoreOptions, title: str, identity: dict[str, Any]) -> None:
        self.dtype = DTYPES[options.dtype]
        self.identity = {**identity, "dtype": options.dtype}
        self.key = cell_key(self.identity)
        readable = re.sub(r"[^\w.+-]", "_", title)
        self.folder = Path(options.folder) / f"{readable}-{self.key[:_SHORT]}"
        self._shard_bytes = options.shard_mib * _MIB
        self._shards: dict[str, Path] = {}  # of each image
        self._readers: OrderedDict[Path, Any] = OrderedDict()
        self._waiting: dict[str, Tensor] = {}
        self._waiting_since = time.monotonic()
        self._lock = threading.RLock()  # one thread reads ahead while another stores
        self.damaged: list[str] = []  # shards that were set aside
        self._check_key()
        self._index()

    def __getstate__(self) -> dict[str, Any]:
        """For worker processes, which open the shards themselves."""
        return {**self.__dict__, "_lock": None, "_readers": OrderedDict(), "_waiting": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock())

    def images(self) -> set[str]:
        """Every image that there are features of."""
        with self._lock:
            return self._shards.keys() | self._waiting.keys()

    def get(self, image: str, shape: tuple[int, int, int] | None = None) -> Tensor | None:
        """Features [channels, rows, cols] of an image in the store's precision.

        None where there are none, or where they are damaged. A damaged shard is set aside, and the intact part of it is
        written again.

        Args:
            image: SHA-256 of the image file.
            shape: that the features must have, else None is returned; None: any shape will do.
        """
        with self._lock:
            features = self._waiting.get(image)
            while features is None and (path := self._shards.get(image)):
                try:
                    features = self._intact(path, image)
                    if features is None:
                        self._set_aside(path)
                except FileNotFoundError:  # cleared, or set aside by another process, which kept the intact part
                    self._forget(path)
                    self._index()
        return None if features is None or shape not in (None, tuple(features.shape)) else features

    def put(self, image: str, features: Tensor) -> Tensor:
        """Keep the features [channels, rows, cols] of an image; they are on disk after the next `flush` at the latest.

        Returns:
            The same in the store's precision, as `get` will give them.

        Raises:
            ValueError: they are not finite, or leave the range of the precision.
        """
        stored = features.to("cpu", self.dtype).contiguous()
        if not stored.isfinite().all():
            too_large = "leave the range of float16; use features.dtype=auto, which keeps what was computed"
            what = too_large if features.isfinite().all() else "are not finite; use a wider precision in the backbone"
            raise ValueError(f"features {what}")
        with self._lock:
            if not self._waiting:
                self._waiting_since = time.monotonic()
            self._waiting[image] = stored
            size = sum(tensor.nbytes for tensor in self._waiting.values())
            if size >= self._shard_bytes or time.monotonic() - self._waiting_since > _PATIENCE_S:
                self.flush()
        return stored

    def flush(self) -> None:
        """Write what is waiting as one shard.

        Raises:
            UserError: the folder can't be written, or the disk is full.
        """
        with self._lock:
            if self._waiting:
                self._write(self._waiting)
                self._waiting = {}

    def check_space(self, images: int, image_bytes: int) -> int:
        """Bytes that ``images`` more images will take.

        Raises:
            UserError: the disk has no room for them, or the folder can't be written.
        """
        self._claim()
        needed = images * image_bytes
        free = shutil.disk_usage(self.folder).free  # which `_claim` has made
        if needed + min(_RESERVE, needed // 10) > free:
            what = f"features of {images} images take {in_units(needed)}, and {in_units(free)} are free"
            hint = f"{_ELSEWHERE}; `diffcut-bench features list` shows what is stored"
            raise UserError(what, str(self.folder.absolute()), hint)
        return needed

    def verify(self, report: Callable[[int, int], None] = lambda done, total: None) -> tuple[int, list[str]]:
        """Read every tensor; damaged shards are set aside.

        Args:
            report: is called with images done and images in all.

        Returns:
            Number of images that are intact, and the names of the shards that are not.
        """
        intact, images = 0, self.images()
        report(0, len(images))
        for done, image in enumerate(images, start=1):
            intact += self.get(image) is not None
            report(done, len(images))
        return intact, self.damaged

    def _check_key(self) -> None:
        """Check that key.json is this set's. A lost or damaged one is written again: the folder's name has the key, and
        shards name their set."""
        path = self.folder / "key.json"
        shards = list(self.folder.glob(_SHARDS))
        found = _read_key(path)
        if (found is None and not shards) or (found is not None and cell_key(found) == self.key):
            return
        sets = {_header(shard)[1].get(_SET) for shard in shards} - {None}  # older shards do not name theirs
        if sets - {self.key} or (found is not None and not sets):
            hint = f"`diffcut-bench features clear {self.folder.name}`, then run again"
            raise UserError("this folder holds features of another key", str(path.absolute()), hint)
        with contextlib.suppress(UserError):  # a folder that can only be read
            self._write_key()

    def _index(self) -> None:
        """Read which images the shards hold; one whose header is damaged is set aside."""
        remove_leftovers(self.folder)
        remove_leftovers(self.folder, "*.damaged")  # their intact part has been written again
        for path in set(self.folder.glob(_SHARDS)) - set(self._shards.values()):
            images, header = _header(path)
            if header.get(_SET, self.key) != self.key:  # nothing of another set's shard is ours
                images = set()
            self._shards |= dict.fromkeys(images, path)
            if (not images or header.keys() - {_SET} != images) and path.exists():
                self._set_aside(path)

    def _reader(self, path: Path) -> Any:
        if path not in self._readers:
            opened: Any = safe_open(path, framework="pt")
            self._readers[path] = opened.__enter__()
            if len(self._readers) > _OPEN_SHARDS:
                self._readers.popitem(last=False)
        self._readers.move_to_end(path)
        return self._readers[path]

    def _intact(self, path: Path, image: str) -> Tensor | None:
        """An image's tensor, unless its checksum fails or the shard can't be read."""
        try:
            reader = self._reader(path)
            tensor: Tensor = reader.get_tensor(image)
            return tensor if (reader.metadata() or {}).get(image) == _checksum(image, tensor) else None
        except FileNotFoundError:
            raise
        except (SafetensorError, OSError):
            return None

    def _set_aside(self, path: Path) -> None:
        """Take a damaged shard out of the set, and write its intact part as another shard if that is possible."""
        images = [image for image, shard in self._shards.items() if shard == path]
        intact = {image: tensor for image in images if (tensor := self._intact(path, image)) is not None}
        self._forget(path)
        self.damaged.append(path.name)
        with contextlib.suppress(OSError, UserError):  # another process was first, or the folder is read-only
            if intact:
                self._write(intact)
            path.rename(path.with_suffix(".damaged"))
            sync_folder(self.folder)

    def _claim(self) -> None:
        """Write the key, so that a folder that can't be written is known before anything is computed."""
        if not (self.folder / "key.json").is_file():
            self._write_key()

    def _write_key(self) -> None:
        content = json.dumps(self.identity, indent=1, sort_keys=True) + "\n"
        write_atomically(self.folder / "key.json", content, _ELSEWHERE)

    def _write(self, tensors: dict[str, Tensor]) -> None:
        """One shard of these."""
        self._claim()
        checksums = {image: _checksum(image, tensor) for image, tensor in tensors.items()}
        content = save(tensors, {_SET: self.key, **checksums})
        path = self.folder / f"{hashlib.sha256(content).hexdigest()[:32]}.safetensors"
        write_atomically(path, content, _ELSEWHERE)
        self._shards |= dict.fromkeys(tensors, path)

    def _forget(self, path: Path) -> None:
        self._readers.pop(path, None)
        self._shards = {image: shard for image, shard in self._shards.items() if shard != path}


@dataclass(frozen=True)
class StoredSet:
    """A set as `list_sets` finds it: folder, key, images, bytes on disk, shards set aside."""

    folder: Path
    identity: dict[str, Any] | None
    images: int
    size: int
    damaged: int

    def describe(self) -> str:
        """What the features are of, in one line: weights, layer, sizes, and the precision that is kept."""
        backbone = (self.identity or {}).get("backbone", {})
        if self.identity is None or not isinstance(backbone, dict):
            return "key.json can't be read"
        flat = {**backbone, **{name: value for name, value in self.identity.items() if name != "backbone"}}
        told = [f"{name} {flat[name]}" for name in _TOLD if name in flat]
        computed = backbone.get("dtype", backbone.get("unet_dtype", "float32"))
        if backbone.get("features") == "self-attention":  # aggregated in float32 whatever the network computes in
            computed = "float32"
        kept = str(flat.get("dtype", ""))
        return ", ".join([*told, f"{kept}, {'as computed' if kept == computed else f'computed in {computed}'}"])

    def verify(self, report: Callable[[int, int], None] = lambda done, total: None) -> tuple[str, int]:
        """Read every value: how the set is, in one line, and the number of things in it that are damaged.

        Args:
            report: is called with images done and images in all.
        """
        try:
            intact, damaged = open_set(self.folder).verify(report)
        except UserError as error:
            return f"{self.folder.name}: {error.what}", 1
        told = [f"{intact} images intact", *(f"{name} damaged, set aside" for name in damaged)]
        return f"{self.folder.name}: {'; '.join(told)}", len(damaged)


def list_sets(folder: Path) -> Iterator[StoredSet]:
    """Every set below a folder, by name. ``identity`` is None where key.json can't be read."""
    for found in sorted({path.parent for name in ("key.json", _SHARDS) for path in folder.glob(f"*/{name}")}):
        images = set().union(*(_header(shard)[0] for shard in found.glob(_SHARDS)))
        size = 0
        for path in found.iterdir():
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                size += path.stat().st_size
        damaged = len(list(found.glob("*.damaged")))
        yield StoredSet(found, _read_key(found / "key.json"), len(images), size, damaged)


def open_set(folder: Path) -> FeatureStore:
    """The set in a folder, for `FeatureStore.verify`.

    Raises:
        UserError: its key.json can't be read, or is not the key of the folder's name.
    """
    identity = _read_key(folder / "key.json")
    title, _, short = folder.name.rpartition("-")
    if identity is None or cell_key(identity)[:_SHORT] != short or identity.get("dtype") not in DTYPES:
        what = "key.json does not belong to this folder, or can't be read"
        raise UserError(what, str(folder / "key.json"), f"`diffcut-bench features clear {folder.name}`")
    return FeatureStore(StoreOptions(str(folder.parent), identity["dtype"]), title, identity)


def in_units(size: int) -> str:
    """``3.5 GB`` for a number of bytes."""
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"


def _header(shard: Path) -> tuple[set[str], dict[str, str]]:
    """Images in a shard, and what its header says: their checksums and its set. Empty where it can't be read."""
    try:
        with safe_open(shard, framework="pt") as opened:
            return set(opened.keys()), opened.metadata() or {}
    except (SafetensorError, OSError):
        return set(), {}


def _read_key(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _checksum(image: str, tensor: Tensor) -> str:
    """CRC-32 of name, shape, type and values: no key, but at memory speed, and it finds every damaged byte."""
    head = f"{image} {tuple(tensor.shape)} {tensor.dtype} ".encode()
    return f"{zlib.crc32(tensor.view(torch.uint8).numpy().data, zlib.crc32(head)):08x}"
