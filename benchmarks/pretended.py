"""An accelerator that pretends: code for a device runs, and is counted, where there is none.

    with Pretended() as accelerator:
        labels = recursive_ncut(features.to(DEVICE), tau=0.5, alpha=10)
    accelerator.counts.kernels     # launches, by the line of the package that asked for them
    accelerator.counts.crossings   # waits of the host for the device, likewise

It stands in for a GPU in tests (is everything on one device? are results those of the CPU?) and in the table of
counts. Its tensors say that they are on `DEVICE` and hold a CPU tensor that does the work. As on CUDA:

* An operation on tensors of both devices fails. Legal are 0-dimensional CPU tensors beside others where values are
  combined one by one, CPU tensors as indices (which are uploaded), and copies. A generator of the CPU draws no numbers
  for the device. NumPy can't see its tensors.
* The host waits for a value (`item`, `tolist`, `bool`, `equal`), for a shape that values decide (`nonzero`, `unique`, a
  mask as an index), for a copy to the host, and for linear algebra that checks its own errors (`eigh`, `inv`). It does
  not wait for a copy with ``non_blocking`` to memory that torch pins itself (``.to("cpu", non_blocking=True)``).
* The host waits for an upload unless it is ``non_blocking``, and beyond 64 KiB comes from pinned memory.
  `pin_memory` copies on the host and marks the copy.

Views and allocations are no kernels. A copy between host and device is one, and so is every other operation, but for
those of `_KERNELS`. A kernel moves the bytes of its inputs and of its outputs, each once. An expanded axis counts once;
what is overwritten is not read; a gather or scatter touches no more of its table than it picks. CUDA graphs, fused
kernels and streams are not modelled.

Importing this names the device. It is there inside ``with`` alone.
"""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest.mock import patch

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
from torch.utils.flop_counter import flop_registry

import diffcut_bench

# The model: seconds a kernel launched from Python, seconds a wait of the host; bytes and operations a second.
KERNEL_S, CROSSING_S, BYTES_PER_S, FLOPS_PER_S = 6e-6, 30e-6, 3e12, 50e12

_PACKAGE = str(Path(diffcut_bench.__file__).parent) + os.sep
_STAGED = 1 << 16  # bytes that CUDA takes from pageable memory without making the host wait

# Operations that are several kernels on a GPU, about.
_KERNELS: Mapping[str, int] = {
    **dict.fromkeys(("sort", "topk", "embedding_bag", "_embedding_bag", "_embedding_bag_forward_only"), 2),
    **dict.fromkeys(("nonzero", "bincount", "masked_select", "native_group_norm", "linalg_cholesky_ex"), 3),
    **dict.fromkeys(("_unique2", "unique_consecutive", "unique_dim", "linalg_inv_ex", "_linalg_solve_ex"), 6),
}
# Batched `eigh` and `svd` solve matrices beyond this size one after the other: 1.8 ms for one of 100×100 is on record.
_BATCHED_UP_TO, _ONE_BY_ONE = 32, 300
_DENSE = {"_linalg_eigh", "_linalg_svd", "linalg_eig"}
# The host reads whether they went well.
_CHECKED = {*_DENSE, "_linalg_check_errors"}
_NO_KERNEL = {
    *("empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided", "_unsafe_view", "lift_fresh"),
    *("resize_", "set_", "is_pinned", "is_same_size", "_has_compatible_shallow_copy_type", "_fused_sdp_choice"),
}
_ATTENTION = "_scaled_dot_product_fused_attention_overrideable"
_COPIES = {"copy_", "_copy_from", "_to_copy"}
_OVERWRITES = {"copy_", "fill_", "zero_", "normal_", "uniform_", "random_"}
_PICKS = {"index", "index_select", "gather", "embedding", "take"}
_PUTS = {"index_put_", "_index_put_impl_", "scatter_", "scatter_add_", "scatter_reduce_", "index_add_", "index_copy_"}
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
_MASK_FILLING = {"masked_fill", "masked_fill_", "fill_"}


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

    def kernel(self, place: str, launches: int, moved: int, flops: int) -> None:
        """Add one operation."""
        self.kernels[place] += launches
        self.bytes += moved
        self.flops += flops
        self.work_s += max(moved / BYTES_PER_S, flops / FLOPS_PER_S)

    def upload(self, place: str, size: int, *, blocking: bool) -> None:
        """Add one copy to the device."""
        self.kernel(place, 1, size, 0)
        self.uploads[place] += 1
        self.uploaded_bytes += size
        if blocking:
            self.blocking_uploads[place] += 1
            self.crossings[place] += 1

    def download(self, place: str, size: int, *, blocking: bool) -> None:
        """Add one copy to the host."""
        self.kernel(place, 1, size, 0)
        self.downloaded_bytes += size
        if blocking:
            self.crossings[place] += 1


class PretendedTensor(Tensor):
    """A tensor of the pretended device.

    Attributes:
        inside: the CPU tensor that holds its values.
    """

    inside: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inside: Tensor) -> Self:
        with torch.inference_mode(False):  # views of a tensor may be made in and out of that mode
            return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
                cls,
                inside.size(),
                strides=inside.stride(),
                storage_offset=inside.storage_offset(),
                dtype=inside.dtype,
                layout=inside.layout,
                device=DEVICE,
            )

    def __init__(self, inside: Tensor) -> None:
        self.inside = inside

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _run(func, args, dict(kwargs or {}))

    def tolist(self) -> Any:
        _counts().download(_place(), _size(self), blocking=True)
        return self.inside.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError(f"can't convert a tensor on {DEVICE} to numpy; use Tensor.cpu() first")

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def __repr__(self, **_: Any) -> str:
        return f"PretendedTensor({list(self.shape)}, {self.dtype})"


class _Generator(torch.Generator):
    """A generator whose device may be the pretended one; it then draws what a CPU's of the same seed would."""

    def __new__(cls, device: Any = "cpu") -> Any:
        if torch.device(device).type != DEVICE.type:
            return _HostGenerator(device)
        assert Pretended.active is not None
        made = super().__new__(cls, "cpu")
        Pretended.active.generators[made._cdata] = made  # torch hands the operations another object
        return made

    def __init__(self, device: Any = "cpu") -> None: ...

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return DEVICE


_HostGenerator = torch.Generator


class Pretended(TorchDispatchMode):
    """Makes `DEVICE` available inside ``with``, and counts what is asked of it; one at a time.

    Attributes:
        counts: so far.
        generators: of the device, by their address.
    """

    active: "Pretended | None" = None

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler, for seconds

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counts()
        self.generators: dict[int, torch.Generator] = {}
        self._pinned: list[StorageWeakRef] = []
        self._patches = ExitStack()

    def taken(self) -> Counts:
        """What was counted so far; counting begins anew."""
        counts, self.counts = self.counts, Counts()
        return counts

    def __enter__(self) -> Self:
        if Pretended.active is not None:
            raise RuntimeError("there is one pretended accelerator at a time")
        Pretended.active = self
        for owner, name, stand_in in (
            (torch, "Generator", _Generator),
            (torch.Tensor, "pin_memory", self._pin),
            (torch.Tensor, "is_pinned", self._is_pinned),
            (torch.accelerator, "synchronize", _synchronize),
        ):
            made = _as_method(stand_in) if owner is torch.Tensor else stand_in
            self._patches.enter_context(patch.object(owner, name, made))
        super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._patches.close()
        self.generators.clear()
        Pretended.active = None

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _run(func, args, dict(kwargs or {}))

    def _pin(self, tensor: Tensor, device: object = None) -> Tensor:
        if isinstance(tensor, PretendedTensor):
            raise RuntimeError(f"cannot pin a tensor on {DEVICE}: only dense CPU tensors can be pinned")
        if self._is_pinned(tensor):
            return tensor
        pinned = tensor.clone()
        self._pinned = [each for each in self._pinned if not each.expired()]
        self._pinned.append(StorageWeakRef(pinned.untyped_storage()))
        return pinned

    def _is_pinned(self, tensor: Tensor, device: object = None) -> bool:
        if isinstance(tensor, PretendedTensor):
            return False
        # A weak reference keeps the storage's address from being given away.
        return StorageWeakRef(tensor.untyped_storage()).cdata in {each.cdata for each in self._pinned}


def _as_method(function: Callable[..., Any]) -> Callable[..., Any]:
    """A plain function, which a class binds to its objects."""
    return lambda tensor, *args, **kwargs: function(tensor, *args, **kwargs)


def _synchronize(device: object = None) -> None:
    _counts().crossings[_place()] += 1


def _counts() -> Counts:
    """Where is counted: outside of ``with`` nothing is."""
    return Counts() if Pretended.active is None else Pretended.active.counts


def _place() -> str:
    """The innermost line of the package that is being run."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_PACKAGE):
            return f"{name.removeprefix(_PACKAGE)}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "elsewhere"


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One operation: on the tensors inside, checked and counted where the device takes part."""
    leaves = [*_leaves(args), *_leaves(tuple(kwargs.values()))]
    ours = [leaf for leaf in leaves if isinstance(leaf, PretendedTensor)]
    wanted = torch.device(kwargs["device"]).type if kwargs.get("device") is not None else None
    if not ours and wanted != DEVICE.type:
        return func(*args, **kwargs)
    if func._can_decompose():  # in inference mode, where nothing has taken it apart yet
        with _dispatched():
            return func.decompose(*args, **kwargs)
    name = func.overloadpacket.__name__
    hosts = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, PretendedTensor)]
    _check_devices(func, name, args, ours, hosts)
    _check_generators(leaves)
    if name == "_fused_sdp_choice":
        return torch.nn.attention.SDPBackend.OVERRIDEABLE.value
    given, named = _mapped(_inside, args), {key: _mapped(_inside, value) for key, value in kwargs.items()}
    if named.get("pin_memory"):
        named["pin_memory"] = False
    found = (_attention if name == _ATTENTION else func)(*given, **named)
    on_device = wanted == DEVICE.type or wanted is None
    _count(func, name, args, kwargs, given, named, found, on_device)
    # What an operation changed is returned as the tensor that it was given.
    known = {id(leaf.inside): leaf for leaf in ours} | {id(leaf): leaf for leaf in hosts}
    for leaf in ours:
        if leaf.shape != leaf.inside.shape:
            raise NotImplementedError(f"{func} changes the shape of a tensor in place")

    def wrapped(leaf: Any) -> Any:
        if not on_device or not isinstance(leaf, Tensor):
            return leaf
        return known[id(leaf)] if id(leaf) in known else PretendedTensor(leaf)

    return _mapped(wrapped, found)


@contextmanager
def _dispatched() -> Iterator[None]:
    """Operations within are seen by the active accelerator, as those are that it is called for itself."""
    accelerator = Pretended.active
    if accelerator is None or accelerator in _get_current_dispatch_mode_stack():
        yield
        return
    TorchDispatchMode.__enter__(accelerator)
    try:
        yield
    finally:
        TorchDispatchMode.__exit__(accelerator, None, None, None)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from _leaves(each)
    else:
        yield value


def _mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """The same lists and tuples, with the function of what is in them."""
    if isinstance(value, (list, tuple)):
        made = [_mapped(function, each) for each in value]
        return tuple(made) if isinstance(value, tuple) else made
    return function(value)


def _inside(leaf: Any) -> Any:
    if isinstance(leaf, PretendedTensor):
        return leaf.inside
    return torch.device("cpu") if isinstance(leaf, torch.device) and leaf.type == DEVICE.type else leaf


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    is_causal: bool = False,
    return_debug_mask: bool = False,
    *,
    scale: float | None = None,
) -> tuple[Any, ...]:
    """`scaled_dot_product_attention` in the form that a device's own kernel has."""
    found = torch.nn.functional.scaled_dot_product_attention(query, key, value, mask, dropout, is_causal, scale=scale)
    rest = found.new_empty(0)
    return found, rest, rest, rest, query.shape[2], key.shape[2], rest.long(), rest.long(), rest


def _check_devices(func: Any, name: str, args: tuple[Any, ...], ours: list[Tensor], hosts: list[Tensor]) -> None:
    """Raise as CUDA does for tensors of two devices."""
    if not ours or not hosts or name in _COPIES:
        return
    if name in _INDEXING and isinstance(args[0], PretendedTensor):
        values = args[2] if len(args) > 2 else None
        if not isinstance(values, Tensor) or isinstance(values, PretendedTensor) or values.dim() == 0:
            return
    elif torch.Tag.pointwise in func.tags or name in _MASK_FILLING:
        first_is_written = name.endswith("_") and not isinstance(args[0], PretendedTensor)
        if all(host.dim() == 0 for host in hosts) and not first_is_written:
            return
    raise RuntimeError(
        f"Expected all tensors to be on the same device, but found at least two devices, {DEVICE} and cpu! ({func})"
    )


def _check_generators(leaves: list[Any]) -> None:
    """Raise as CUDA does for a generator of the host."""
    known = {} if Pretended.active is None else Pretended.active.generators
    for leaf in leaves:
        if isinstance(leaf, _HostGenerator) and leaf._cdata not in known:
            raise RuntimeError(f"Expected a '{DEVICE.type}' device type for generator but found '{leaf.device.type}'")


def _count(
    func: Any,
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    given: tuple[Any, ...],
    named: dict[str, Any],
    found: Any,
    on_device: bool,
) -> None:
    counts, place = _counts(), _place()
    if func.is_view or name in _NO_KERNEL:
        return
    if name in _COPIES and _count_copy(counts, place, name, args, kwargs, on_device):
        return
    if name == "_local_scalar_dense":
        counts.download(place, _size(given[0]), blocking=True)
        return
    if _waits(func, name, args):
        counts.crossings[place] += 1
    if name in _INDEXING:
        for index in args[1]:
            if isinstance(index, Tensor) and not isinstance(index, PretendedTensor):
                counts.upload(place, _size(index), blocking=True)
    counts.kernel(
        place, _launches(name, args), _moved(func, name, given, named, found), _flops(func, given, named, found)
    )


def _count_copy(
    counts: Counts, place: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], to_device: bool
) -> bool:
    """Count a copy between the devices; False for one within the device."""
    if name == "_to_copy":
        source, target, rest = args[0], None, ()
    else:
        (target, source), rest = args[:2] if name == "copy_" else args[1::-1], args[2:]
        to_device = isinstance(target, PretendedTensor)
    if isinstance(source, PretendedTensor) == to_device:
        return False
    size, non_blocking = _size(source), kwargs.get("non_blocking", bool(rest and rest[0]))
    if to_device:
        counts.upload(place, size, blocking=not (non_blocking and (source.is_pinned() or size <= _STAGED)))
    else:
        counts.download(place, size, blocking=not (non_blocking and (target is None or target.is_pinned())))
    return True


def _waits(func: Any, name: str, args: tuple[Any, ...]) -> bool:
    """Whether the host waits for the operation's values, other than a copy's."""
    if name in _INDEXING:
        # A mask is turned into numbers, whose count the host needs; a CPU scalar is filled in without.
        fills = len(args) > 2 and isinstance(args[2], Tensor) and not isinstance(args[2], PretendedTensor)
        masks = any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1])
        return masks and not fills
    return name in _CHECKED or not {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}.isdisjoint(
        func.tags
    )


def _launches(name: str, args: tuple[Any, ...]) -> int:
    if name in _DENSE:
        matrices, size = args[0].shape[:-2].numel(), min(args[0].shape[-2:])
        return _KERNELS["linalg_cholesky_ex"] if size <= _BATCHED_UP_TO else _ONE_BY_ONE * matrices
    if name in _INDEXING and any(isinstance(index, Tensor) and index.dtype == torch.bool for index in args[1]):
        return 1 + _KERNELS["nonzero"]
    return _KERNELS.get(name, 1)


def _size(tensor: Tensor) -> int:
    """Bytes of a tensor, where an expanded axis counts once."""
    elements = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        elements *= size if stride or not size else 1
    return elements * tensor.element_size()


def _moved(func: Any, name: str, given: tuple[Any, ...], named: dict[str, Any], found: Any) -> int:
    """Bytes that an operation reads and writes."""
    written = {argument.name for argument in func._schema.arguments if argument.is_out}
    inputs = [*given, *(value for key, value in named.items() if key not in written)]
    if name in _OVERWRITES:
        inputs = inputs[1:]
    sizes = [_size(leaf) for leaf in _leaves(inputs) if isinstance(leaf, Tensor)]
    results = [_size(leaf) for leaf in _leaves(found) if isinstance(leaf, Tensor)]
    if name in _PICKS and results:
        sizes[0] = min(sizes[0], results[0])
    elif name in _PUTS and len(sizes) > 1:
        picked = max(sizes[1:])
        sizes[0], results[0] = min(sizes[0], picked), min(results[0], picked)
    return sum(sizes) + sum(results)


def _flops(func: Any, given: tuple[Any, ...], named: dict[str, Any], found: Any) -> int:
    name = func.overloadpacket.__name__.rstrip("_")
    if name == _ATTENTION:
        name, given, found = "_scaled_dot_product_flash_attention", given[:3], found[0]
    formula = flop_registry.get(getattr(torch.ops.aten, name, None))
    return 0 if formula is None else int(formula(*given, **named, out_val=found))


def _empty(size: Sequence[int], *, dtype: Any = None, layout: Any = None, device: Any = None, **_: Any) -> Tensor:
    return PretendedTensor(torch.empty(size, dtype=dtype, device="cpu"))


def _empty_strided(size: Sequence[int], stride: Sequence[int], *, dtype: Any = None, **_: Any) -> Tensor:
    return PretendedTensor(torch.empty_strided(size, stride, dtype=dtype, device="cpu"))


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    _run(torch.ops.aten.copy_.default, (target, source, non_blocking), {})
    return target


class _Module:
    """What torch asks of a device's module."""

    is_initialized = staticmethod(lambda: True)
    is_available = staticmethod(lambda: Pretended.active is not None)
    device_count = staticmethod(lambda: int(Pretended.active is not None))
    current_device = staticmethod(lambda: 0)
    _is_in_bad_fork = staticmethod(lambda: False)
    manual_seed_all = staticmethod(lambda seed: None)
    synchronize = staticmethod(_synchronize)
    get_amp_supported_dtype = staticmethod(lambda: [torch.float16, torch.bfloat16])


_setup_privateuseone_for_python_backend("pretend", _Module)
DEVICE = torch.device("pretend", 0)
# For what no dispatch mode sees: `torch.tensor(…, device=…)`, lists as indices, and other threads.
_library = torch.library.Library("aten", "IMPL", "PrivateUse1")
_library.impl("empty.memory_format", _empty)
_library.impl("empty_strided", _empty_strided)
_library.impl("_copy_from", _copy_from)


def _cast(name: str, dtype: torch.dtype | None) -> None:
    """Give an operation CUDA's way under autocast: in autocast's own dtype (None), or in another."""
    packet = getattr(torch.ops.aten, name.partition(".")[0])
    below = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def run(*args: Any, **kwargs: Any) -> Any:
        wanted = dtype or torch.get_autocast_dtype(DEVICE.type)

        def cast(leaf: Any) -> Any:
            casts = isinstance(leaf, PretendedTensor) and leaf.is_floating_point() and leaf.dtype != torch.float64
            return leaf.to(wanted) if casts else leaf

        with torch._C._ExcludeDispatchKeyGuard(below):
            return packet(*_mapped(cast, args), **{key: _mapped(cast, value) for key, value in kwargs.items()})

    _autocast.impl(name, run)


_others = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
_others.fallback(torch.library.fallthrough_kernel)
_autocast = torch.library.Library("aten", "IMPL", "AutocastPrivateUse1")
for _name in ("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "conv2d", "scaled_dot_product_attention"):
    _cast(_name, None)
for _name in ("layer_norm", "group_norm", "softmax.int"):
    _cast(_name, torch.float32)
