"""Every patch a segment of its own: no grouping, for a namer that names each patch (MaskCLIP)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Patches:
    """Numbers the patches from 0, row by row; features are not looked at, only their grid."""

    def __call__(self, features: Float[Tensor, "batch channels rows cols"]) -> Int[Tensor, "batch rows cols"]:
        rows, cols = features.shape[-2:]
        return torch.arange(rows * cols, device=features.device).view(1, rows, cols).repeat(len(features), 1, 1)
