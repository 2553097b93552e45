"""What an accelerator is asked for, and what an operation of torch adds to it: kernels, bytes, waits of the host.

Views and allocations are no kernels. A copy between host and device is one, and so is every other operation, but for
those of `_KERNELS`. A kernel moves the bytes of its inputs and of its outputs, each once. An expanded axis counts once;
what is overwritten is not read; a gather or scatter touches no more of its table than it picks. CUDA graphs, fused
kernels and streams are not modelled.

As on CUDA the host waits

* for a value (`item`, `tolist`, `bool`, `equal`), for a shape that values decide (`nonzero`, `unique`, a mask as an
  index), and for linear algebra that checks its own errors (`eigh`, `inv`);
* for a copy to the host, unless it is ``non_blocking`` and to memory that torch pins itself (``.to("cpu")``) or that
  is pinned;
* for an upload, unless it is ``non_blocking`` and comes from pinned memory, or from at most 64 KiB of any.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

# The model: seconds a kernel launched from Python, seconds a wait of the host; bytes and operations a second.
KERNEL_S, CROSSING_S, BYTES_PER_S, FLOPS_PER_S = 6e-6, 30e-6, 3e12, 50e12

ATTENTION = "_scaled_dot_product_fused_attention_overrideable"  # one kernel of the device's own
COPIES = {"copy_", "_copy_from", "_to_copy"}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}

_STAGED = 1 << 16  # bytes that CUDA takes from pageable memory without making the host wait
# Operations that are several kernels on a GPU, about.
_KERNELS: Mapping[str, int] = {
    **dict.fromkeys(("sort", "topk", "nonzero", "bincount", "masked_select", "native_group_norm"), 3),
    **dict.fromkeys(("_unique2", "unique_consecutive", "unique_dim", "linalg_inv_ex", "_linalg_solve_ex"), 6),
    "linalg_cholesky_ex": 3,
}
# Batched `eigh` and `svd` solve matrices beyond this size one after the other: 1.8 ms for one of 100×100 is on record.
_BATCHED_UP_TO, _ONE_BY_ONE = 32, 300
_DENSE = {"_linalg_eigh", "_linalg_svd", "linalg_eig"}
_CHECKED = {*_DENSE, "_linalg_check_errors"}
_NO_KERNEL = {
    *("empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided", "_unsafe_view", "lift_fresh"),
    *("resize_", "is_same_size", "_has_compatible_shallow_copy_type", "_fused_sdp_choice"),
}
_OVERWRITES = {"copy_", "fill_", "zero_", "normal_", "uniform_", "random_"}
_PICKS = {"index", "index_select", "gather", "embedding", "take"}
_PUTS = {"index_put_", "_index_put_impl_", "scatter_", "scatter_add_", "scatter_reduce_", "index_add_", "index_copy_"}
_VALUES_DECIDE = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}


@dataclass
class Counts:
    """What an accelerator was asked to do. Places are ``file:line`` of the package, or ``elsewhere``.

    Attributes:
        kernels: launches, by place.
        crossings: waits of the host, by place; blocking uploads included.
        uploads: copies of tensors to the device, by place.
        blocking_uploads: those that the host waits for.
        uploaded_bytes, downloaded_bytes: of all copies to the device and back, single values included.
        bytes: read and written by kernels.
        flops: of products of matrices, of convolutions and attention; two for a multiply-add.
        work_s: seconds of the kernels' work: of each what takes longer, its bytes or its operations.
    """

    kernels: Counter[str] = field(default_factory=Counter)
    crossings: Counter[str] = field(default_factory=Counter)
    uploads: Counter[str] = field(default_factory=Counter)
    blocking_uploads: Counter[str] = field(default_factory=Counter)
    uploaded_bytes: int = 0
    downloaded_bytes: int = 0
    bytes: int = 0
    flops: int = 0
    work_s: float = 0.0

    @property
    def modelled_s(self) -> float:
        """Seconds by the model: nothing overlaps."""
        return KERNEL_S * self.kernels.total() + CROSSING_S * self.crossings.total() + self.work_s

    def operation(self, place: str, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], found: Any) -> None:
        """Add an operation of torch.

        Args:
            place: that asked for it.
            func: of `torch.ops.aten`.
            args, kwargs: that it was called with.
            found: what it gave.
        """
        name = func.overloadpacket.__name__
        if func.is_view or name in _NO_KERNEL or (name in COPIES and self._is_copied(place, name, args, kwargs)):
            return
        if name == "_local_scalar_dense":
            self.download(place, args[0])
            return
        if _waits(func, name, args, kwargs):
            self.crossings[place] += 1
        for index in args[1] if name in INDEXING else ():
            if isinstance(index, Tensor) and not is_there(index):
                self.upload(place, index, blocking=True)
        moved, flops = _moved(func, name, args, kwargs, found), _flops(func, args, kwargs, found)
        self.kernel(place, _launches(name, args), moved, flops)

    def kernel(self, place: str, launches: int, moved: int, flops: int) -> None:
        """Add kernels that together move so many bytes in so many operations."""
        self.kernels[place] += launches
        self.bytes += moved
        self.flops += flops
        self.work_s += max(moved / BYTES_PER_S, flops / FLOPS_PER_S)

    def upload(self, place: str, tensor: Tensor, *, blocking: bool) -> None:
        """Add a copy to the device."""
        self.kernel(place, 1, _size(tensor), 0)
        self.uploads[place] += 1
        self.uploaded_bytes += _size(tensor)
        if blocking:
            self.blocking_uploads[place] += 1
            self.crossings[place] += 1

    def download(self, place: str, tensor: Tensor, *, blocking: bool = True) -> None:
        """Add a copy to the host."""
        self.kernel(place, 1, _size(tensor), 0)
        self.downloaded_bytes += _size(tensor)
        if blocking:
            self.crossings[place] += 1

    def _is_copied(self, place: str, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Add a copy from one device to the other; False: it is one within the device."""
        target, source, non_blocking = None, args[0], kwargs.get("non_blocking", False)
        if name == "_to_copy":
            device = kwargs.get("device")
            goes_there = is_there(source) if device is None else torch.device(device).type != "cpu"
        else:
            target, source = args[:2] if name == "copy_" else args[1::-1]
            goes_there = is_there(target)
            non_blocking = args[2] if len(args) > 2 else non_blocking
        if is_there(source) == goes_there:
            return False
        if goes_there:
            staged = source.is_pinned() or _size(source) <= _STAGED
            self.upload(place, source, blocking=not (non_blocking and staged))
        else:
            pinned = target is None or target.is_pinned()
            self.download(place, source, blocking=not (non_blocking and pinned))
        return True


def is_there(tensor: Tensor) -> bool:
    """Whether a tensor is on the accelerator."""
    return tensor.device.type != "cpu"


def leaves(value: Any) -> Iterator[Any]:
    """What is in lists and tuples."""
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from leaves(each)
    else:
        yield value


def _waits(func: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether the host waits for what the operation finds."""
    if name in INDEXING:
        # A mask becomes numbers, whose count the host needs; a scalar of the host is filled in without.
        fills = len(args) > 2 and isinstance(args[2], Tensor) and not is_there(args[2])
        return _has_mask(args[1]) and not fills
    if name == "repeat_interleave" and kwargs.get("output_size") is not None:
        return False
    return name in _CHECKED or not _VALUES_DECIDE.isdisjoint(func.tags)


def _has_mask(indices: Sequence[Any]) -> bool:
    return any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in indices)


def _launches(name: str, args: Sequence[Any]) -> int:
    if name in _DENSE:
        matrices, size = args[0].shape[:-2].numel(), min(args[0].shape[-2:])
        return _KERNELS["linalg_cholesky_ex"] if size <= _BATCHED_UP_TO else _ONE_BY_ONE * matrices
    if name in INDEXING and _has_mask(args[1]):
        return 1 + _KERNELS["nonzero"]
    return _KERNELS.get(name, 1)


def _size(tensor: Tensor) -> int:
    """Bytes of a tensor, where an expanded axis counts once."""
    elements = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        elements *= size if stride or not size else 1
    return elements * tensor.element_size()


def _moved(func: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], found: Any) -> int:
    """Bytes that an operation reads and writes."""
    outputs = {argument.name for argument in func._schema.arguments if argument.is_out}
    inputs = [*args[name in _OVERWRITES :], *(value for key, value in kwargs.items() if key not in outputs)]
    read = [_size(leaf) for leaf in leaves(inputs) if isinstance(leaf, Tensor)]
    written = [_size(leaf) for leaf in leaves(found) if isinstance(leaf, Tensor)]
    if name in _PICKS:
        read[0] = min(read[0], written[0])
    elif name in _PUTS:
        picked = max(read[1:])
        read[0], written[0] = min(read[0], picked), min(written[0], picked)
    return sum(read) + sum(written)


def _flops(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], found: Any) -> int:
    name = func.overloadpacket.__name__.rstrip("_")
    if name == ATTENTION:
        name, args, found = "_scaled_dot_product_flash_attention", args[:3], found[0]
    formula = flop_registry.get(getattr(torch.ops.aten, name, None))
    return 0 if formula is None else int(formula(*args, **kwargs, out_val=found))
