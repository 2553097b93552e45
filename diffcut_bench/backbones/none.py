"""No network: for segmentations that were made elsewhere."""

from jaxtyping import Float
from torch import Tensor

from diffcut_bench.backbones.base import Backbone
from diffcut_bench.errors import UserError


class NoBackbone(Backbone):
    """Stands where a segmenter needs no features (``segmenter=precomputed``).

    Raises:
        UserError: when features are asked for.
    """

    name = "none"
    stride = 1
    channels = 0

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 0 rows cols"]:
        raise UserError("this segmenter needs features", "backbone=none", "choose a backbone, such as backbone=ssd1b")

    def fingerprint(self) -> dict[str, str]:
        return {"model": "none"}
