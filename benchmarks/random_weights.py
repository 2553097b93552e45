"""Diffusion models of the real shapes with random weights, so that speed can be measured where none can be downloaded.

Knows the hub's folder layout and diffusers' networks, of which only what `DiffusionEncoder` reads is written.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from diffcut_bench.backbones.architectures import UNETS, VAE, unet_operations, vae_operations
from diffcut_bench.backbones.diffusion_weights import keep_encoder

_VARIANT = "fp16"
_WRITTEN = "written.json"  # what the folder holds; the folder appears only when all of it is there
_TOKENS = 77
_MODELS = {"ssd1b": "segmind/SSD-1B", "vega": "segmind/Segmind-Vega"}


@dataclass(frozen=True)
class Architecture:
    """Shapes of an SDXL-type model.

    Attributes:
        unet, vae, tiny_vae: configs of `UNet2DConditionModel`, `AutoencoderKL` and `AutoencoderTiny` in diffusers.
        text: hidden sizes of the two text encoders; together the UNet's cross-attention width. Their depth and
            vocabulary are small: the empty prompt is encoded once and is no part of the time.
    """

    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    tiny_vae: Mapping[str, Any]
    text: tuple[int, int]

    @property
    def deepest(self) -> int:
        """Level of the UNet's encoder down to which it is kept: all of it."""
        return len(self.unet["block_out_channels"]) - 1


# The decoder has the least depth: nothing of it is read.
_LEAST_DECODER = {"mid_block_type": None, "reverse_transformer_layers_per_block": [[1, 1, 1], [1, 1, 1], 1]}
_SDXL_VAE = {**VAE, "sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True}
_TINY_UNET = {
    "sample_size": 8,
    "block_out_channels": [8, 16, 32],
    "norm_num_groups": 4,
    "attention_head_dim": [2, 2, 4],
    "cross_attention_dim": 40,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 24 + 6 * 8,
}
_TINY_VAE = {"block_out_channels": [8, 8, 8, 8], "norm_num_groups": 4, "layers_per_block": 1, "sample_size": 64}


def _distilled_vae(channels: int) -> dict[str, Any]:
    """``taesdxl`` with this many channels."""
    widths = {f"{half}_block_out_channels": [channels] * 4 for half in ("encoder", "decoder")}
    return {**widths, "latent_channels": 4, "scaling_factor": 1.0}


_UNETS = {name: {**UNETS[model], **_LEAST_DECODER, "sample_size": 128} for name, model in _MODELS.items()}
ARCHITECTURES: Mapping[str, Architecture] = {
    "ssd1b": Architecture(_UNETS["ssd1b"], _SDXL_VAE, _distilled_vae(64), (768, 1280)),
    "vega": Architecture(_UNETS["vega"], _SDXL_VAE, _distilled_vae(64), (768, 1280)),
    "tiny": Architecture(_UNETS["vega"] | _TINY_UNET, _SDXL_VAE | _TINY_VAE, _distilled_vae(8), (16, 24)),
}


def shapes_of(architecture: Architecture) -> dict[str, Any]:
    """``unet``, ``vae`` and ``tiny_vae`` as `DiffusionEncoder` keeps them, without values (on the meta device)."""
    from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel

    kinds: dict[str, Any] = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "tiny_vae": AutoencoderTiny}
    with torch.device("meta"):
        networks = {
            name: kind.from_config(dict(getattr(architecture, name))).eval().requires_grad_(False)
            for name, kind in kinds.items()
        }
    keep_encoder(networks["unet"], architecture.deepest)
    for vae in (networks["vae"], networks["tiny_vae"]):
        vae.decoder = None
        vae.post_quant_conv = None
    return networks


def count_flops(architecture: Architecture, image_size: int) -> dict[str, float]:
    """Floating-point operations of one square image, two for a multiply-add, by network as `shapes_of` keeps it.

    Args:
        architecture: one of `ARCHITECTURES`.
        image_size: pixels a side.
    """
    tiny_vae, image = shapes_of(architecture)["tiny_vae"], torch.empty(1, 3, image_size, image_size, device="meta")
    with FlopCounterMode(display=False) as counter:
        tiny_vae.encoder(image)
    return {
        "unet": unet_operations(architecture.unet, architecture.deepest, image_size),
        "vae": vae_operations(architecture.vae, image_size),
        "tiny_vae": float(counter.get_total_flops()),
    }


def count_parameters(architecture: Architecture) -> dict[str, int]:
    """Parameters of each network as `shapes_of` keeps it."""
    networks = shapes_of(architecture)
    return {name: sum(each.numel() for each in network.parameters()) for name, network in networks.items()}


def write_random_checkpoint(folder: Path, architecture: Architecture, seed: int = 0) -> bool:
    """Write a model with the libraries' default initialisation in half precision; the tiny VAE goes to ``tiny_vae``.

    `DiffusionEncoder` reads the folder as it is. A folder that holds this very model is left alone.

    Args:
        folder: in the hub's layout afterwards; 0.9 GB for ``ssd1b``.
        architecture: one of `ARCHITECTURES`.
        seed: of the weights.

    Returns:
        Whether it was written; False where it was there.

    Raises:
        OSError: the folder can't be written.
    """
    content = json.dumps({"seed": seed, **asdict(architecture)}, indent=1)
    if _is_written(folder, content):
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        whole = Path(scratch) / folder.name
        whole.mkdir()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            _write_networks(whole, architecture)
            _write_text_encoders(whole, architecture.text)
        betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
        (whole / "scheduler").mkdir()
        (whole / "scheduler" / "scheduler_config.json").write_text(json.dumps(betas | {"num_train_timesteps": 1000}))
        (whole / _WRITTEN).write_text(content)
        if folder.exists():
            shutil.rmtree(folder)
        whole.rename(folder)
    return True


def _is_written(folder: Path, content: str) -> bool:
    try:
        return (folder / _WRITTEN).read_text() == content
    except (OSError, UnicodeDecodeError):
        return False


def _write_networks(folder: Path, architecture: Architecture) -> None:
    for name, network in shapes_of(architecture).items():
        network.to_empty(device="cpu")
        _initialise(network)
        config = {"_class_name": type(network).__name__, **getattr(architecture, name)}
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config, indent=1))
        _save(network, folder / name / f"diffusion_pytorch_model.{_VARIANT}.safetensors")


def _save(network: torch.nn.Module, path: Path) -> None:
    tensors = {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, path, metadata={"format": "pt"})


def _initialise(network: torch.nn.Module) -> None:
    """Each layer's own default values; `to_empty` left memory as it was."""
    for name, module in network.named_modules():
        reset: Any = getattr(module, "reset_parameters", None)
        if reset is not None:
            reset()
        elif [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
            raise TypeError(f"no default values for {name} ({type(module).__name__})")


def _write_text_encoders(folder: Path, hidden_sizes: tuple[int, int]) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    words = {"l": 0, "o": 1, "lo": 2, "<|startoftext|>": 3, "<|endoftext|>": 4}
    kinds: tuple[Any, Any] = (CLIPTextModel, CLIPTextModelWithProjection)
    for suffix, kind, hidden in zip(("", "_2"), kinds, hidden_sizes, strict=True):
        config = CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=hidden,
            intermediate_size=hidden,
            projection_dim=hidden,
            num_hidden_layers=2,
            num_attention_heads=hidden // min(hidden, 64),
            max_position_embeddings=_TOKENS,
            bos_token_id=3,
            eos_token_id=4,
            pad_token_id=4,
        )
        config.save_pretrained(folder / f"text_encoder{suffix}")
        _save(kind(config), folder / f"text_encoder{suffix}" / f"model.{_VARIANT}.safetensors")
        vocabulary, merges = (folder / f"tokenizer{suffix}" / name for name in ("vocab.json", "merges.txt"))
        vocabulary.parent.mkdir()
        vocabulary.write_text(json.dumps(words))
        merges.write_text("#version: 0.2\nl o\n")
        tokenizer: Any = CLIPTokenizer(
            str(vocabulary), str(merges), model_max_length=_TOKENS, pad_token="<|endoftext|>"
        )
        tokenizer.save_pretrained(vocabulary.parent)
