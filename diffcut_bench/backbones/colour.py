"""Raw colour: the floor that any learned feature has to beat."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from diffcut_bench.backbones.base import Backbone, Outline, grid_of


class Colour(Backbone):
    """Mean RGB of each patch less mid-grey (0.5, 0.5, 0.5); nothing is learned.

    Without the shift all colours lie in one octant and every cosine is close to 1. The shift is a constant and not the
    image's mean, so that patches of different images can be compared. Mid-grey itself becomes the zero vector.

    Args:
        stride: pixels a patch, in both directions.
    """

    name = "colour"
    channels = 3

    def __init__(self, stride: int = 32) -> None:
        super().__init__()
        if stride < 1:
            raise ValueError(f"stride must be at least 1, not {stride}")
        self.stride = stride

    @classmethod
    def outline(cls, settings: Mapping[str, Any], image_size: int, device_type: str, aspect: int = 1) -> Outline:
        grid = grid_of(image_size, int(settings.get("stride", 32)), aspect)
        return Outline(*grid, cls.channels, torch.float32, operations=0.0)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels rows cols"]:
        return avg_pool2d(images, self.stride) - 0.5

    def fingerprint(self) -> dict[str, str]:
        return {"model": self.name, "stride": str(self.stride), "layer": "mean RGB - 0.5"}
