"""Dense features of CLIP and SigLIP (`transformers`) in the space of their texts, as MaskCLIP takes them."""

from collections.abc import Sequence
from importlib import metadata
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from diffcut_bench.backbones.pretrained import (
    blaming,
    find_checkpoint,
    quiet_transformers,
    read_config,
    read_transformer,
)
from diffcut_bench.backbones.vision_transformer import Projected, read_pixel_transform
from diffcut_bench.errors import UserError
from diffcut_bench.extras import require
from diffcut_bench.naming.encoder import TextImageEncoder
from diffcut_bench.naming.namer import Namer

_OPTION = "namer.model"
_FILES = (
    ("config.json",),
    ("preprocessor_config.json",),
    ("model.safetensors", "pytorch_model.bin"),
    ("tokenizer.json",),
    ("tokenizer_config.json",),
)
_NETWORKS = {"clip": "CLIPModel", "siglip": "SiglipModel"}


class ClipEncoder(TextImageEncoder):
    """CLIP or SigLIP: each patch's value, without the mixing of attention, where images and texts meet.

    CLIP: the last block's values through its output projection (the block's MLP and residual are left out), the final
    normalisation and the visual projection. SigLIP's images meet texts behind a pooling head, which is the last
    attention that they pass: its values, its output projection, and its MLP in the place of a visual projection.
    Computes in float32; position embeddings are interpolated.

    Args:
        name: option name.
        model: hub id, or a folder with the network, its preprocessor_config.json and its tokenizer.
        revision: branch, tag or commit of the hub.
        image_size: pixels of the longer side of what the network sees.
        input: see `TextImageEncoder`.

    Raises:
        UserError: files are missing or damaged, or the checkpoint is neither CLIP nor SigLIP.
    """

    network: nn.Module

    def __init__(
        self, name: str, model: str, revision: str = "main", image_size: int = 512, input: str = "normalised"
    ) -> None:
        super().__init__(input)
        self.name = name
        require("transformers", f"namer={name}", "transformers")
        self._checkpoint = find_checkpoint(model, _FILES, revision=revision, option=_OPTION)
        config = read_config(self._checkpoint.files["config.json"], _NETWORKS, "does not read texts and images")
        self._kind: str = config.model_type
        self.stride: int = config.vision_config.patch_size
        self.channels: int = config.projection_dim if self._kind == "clip" else config.vision_config.hidden_size
        if image_size < self.stride:
            where = f"namer={name}"
            raise UserError(f"image_size {image_size} is less than a patch", where, f"namer.image_size={self.stride}")
        self.image_size = image_size
        self._normalise = read_pixel_transform(self._checkpoint.files["preprocessor_config.json"])

    def fingerprint(self) -> dict[str, str]:
        return {
            "encoder": self.name,
            **self._checkpoint.identity(),
            "image_size": str(self.image_size),
            "input": self.input,
            "transformers": metadata.version("transformers"),
        }

    @torch.no_grad()
    def text(self, texts: Sequence[str]) -> Float[Tensor, "texts dimensions"]:
        self.read()
        network: Any = self.network
        fills_up = self._kind == "siglip"  # it was trained on texts of full length; CLIP looks for the token of the end
        tokens = self._tokenizer(
            list(texts),
            padding="max_length" if fills_up else True,
            max_length=network.config.text_config.max_position_embeddings,
            truncation=True,
            return_tensors="pt",
        )
        seen = ("input_ids",) if fills_up else ("input_ids", "attention_mask")
        found = network.get_text_features(**{name: tokens[name].to(network.device) for name in seen})
        return found if isinstance(found, Tensor) else found.pooler_output

    def _read(self) -> None:
        from transformers import AutoTokenizer

        weights = self._checkpoint.weights()
        hint = f"fetch it again, or point {_OPTION} at another folder or a hub id"
        network = read_transformer(_NETWORKS[self._kind], weights, hint, dtype=torch.float32)
        if self._kind == "clip":
            layers = network.vision_model.encoder.layers
            attention = layers[-1].self_attn
            layers[-1] = Projected(layers[-1].layer_norm1, nn.Sequential(attention.v_proj, attention.out_proj))
        self.network = network
        with blaming("the tokenizer can't be read", weights.parent, "fetch its files again"), quiet_transformers():
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                weights.parent, local_files_only=True, trust_remote_code=False
            )
        self.to(self.device)

    def _extract(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels rows cols"]:
        rows, cols = images.shape[2] // self.stride, images.shape[3] // self.stride
        vision: Any = self.network.vision_model
        tokens = vision(pixel_values=self._pixels(images), interpolate_pos_encoding=True).last_hidden_state
        patches: Tensor = tokens[:, -rows * cols :]  # CLIP's class token comes first
        if self._kind == "clip":
            project: Any = self.network.visual_projection
            patches = project(vision.post_layernorm(patches))
        else:
            patches = _unpooled(vision.head, patches)
        return patches.transpose(1, 2).unflatten(2, (rows, cols)).contiguous()


def _unpooled(head: Any, tokens: Float[Tensor, "batch patches channels"]) -> Float[Tensor, "batch patches channels"]:
    """What SigLIP's pooling head makes of an image in which every patch is this one."""
    attention = head.attention
    weight, bias = attention.in_proj_weight.chunk(3)[2], attention.in_proj_bias.chunk(3)[2]
    values: Tensor = attention.out_proj(linear(tokens, weight, bias))
    return values + head.mlp(head.layernorm(values))


def clip_namer(**options: Any) -> Namer:
    """The ``namer=clip_b16`` and ``namer=siglip_b16`` options: a `Namer` over a `ClipEncoder`."""
    return Namer.over(ClipEncoder, **options)
