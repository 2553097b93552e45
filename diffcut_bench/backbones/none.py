"""No network: for segmentations that were made elsewhere."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffcut_bench.backbones.base import Backbone, Outline
from diffcut_bench.errors import UserError


class NoBackbone(Backbone):
    """Stands where a segmenter needs no features (``segmenter=precomputed``).

    Raises:
        UserError: when features are asked for.
    """

    name = "none"
    stride = 1
    channels = 0

    @classmethod
    def outline(cls, settings: Mapping[str, Any], image_size: int, device_type: str, aspect: int = 1) -> Outline:
        return Outline(0, 0, 0, torch.float32, operations=0.0)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 0 rows cols"]:
        raise UserError("this segmenter needs features", "backbone=none", "choose a backbone, such as backbone=ssd1b")

    def fingerprint(self) -> dict[str, str]:
        return {"model": "none"}
