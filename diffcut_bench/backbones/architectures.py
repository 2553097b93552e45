"""Shapes of published networks, so that what they give and take is known before their weights are there.

Knows configs and counts; reads no weights. Counts are of convolutions and matrix products, two for a multiply-add.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from diffcut_bench.backbones.base import grid_of
from diffcut_bench.extras import require

_SDXL = {
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
# Configs of diffusers' `UNet2DConditionModel` by hub id. With its decoder SSD-1B has the paper's 1.3 B parameters. The
# depth of Vega's decoder is stated nowhere: it is the least here, so that figures of all of it are lower bounds.
UNETS: Mapping[str, Mapping[str, Any]] = {
    "segmind/SSD-1B": {
        **_SDXL,
        "mid_block_type": None,
        "transformer_layers_per_block": [1, [2, 2], [4, 4]],
        "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
    },
    "segmind/Segmind-Vega": {
        **_SDXL,
        "mid_block_type": None,
        "transformer_layers_per_block": [1, [1, 1], [2, 2]],
        "reverse_transformer_layers_per_block": [[1, 1, 1], [1, 1, 1], 1],
    },
    "stabilityai/stable-diffusion-xl-base-1.0": {**_SDXL, "transformer_layers_per_block": [1, 2, 10]},
    "CompVis/stable-diffusion-v1-4": {
        "block_out_channels": [320, 640, 1280, 1280],
        "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
        "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
        "attention_head_dim": 8,
        "cross_attention_dim": 768,
    },
}
# `AutoencoderKL` of all of them.
VAE: Mapping[str, Any] = {
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 4,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}


@dataclass(frozen=True)
class VisionShape:
    """A vision transformer whose MLPs are four times as wide as its tokens.

    Attributes:
        family: ``model_type`` of the checkpoint's config.json.
        patch: pixels a patch, in both directions.
        width: channels of a token.
        depth: layers.
        extra: tokens that are no patch: class and registers.
        gated: the MLPs have a gate (SwiGLU), a third matrix of the same shape.
        head: channels of a head of attention.
    """

    family: str
    patch: int
    width: int
    depth: int
    extra: int = 1
    gated: bool = False
    head: int = 64

    @property
    def heads(self) -> int:
        """Of attention, in each layer."""
        return self.width // self.head

    @property
    def _layer_weights(self) -> int:
        return (16 if self.gated else 12) * self.width**2

    def parameters(self) -> int:
        """Weights of layers and patch embedding; biases, norms and position embeddings left out."""
        return self._layer_weights * self.depth + 3 * self.patch**2 * self.width

    def operations(self, image_size: int, layers: int, projected: bool = False, aspect: int = 1) -> float:
        """Of one image.

        Args:
            image_size: pixels of the longer side.
            layers: that are run.
            projected: of the last one no more than one projection of its input.
            aspect: longer side over the shorter one.
        """
        rows, cols = grid_of(image_size, self.patch, aspect)
        patches = rows * cols
        tokens = patches + self.extra
        whole = layers - projected
        layer = 2 * tokens * self._layer_weights + 4 * tokens**2 * self.width
        embedding = 2 * patches * 3 * self.patch**2 * self.width
        return float(embedding + whole * layer + projected * 2 * tokens * self.width**2)


VISION_TRANSFORMERS: Mapping[str, VisionShape] = {
    "openai/clip-vit-base-patch16": VisionShape("clip", 16, 768, 12),
    "openai/clip-vit-large-patch14": VisionShape("clip", 14, 1024, 24),
    "google/siglip-base-patch16-224": VisionShape("siglip", 16, 768, 12, extra=0),
    "google/siglip-large-patch16-256": VisionShape("siglip", 16, 1024, 24, extra=0),
    "google/siglip2-base-patch16-512": VisionShape("siglip", 16, 768, 12, extra=0),
    "facebook/dino-vitb16": VisionShape("vit", 16, 768, 12),
    "facebook/dino-vits16": VisionShape("vit", 16, 384, 12),
    "facebook/dino-vitb8": VisionShape("vit", 8, 768, 12),
    "facebook/dino-vits8": VisionShape("vit", 8, 384, 12),
    "facebook/dinov2-base": VisionShape("dinov2", 14, 768, 12),
    "facebook/dinov2-large": VisionShape("dinov2", 14, 1024, 24),
    "facebook/dinov2-with-registers-small": VisionShape("dinov2_with_registers", 14, 384, 12, extra=5),
    "facebook/dinov2-with-registers-base": VisionShape("dinov2_with_registers", 14, 768, 12, extra=5),
    "facebook/dinov3-vits16-pretrain-lvd1689m": VisionShape("dinov3_vit", 16, 384, 12, extra=5),
    "facebook/dinov3-vits16plus-pretrain-lvd1689m": VisionShape("dinov3_vit", 16, 384, 12, extra=5, gated=True),
    "facebook/dinov3-vitb16-pretrain-lvd1689m": VisionShape("dinov3_vit", 16, 768, 12, extra=5),
    "facebook/dinov3-vitl16-pretrain-lvd1689m": VisionShape("dinov3_vit", 16, 1024, 24, extra=5),
    "facebook/dinov3-vith16plus-pretrain-lvd1689m": VisionShape("dinov3_vit", 16, 1280, 32, extra=5, gated=True),
    "nvidia/C-RADIOv4-H": VisionShape("radio", 16, 1280, 32, extra=10, head=80),
    "google/tipsv2-b14": VisionShape("tipsv2", 14, 768, 12, extra=2),
}


def published_config(model: str, part: str) -> Mapping[str, Any] | None:
    """Config of a part, ``unet`` or ``vae``: a folder's own, or that of a hub id; None where it is not known here."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        try:
            config: Mapping[str, Any] = json.loads((folder / part / "config.json").read_text())
        except (OSError, ValueError):
            return None
        return config
    if model not in UNETS:
        return None
    return UNETS[model] if part == "unet" else VAE


def unet_operations(config: Mapping[str, Any], deepest: int | None, image_size: int, aspect: int = 1) -> float:
    """Of one image in a UNet, or in its encoder down to a level (`diffusion_weights.keep_encoder`).

    Args:
        config: of the UNet.
        deepest: last level that is run; None: all of it.
        image_size: pixels of the longer side.
        aspect: longer side over the shorter one.
    """
    from diffcut_bench.backbones.diffusion_weights import keep_encoder

    unet = _without_values("UNet2DConditionModel", config)
    if deepest is not None:
        keep_encoder(unet, deepest)
    side = image_size // 8
    conditions: dict[str, Any] = {}
    with torch.device("meta"):
        if unet.config.addition_embed_type == "text_time":
            pooled = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
            conditions = {"added_cond_kwargs": {"text_embeds": torch.empty(1, pooled), "time_ids": torch.empty(1, 6)}}
        latents = torch.empty(1, unet.config.in_channels, side // aspect, side)
        prompt = torch.empty(1, 77, unet.config.cross_attention_dim)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            unet(latents, torch.empty(()), prompt, **conditions)
    return float(counter.get_total_flops())


def unet_parameters(config: Mapping[str, Any]) -> int:
    """Of the whole UNet."""
    return sum(each.numel() for each in _without_values("UNet2DConditionModel", config).parameters())


def vae_operations(config: Mapping[str, Any], image_size: int, aspect: int = 1) -> float:
    """Of one image in a VAE's encoder; arguments as of `unet_operations`."""
    vae = _without_values("AutoencoderKL", config)
    images = torch.empty(1, 3, image_size // aspect, image_size, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        vae.quant_conv(vae.encoder(images))
    return float(counter.get_total_flops())


def _without_values(kind: str, config: Mapping[str, Any]) -> Any:
    """A network of diffusers that has shapes alone."""
    require("diffusion", "the operations of a diffusion backbone", "diffusers")
    import diffusers

    with torch.device("meta"):
        return getattr(diffusers, kind).from_config(dict(config))
