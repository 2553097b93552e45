"""Vision transformers of the `transformers` library, one class for CLIP, SigLIP, DINO to DINOv3, C-RADIO, TIPSv2."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffcut_bench.backbones.architectures import VISION_TRANSFORMERS
from diffcut_bench.backbones.base import Outline, PixelTransform, PretrainedBackbone, grid_of
from diffcut_bench.backbones.pretrained import blaming, find_checkpoint, read_config, read_json, read_transformer
from diffcut_bench.errors import UserError, did_you_mean
from diffcut_bench.extras import require

_GRID = 32
_ATTENTION = "sdpa"
_FILES = (("config.json",), ("preprocessor_config.json",), ("model.safetensors", "pytorch_model.bin"))
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# Names that the parts bear in the families of transformers, the older releases included.
FACETS = {"tokens": (), "queries": ("q_proj", "query"), "keys": ("k_proj", "key"), "values": ("v_proj", "value")}
_NORM_BEFORE_ATTENTION = ("layer_norm1", "layernorm_before", "norm1")
_FINAL_NORM = ("post_layernorm", "layernorm", "norm")
_NAFLEX = ("siglip2", "siglip2_vision_model")


@dataclass(frozen=True)
class _Family:
    """How a kind of checkpoint is read.

    Attributes:
        network: class in transformers, of the vision tower alone.
        interpolates: position embeddings are resized only when that is asked for.
        half: activations fit float16; DINOv3 is said not to support it (facebookresearch/dinov3, issue 181), and of
            C-RADIO and TIPSv2 nothing is known.
        class_token: the first token is of the class.
        final_norm: the last layer's output is normalised.
    """

    network: str
    interpolates: bool = False
    half: bool = True
    class_token: bool = True
    final_norm: bool = True

    def precision(self, dtype: str, device_type: str) -> torch.dtype:
        """In which a network computes on a type of device, ``auto`` resolved."""
        return _DTYPES.get(dtype, torch.float16 if self.half and device_type != "cpu" else torch.float32)


_CLIP = _Family("CLIPVisionModel", interpolates=True)
_SIGLIP = _Family("SiglipVisionModel", interpolates=True, class_token=False)
_TIPS = _Family("Tipsv2VisionModel", half=False)
_FAMILIES = {
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
    "vit": _Family("ViTModel", interpolates=True),
    "dinov2": _Family("Dinov2Model"),
    "dinov2_with_registers": _Family("Dinov2WithRegistersModel"),
    "dinov3_vit": _Family("DINOv3ViTModel", half=False),
    "radio": _Family("RadioModel", half=False, final_norm=False),
    "tipsv2": _TIPS,
    "tipsv2_vision_model": _TIPS,
}


class VisionTransformer(PretrainedBackbone):
    """Patch tokens, or attention's queries, keys or values, of a layer of a vision transformer.

    The family is read from the checkpoint's config.json, the normalisation of pixels from its
    preprocessor_config.json. Of a checkpoint with two towers the one for images is used. Position embeddings are
    interpolated (bicubic; C-RADIO's and TIPSv2's bilinear; rotary ones computed) to the size of the images, which need
    not be square. Layers behind the one asked for are neither read nor run. Class and register tokens take part in
    attention and are left out of the feature map, which is in the precision that the network computes in.

    Args:
        name: option name.
        model: hub id, or a folder with config.json, preprocessor_config.json, and model.safetensors or
            pytorch_model.bin.
        revision: branch, tag or commit of the hub.
        layer: ``last`` or the number of a layer, from 0, or negative from the end. For tokens, ``last`` is the last
            layer's output after the network's final normalisation (CLIP's, which it applies to the class token alone,
            too; C-RADIO has none), a number is that layer's output as it is.
        facet: ``tokens``, or what the layer's attention projects them to: ``queries``, ``keys`` or ``values``, all
            heads side by side, before rotary embedding. Keys of DINO are the features of LOST, TokenCut and MaskCut.
        attention: append the class token's attention to the patches in that layer as further channels, one a head:
            softmax over all tokens, so that a head's sum over the patches is below 1.
        image_size: pixels of the (longer) side of the images; None: what makes 32 patches.
        dtype: ``float32``, ``float16``, ``bfloat16``, or ``auto``: float32 on the CPU, elsewhere float16, save for
            DINOv3, which does not support it, C-RADIO and TIPSv2.
        compile: compile the network with ``torch.compile``.
        gated: the hub's model wants access to be asked for; said where its files are missing.

    Raises:
        UserError: files are missing or damaged, the kind of model is unknown, or an argument is out of range.
    """

    immaterial: tuple[str, ...] = ("gated",)
    network: nn.Module
    norm: nn.Module

    def __init__(
        self,
        name: str,
        model: str,
        revision: str = "main",
        layer: int | str = "last",
        facet: str = "tokens",
        attention: bool = False,
        image_size: int | None = None,
        dtype: str = "auto",
        compile: bool = False,
        gated: bool = False,
    ) -> None:
        super().__init__()
        _check_option("facet", facet, FACETS)
        _check_option("dtype", dtype, ["auto", *_DTYPES])
        self.name, self.facet = name, facet
        self._dtype, self._compile = dtype, compile
        self._is_folder = Path(model).expanduser().is_dir()
        require("transformers", f"backbone={name}", "transformers")
        self._checkpoint = find_checkpoint(model, _FILES, revision=revision, gated=gated)

        path = self._checkpoint.files["config.json"]
        if read_json(path).get("model_type") in _NAFLEX:
            raise UserError(
                "NaFlex checkpoints of SigLIP 2 take lists of patches, not images",
                str(path),
                "choose one of a fixed resolution, such as backbone.model=google/siglip2-base-patch16-512",
            )
        config = read_config(path, _FAMILIES, "is no vision transformer that is known here")
        self._family, self._config = _FAMILIES[config.model_type], getattr(config, "vision_config", config)
        if not isinstance(self._config.patch_size, int):
            raise UserError("patches are not square", str(path), "choose a checkpoint with one patch_size")
        self.stride: int = self._config.patch_size
        self.channels: int = self._config.hidden_size
        self.attention = attention
        if attention:
            if not self._family.class_token:
                raise UserError(
                    f"there is no class token, and so no attention of it: model_type {self._config.model_type!r}",
                    f"backbone={name}",
                    "backbone.attention=false, or a CLIP or DINO backbone",
                )
            self.attention_channels = self._config.num_attention_heads
            self.channels += self.attention_channels
        self._layer, self.layer = _layer_number(layer, facet, self._config.num_hidden_layers)
        self.image_size = _GRID * self.stride if image_size is None else image_size
        if self.image_size < self.stride or self.image_size % self.stride:
            raise UserError(
                f"image_size must be a multiple of the patch size {self.stride}, not {image_size}",
                f"backbone={name}",
                f"backbone.image_size={max(1, round(self.image_size / self.stride)) * self.stride}",
            )
        self._normalise = read_pixel_transform(self._checkpoint.files["preprocessor_config.json"])

    def fingerprint(self) -> dict[str, str]:
        return {
            "model": self.name,
            **self._checkpoint.identity(),
            "layer": self.layer,
            "facet": self.facet,
            "dtype": str(self._precision()).removeprefix("torch."),
            "attention": _ATTENTION,
            "compile": str(self._compile).lower(),
            "transformers": metadata.version("transformers"),
            # Only where it is on: features that were stored before there was the option are found as ever.
            **({"class_attention": "true"} if self.attention else {}),
        }

    @classmethod
    def outline(cls, settings: Mapping[str, Any], image_size: int, device_type: str, aspect: int = 1) -> Outline | None:
        shape = VISION_TRANSFORMERS.get(str(settings.get("model")))
        if shape is None:
            return None
        size = settings.get("image_size") or _GRID * shape.patch
        facet, layer = settings.get("facet", "tokens"), settings.get("layer", "last")
        layers = shape.depth if layer == "last" else int(layer) % shape.depth + 1
        operations = shape.operations(size, layers, projected=facet != "tokens", aspect=aspect)
        heads = shape.heads if settings.get("attention") else 0
        dtype = _FAMILIES[shape.family].precision(settings.get("dtype", "auto"), device_type)
        grid = grid_of(size, shape.patch, aspect)
        return Outline(*grid, shape.width + heads, dtype, operations, shape.parameters())

    @property
    def feature_dtype(self) -> torch.dtype:
        return self._precision()

    def _precision(self) -> torch.dtype:
        """In which the network computes, or will when it is read here."""
        if self._is_read:
            return next(self.network.parameters()).dtype
        return self._family.precision(self._dtype, self.device.type)

    def _read(self) -> None:
        weights = self._checkpoint.weights()
        model, revision = self._checkpoint.model, self._checkpoint.revision
        mend = f"fetch it again: `hf download --force-download {model} {weights.name} --revision {revision}`"
        if self._is_folder:
            mend = "copy it again, or point backbone.model at another folder or a hub id"
        # Only what is asked for is built; the checkpoint's other weights are left unread.
        self._config.num_hidden_layers = self._layer + 1
        self._config.vision_use_head = False
        pooler = {"add_pooling_layer": False} if self._family.network == "ViTModel" else {}
        network = read_transformer(
            self._family.network,
            weights,
            mend,
            config=self._config,
            dtype=self._precision(),
            attn_implementation=_ATTENTION,
            **pooler,
        )
        # The final normalisation is taken out and applied to the patch tokens alone, the same in all families.
        self.norm = nn.Identity()
        if self._family.final_norm:
            norm_name, norm = find_part(network, _FINAL_NORM)
            network.set_submodule(norm_name, nn.Identity())
            self.norm = norm if self.layer == "last" else self.norm
        layers = next(module for module in network.modules() if isinstance(module, nn.ModuleList))
        last = layers[-1]
        norm_before = find_part(last, _NORM_BEFORE_ATTENTION)[1]
        if self.facet != "tokens":
            layers[-1] = Projected(norm_before, find_part(last, FACETS[self.facet])[1])
        if self.attention:
            query, key = (find_part(last, FACETS[facet])[1] for facet in ("queries", "keys"))
            layers[-1] = _Attending(layers[-1], norm_before, query, key, self._config.num_attention_heads)
        self.network = network
        self.to(self.device)
        if self._compile:
            self.network.compile()

    def _extract(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels rows cols"]:
        rows, cols = images.shape[2] // self.stride, images.shape[3] // self.stride
        if images.shape[2:] != (rows * self.stride, cols * self.stride):
            raise ValueError(f"image sides {tuple(images.shape[2:])} are not multiples of {self.stride}")
        pixels = self._normalise(images).to(self._precision())
        asked = {"interpolate_pos_encoding": True} if self._family.interpolates else {}
        tokens = self.network(pixel_values=pixels, **asked).last_hidden_state
        patches = tokens[:, -rows * cols :]  # class and register tokens come first
        width = self._config.hidden_size
        patches = torch.cat([self.norm(patches[:, :, :width]), patches[:, :, width:]], dim=2)
        return patches.transpose(1, 2).unflatten(2, (rows, cols)).contiguous()


class Projected(nn.Module):
    """Stands in for a layer: its normalisation and one of its attention's projections, nothing more."""

    def __init__(self, norm: nn.Module, projection: nn.Module) -> None:
        super().__init__()
        self.norm, self.projection = norm, projection

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        projected: Tensor = self.projection(self.norm(hidden_states))
        return projected


class _Attending(nn.Module):
    """Stands in for the last layer: what that gives, and the class token's attention to each token beside it."""

    def __init__(self, layer: nn.Module, norm: nn.Module, query: nn.Module, key: nn.Module, heads: int) -> None:
        super().__init__()
        self.layer, self.norm, self.query, self.key, self.heads = layer, norm, query, key, heads

    def forward(
        self, hidden_states: Tensor, *others: Any, position_embeddings: tuple[Tensor, Tensor] | None = None, **more: Any
    ) -> Tensor:
        if position_embeddings is not None:
            more["position_embeddings"] = position_embeddings
        given = self.layer(hidden_states, *others, **more)
        normed = self.norm(hidden_states)
        query, key = (
            projection(normed).unflatten(2, (self.heads, -1)).transpose(1, 2) for projection in (self.query, self.key)
        )
        if position_embeddings is not None:  # DINOv3
            from transformers.models.dinov3_vit.modeling_dinov3_vit import apply_rotary_pos_emb

            query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
        logits = query[:, :, :1] @ key.mT * query.shape[3] ** -0.5  # batch × heads × 1 × tokens
        attention = logits.softmax(dim=3, dtype=torch.float32)[:, :, 0].transpose(1, 2)
        return torch.cat([given, attention.to(given.dtype)], dim=2)


def find_part(module: nn.Module, names: tuple[str, ...]) -> tuple[str, nn.Module]:
    """First sub-module, outermost first, that bears one of the names; with its dotted path."""
    found = [(path, part) for path, part in module.named_modules() if path.rpartition(".")[2] in names]
    return min(found, key=lambda item: item[0].count("."))


def _check_option(option: str, value: str, known: Any) -> None:
    if value not in known:
        raise UserError(f"{option} {value!r} is unknown", f"backbone.{option}", did_you_mean(str(value), known))


def _layer_number(layer: int | str, facet: str, depth: int) -> tuple[int, str]:
    """Number of the layer from 0, and its one name in fingerprints: ``last`` where the final normalisation counts."""
    if layer == "last":
        return depth - 1, "last" if facet == "tokens" else str(depth - 1)
    if not isinstance(layer, int) or isinstance(layer, bool) or not -depth <= layer < depth:
        raise UserError(
            f"there is no layer {layer}: the network has {depth} layers",
            "backbone.layer",
            f"backbone.layer=last, 0 to {depth - 1}, or -1 to -{depth}",
        )
    return layer % depth, str(layer % depth)


def read_pixel_transform(path: Path) -> PixelTransform:
    """What a preprocessor_config.json says of colours.

    Raises:
        UserError: it can't be read, or its mean or deviation are not three numbers.
    """
    values = read_json(path)
    # Files older than rescaling as an option mean 1 / 255.
    rescale = 255.0
    if values.get("do_rescale", True):
        rescale *= values.get("rescale_factor") or 1 / 255
    normalises = values.get("do_normalize", True)
    mean = values.get("image_mean") if normalises else [0, 0, 0]
    deviation = values.get("image_std") if normalises else [1, 1, 1]
    what = f"image_mean and image_std must be three numbers each, not {mean} and {deviation}"
    with blaming(what, path, "fetch the file again, or write the values that the network was trained with"):
        centre, divisor = (torch.tensor(three, dtype=torch.float64).view(1, 3, 1, 1) for three in (mean, deviation))
    return PixelTransform((rescale / divisor).float(), (-centre / divisor).float())
