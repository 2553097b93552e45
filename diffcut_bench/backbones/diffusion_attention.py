"""Self-attention of a latent diffusion model as features: what DiffSeg segments."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from diffcut_bench.backbones.architectures import published_config
from diffcut_bench.backbones.base import Outline, grid_of
from diffcut_bench.backbones.diffusion import DiffusionEncoder


class DiffusionAttention(DiffusionEncoder):
    """Where each patch looks: the self-attention of all layers, aggregated (Tian et al., CVPR 2024).

    Features are [batch, keys, rows, cols]: for each patch of the finest attended grid a probability distribution over
    the patches of that grid in raster order, float32. They are large: 64 MiB an image at 64×64 patches, and the layers'
    own maps take some five times as much while they are aggregated.

    Args:
        name, model: as of `DiffusionEncoder`.
        image_size: pixels of the network's input; DiffSeg's 512.
        timestep: DiffSeg's 300.
        noise: DiffSeg adds none.
        whole_unet: layers of the decoder too; False: of the encoder down to ``block``.
        options: the others of `DiffusionEncoder`; with the whole UNet ``block`` changes nothing.

    Raises:
        UserError: files are missing, or an argument is out of range.
    """

    channels_are_patches = True

    def __init__(
        self,
        name: str,
        model: str,
        *,
        image_size: int | None = 512,
        timestep: int = 300,
        noise: bool = False,
        whole_unet: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(
            name, model, image_size=image_size, timestep=timestep, noise=noise, whole_unet=whole_unet, **options
        )
        weights = self._weights
        levels = range(len(weights.unet_config["down_block_types"]))
        self._finest = next(level for level in levels if weights.has_attention("down", level))
        self.stride = weights.vae_stride * 2**self._finest
        # Of a square image of the option's size; an image of another shape has as many keys as patches.
        self.channels = ((image_size or 1024) // self.stride) ** 2

    def fingerprint(self) -> dict[str, str]:
        return {**super().fingerprint(), "features": "self-attention", "whole_unet": str(self._whole)}

    @classmethod
    def outline(cls, settings: Mapping[str, Any], image_size: int, device_type: str, aspect: int = 1) -> Outline | None:
        known = super().outline(settings, image_size, device_type, aspect)
        config = published_config(str(settings.get("model")), "unet")
        if known is None or config is None:
            return None
        finest = next(level for level, kind in enumerate(config["down_block_types"]) if "Attn" in kind)
        rows, cols = grid_of(settings.get("image_size") or image_size, 8 * 2**finest, aspect)
        return replace(known, rows=rows, cols=cols, channels=rows * cols, dtype=torch.float32)

    @property
    def feature_dtype(self) -> torch.dtype:
        return torch.float32

    def _extract(self, images: Tensor) -> Tensor:
        maps = self.self_attention(images)
        self._captured.clear()
        stride = self._weights.vae_stride
        return aggregate_attention(maps, (images.shape[-2] // stride, images.shape[-1] // stride), self._finest)


def aggregate_attention(
    maps: Sequence[Float[Tensor, "batch _ _"]], latents: tuple[int, int], finest: int = 0
) -> Float[Tensor, "batch keys rows cols"]:
    """One attention map for each patch of the finest grid, from the layers' own (Tian et al., CVPR 2024, section 3.2).

    Each key map is resized bilinearly to the finest grid and divided by its sum; queries are repeated to the finest
    grid. Layers of one resolution are averaged, and resolutions are weighted in proportion to their patches a side.

    Args:
        maps: of each layer [batch, queries, keys], both in raster order, rows that sum to one.
        latents: rows and columns of the latent image, level 0 of the UNet; each level halves them, rounding up.
        finest: level of the finest grid among the maps.

    Raises:
        ValueError: a map has the patches of no level.
    """
    sums: dict[int, Tensor] = {}
    layers: dict[int, int] = {}
    grid = _grid_at(latents, finest)
    for map_ in maps:
        level = _level_of(map_.shape[1], latents)
        resized = _resize_keys(map_.float(), _grid_at(latents, level), grid)
        sums[level] = sums[level] + resized if level in sums else resized
        layers[level] = layers.get(level, 0) + 1
    weights = {level: 2.0**-level for level in sums}
    total = sum(weights.values())
    aggregated = torch.zeros(1)
    for position, (level, summed) in enumerate(sorted(sums.items())):
        repeated = _repeat_queries(summed * (weights[level] / (total * layers[level])), _grid_at(latents, level), grid)
        aggregated = repeated if position == 0 else aggregated.add_(repeated)
    return aggregated.transpose(1, 2).unflatten(2, grid)


def _grid_at(latents: tuple[int, int], level: int) -> tuple[int, int]:
    """Rows and columns at a level: a convolution of stride 2 rounds up."""
    return -(-latents[0] // 2**level), -(-latents[1] // 2**level)


def _level_of(patches: int, latents: tuple[int, int]) -> int:
    for level in range(max(latents).bit_length() + 1):
        rows, cols = _grid_at(latents, level)
        if rows * cols == patches:
            return level
    raise ValueError(f"{patches} patches are no level of {latents[0]}×{latents[1]} latents")


def _resize_keys(maps: Tensor, source: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """[batch, queries, keys] with the keys on another grid; each map sums to one."""
    if source != target:
        maps = interpolate(maps.unflatten(2, source), target, mode="bilinear", align_corners=False).flatten(2)
    return maps / maps.sum(dim=2, keepdim=True)


def _repeat_queries(maps: Tensor, source: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """[batch, queries, keys] with each query given to all patches of the target grid that lie in it."""
    rows, cols = (
        torch.arange(fine, device=maps.device) * coarse // fine for coarse, fine in zip(source, target, strict=True)
    )
    return maps[:, (rows[:, None] * source[1] + cols).flatten()]
