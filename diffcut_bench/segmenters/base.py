"""The interface of a segmenter: feature map -> partition. Knows tensors only."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor


@runtime_checkable
class Segmenter(Protocol):
    """Groups the patches of each image; images do not influence each other."""

    def __call__(self, features: Float[Tensor, "batch channels rows cols"]) -> Int[Tensor, "batch rows cols"]:
        """Segment of each patch, contiguous from 0 within each image; the numbering carries no meaning."""
