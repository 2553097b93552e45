"""What bounds the speed of the cut: the bytes that it reads, counted, and the rate of reading, measured."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.timing import timed

_aten = torch.ops.aten
# Index of the first factor among the arguments of each matrix product.
_FACTORS = {
    **dict.fromkeys((_aten.mm.default, _aten.bmm.default, _aten.mv.default), 0),
    **dict.fromkeys((_aten.addmm.default, _aten.baddbmm.default, _aten.addmv.default), 1),
    **dict.fromkeys((_aten.addmm_.default, _aten.baddbmm_.default, _aten.addmv_.default), 1),
}


def read_rate(size: int, device: torch.device) -> float:
    """Bytes a second at which a float32 matrix is read to multiply one vector from the left: the best of ten.

    Args:
        size: rows and columns of the matrix. A small one stays in the caches, and is read faster than memory is.
        device: that multiplies.
    """
    matrix, vector = torch.rand(1, size, size, device=device), torch.rand(1, 1, size, device=device)
    (product,) = timed([lambda: vector @ matrix], 10, device)
    return 4 * size**2 / product.least


class VectorProducts(TorchDispatchMode):
    """Counts, while it is entered, the bytes that products of one vector with a matrix must read.

    Attributes:
        read: bytes of the matrices.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.read = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _FACTORS:
            first, second = args[_FACTORS[func]], args[_FACTORS[func] + 1]
            if second.ndim == 1 or second.shape[-1] == 1:
                self.read += first.numel() * first.element_size()
            elif first.shape[-2] == 1:
                self.read += second.numel() * second.element_size()
        return func(*args, **(kwargs or {}))
