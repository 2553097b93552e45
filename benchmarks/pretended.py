"""An accelerator that pretends: code for a device runs, and is counted, where there is none.

    with Pretended() as accelerator:
        labels = recursive_ncut(features.to(DEVICE), tau=0.5, alpha=10)
    accelerator.counts.kernels     # launches, by the line of the package that asked for them
    accelerator.counts.crossings   # waits of the host for the device, likewise

It stands in for a GPU in tests (is everything on one device? are results those of the CPU?) and in the table of
counts; `launches` says what is counted and by which model it takes time. Its tensors say that they are on `DEVICE` and
hold a CPU tensor that does the work. As on CUDA

* an operation on tensors of both devices fails. Legal are 0-dimensional CPU tensors beside others where values are
  combined one by one, CPU tensors as indices (which are uploaded), and copies;
* a generator of the CPU draws no numbers for the device, and NumPy can't see its tensors;
* what a copy with ``non_blocking`` brings to the host is there once the host has waited for anything. Who reads it
  earlier gets on a GPU whatever is there, and here an error;
* autocast casts, of CUDA's lists, the operations that networks here use.

`pin_memory` copies on the host and marks the copy.

Importing this names the device. It is there inside ``with`` alone.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

import diffcut_bench
from benchmarks.launches import ATTENTION, COPIES, INDEXING, Counts, leaves

_PACKAGE = str(Path(diffcut_bench.__file__).parent) + os.sep
_PINNED, _COMING = "_pretended_pinned", "_pretended_coming"  # mark storages
_FILLING = {"masked_fill", "masked_fill_", "fill_"}


class PretendedTensor(Tensor):
    """A tensor of the pretended device.

    Attributes:
        inside: the CPU tensor that holds its values.
    """

    inside: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, inside: Tensor) -> Self:
        with torch.inference_mode(False):  # views of a tensor may be made in and out of that mode
            return torch.Tensor._make_wrapper_subclass(
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
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:  # as modules do that change their precision
        assert isinstance(value, PretendedTensor)
        self.inside = value.inside
        Tensor.data.__set__(self, value)  # type: ignore[attr-defined]

    def tolist(self) -> Any:
        _counts().download(_place(), self)
        return self.inside.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError(f"can't convert a tensor on {DEVICE} to numpy; use Tensor.cpu() first")

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"PretendedTensor({list(self.shape)}, {self.dtype})"


class _Generator(torch.Generator):
    """A generator whose device may be the pretended one; it then draws what a CPU's of the same seed would."""

    def __new__(cls, device: Any = "cpu") -> Any:
        if torch.device(device).type != DEVICE.type:
            return _HostGenerator(device)
        assert Pretended.active is not None
        made: Any = super().__new__(cls, "cpu")  # type: ignore[call-arg]
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
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts = Counts()
        self.generators: dict[int, torch.Generator] = {}
        self._waited = 0
        self._anything_coming = False
        self._patches = ExitStack()

    def taken(self) -> Counts:
        """What was counted so far; counting begins anew."""
        counts, self.counts = self.counts, Counts()
        self._waited += counts.crossings.total()
        return counts

    @property
    def waited(self) -> int:
        """How often the host has waited since the device is there."""
        return self._waited + self.counts.crossings.total()

    def send(self, tensor: Tensor) -> None:
        """Mark a tensor of the host that the device writes while the host goes on."""
        setattr(tensor.untyped_storage(), _COMING, self.waited)
        self._anything_coming = True

    def check_is_there(self, tensor: Tensor) -> None:
        """Raise if a tensor of the host is still being written."""
        if self._anything_coming and getattr(tensor.untyped_storage(), _COMING, None) == self.waited:
            raise RuntimeError(f"host memory is read before {DEVICE} has written it: nothing was waited for")

    def __enter__(self) -> Self:
        if Pretended.active is not None:
            raise RuntimeError("there is one pretended accelerator at a time")
        Pretended.active = self
        for owner, name, stand_in in (
            (torch, "Generator", _Generator),
            (torch.Tensor, "pin_memory", _pin),
            (torch.Tensor, "is_pinned", _is_pinned),
            (torch.Tensor, "tolist", _once_there(torch.Tensor.tolist)),
            (torch.Tensor, "numpy", _once_there(torch.Tensor.numpy)),
            (torch.accelerator, "synchronize", _synchronize),
        ):
            self._patches.enter_context(patch.object(owner, name, stand_in))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        self._patches.close()
        self.generators.clear()
        Pretended.active = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})


def _once_there(read: Callable[..., Any]) -> Callable[..., Any]:
    """A method of tensors of the host that no dispatch mode sees."""

    def checked(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        if Pretended.active is not None:
            Pretended.active.check_is_there(tensor)
        return read(tensor, *args, **kwargs)

    return checked


def _pin(tensor: Tensor, device: object = None) -> Tensor:
    if isinstance(tensor, PretendedTensor):
        raise RuntimeError(f"cannot pin a tensor on {DEVICE}: only dense CPU tensors can be pinned")
    if _is_pinned(tensor):
        return tensor
    pinned = tensor.clone()
    setattr(pinned.untyped_storage(), _PINNED, True)
    return pinned


def _is_pinned(tensor: Tensor, device: object = None) -> bool:
    return not isinstance(tensor, PretendedTensor) and hasattr(tensor.untyped_storage(), _PINNED)


def _synchronize(device: object = None) -> None:
    _counts().crossings[_place()] += 1


def _counts() -> Counts:
    """Where is counted: outside of ``with`` nothing is."""
    return Counts() if Pretended.active is None else Pretended.active.counts


def _place() -> str:
    """The innermost line of the package that is being run."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_PACKAGE):
            return f"{name.removeprefix(_PACKAGE)}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One operation: on the tensors inside, checked and counted where the device takes part."""
    values = [*leaves(args), *leaves(tuple(kwargs.values()))]
    ours = [leaf for leaf in values if isinstance(leaf, PretendedTensor)]
    hosts = [leaf for leaf in values if isinstance(leaf, Tensor) and not isinstance(leaf, PretendedTensor)]
    accelerator = Pretended.active
    if accelerator is not None and not func.is_view:
        for host in hosts:
            accelerator.check_is_there(host)
    wanted = torch.device(kwargs["device"]).type if kwargs.get("device") is not None else None
    if not ours and wanted != DEVICE.type:
        pins = bool(kwargs.pop("pin_memory", False)) and Pretended.active is not None
        made = func(*args, **kwargs)
        return made.pin_memory() if pins else made
    # In inference mode nothing has taken it apart yet. Torch writes resizing in Python too; a GPU has a kernel for it.
    if func._can_decompose() and not func.overloadpacket.__name__.startswith(("upsample", "_upsample")):
        with _dispatched():
            return func.decompose(*args, **kwargs)
    name = func.overloadpacket.__name__
    if ours and hosts:
        _check_devices(func, args, hosts)
    _check_generators(values)
    if name == "_fused_sdp_choice":
        return torch.nn.attention.SDPBackend.OVERRIDEABLE.value
    given, named = _mapped(_inside, args), {key: _mapped(_inside, value) for key, value in kwargs.items()}
    if named.get("pin_memory"):
        named["pin_memory"] = False
    found: Any = (_attention if name == ATTENTION else func)(*given, **named)
    before = 0 if accelerator is None else accelerator.waited
    _counts().operation(_place(), func, args, kwargs, found)
    on_device = wanted == DEVICE.type or wanted is None
    comes_down = name in COPIES and bool(ours) and (not on_device or any(found is host for host in hosts))
    if accelerator is not None and comes_down and accelerator.waited == before:
        accelerator.send(found)
    # What an operation changed is returned as the tensor that it was given.
    known = {id(leaf.inside): leaf for leaf in ours} | {id(leaf): leaf for leaf in hosts}
    for leaf in ours:
        if (leaf.shape, leaf.stride()) != (leaf.inside.shape, leaf.inside.stride()):
            raise NotImplementedError(f"{func} changes the shape or strides of a tensor in place")

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


def _check_devices(func: Any, args: tuple[Any, ...], hosts: list[Tensor]) -> None:
    """Raise as CUDA does for an operation on tensors of the device and these of the host."""
    name = func.overloadpacket.__name__
    if name in COPIES:
        return
    if name in INDEXING and isinstance(args[0], PretendedTensor):
        values = args[2] if len(args) > 2 else None
        if not isinstance(values, Tensor) or isinstance(values, PretendedTensor) or values.dim() == 0:
            return
    elif torch.Tag.pointwise in func.tags or name in _FILLING:
        first_is_written = name.endswith("_") and not isinstance(args[0], PretendedTensor)
        if all(host.dim() == 0 for host in hosts) and not first_is_written:
            return
    raise RuntimeError(
        f"Expected all tensors to be on the same device, but found at least two devices, {DEVICE} and cpu! ({func})"
    )


def _check_generators(values: list[Any]) -> None:
    """Raise as CUDA does for a generator of the host."""
    known = {} if Pretended.active is None else Pretended.active.generators
    for value in values:
        if isinstance(value, _HostGenerator) and value._cdata not in known:  # type: ignore[attr-defined]
            raise RuntimeError(f"Expected a '{DEVICE.type}' device type for generator but found '{value.device.type}'")


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
    below = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)  # type: ignore[attr-defined]

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
