"""Files of a diffusion model, and the parts of it that features need, each read from them on its own."""

import hashlib
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from diffcut_bench.backbones.pretrained import (
    Checkpoint,
    Names,
    blaming,
    find_checkpoint,
    quiet_transformers,
    read_json,
)
from diffcut_bench.errors import UserError
from diffcut_bench.extras import require
from diffcut_bench.store import write_atomically

_CPU = torch.device("cpu")
_STEM = "diffusion_pytorch_model"
# Names that the VAE's attention had in checkpoints of 2022.
_RENAMED = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


@dataclass(frozen=True)
class DiffusionWeights:
    """Where a diffusion model's files are, and what its configs say.

    Attributes:
        model, vae: checkpoints; ``vae`` is None where the model's own is used.
        variant: preferred file variant.
        unet_config, vae_config, scheduler_config: as read from the JSON files.
    """

    model: Checkpoint
    vae: Checkpoint | None
    variant: str | None
    unet_config: dict[str, Any]
    vae_config: dict[str, Any]
    scheduler_config: dict[str, Any]

    @classmethod
    def find(
        cls, model: str, revision: str, variant: str | None, vae: str | None, text_encoders: int
    ) -> "DiffusionWeights":
        """Find every file that features need.

        Raises:
            UserError: files are missing or damaged, or the library that reads them is not installed.
        """
        require("diffusion", f"backbone.model={model}", "diffusers", "transformers")
        wanted: list[Names] = [("unet/config.json",), _weight_names("unet", _STEM, variant)]
        wanted += [("scheduler/scheduler_config.json",)]
        for suffix in ("", "_2")[:text_encoders]:
            tokenizer = f"tokenizer{suffix}"
            wanted += [(f"text_encoder{suffix}/config.json",), _weight_names(f"text_encoder{suffix}", "model", variant)]
            wanted += [(f"{tokenizer}/tokenizer_config.json",)]
            wanted += [(f"{tokenizer}/{name}", f"{tokenizer}/tokenizer.json") for name in ("vocab.json", "merges.txt")]
        if vae is None:
            wanted += [("vae/config.json",), _weight_names("vae", _STEM, variant)]
        checkpoint = find_checkpoint(model, wanted, revision=revision)
        # A tokenizer reads whatever lies beside its config.
        beside = {
            f"{path.parent.name}/{other.name}": other
            for name, path in checkpoint.files.items()
            if name.startswith("tokenizer") and name.endswith("/tokenizer_config.json")
            for other in sorted(path.parent.iterdir())
        }
        checkpoint = replace(checkpoint, files={**checkpoint.files, **beside})
        own_vae = None
        if vae is not None:
            name, _, pinned = (vae, "", "") if Path(vae).expanduser().is_dir() else vae.partition("@")
            files = [("config.json",), _weight_names("", _STEM, variant)]
            own_vae = find_checkpoint(name, files, revision=pinned or "main", option="backbone.vae")
        return cls(
            checkpoint,
            own_vae,
            variant,
            _network_config(checkpoint.files["unet/config.json"]),
            _network_config(own_vae.files["config.json"] if own_vae else checkpoint.files["vae/config.json"]),
            read_json(checkpoint.files["scheduler/scheduler_config.json"]),
        )

    @property
    def takes_pooled_prompt(self) -> bool:
        """Whether the UNet wants the pooled prompt and the time ids, as SDXL-type models do."""
        return self.unet_config.get("addition_embed_type") == "text_time"

    @property
    def vae_is_tiny(self) -> bool:
        """Whether the VAE is of the distilled kind, which gives latents and not a posterior."""
        return self.vae_config.get("_class_name") == "AutoencoderTiny"

    @property
    def vae_stride(self) -> int:
        """Pixels of a latent, in both directions."""
        channels = "encoder_block_out_channels" if self.vae_is_tiny else "block_out_channels"
        return int(2 ** (len(self.vae_config[channels]) - 1))

    def fingerprint(self) -> dict[str, str]:
        """Ids, revision and hashes of the weights, and the version of the library that computes with them."""
        found = {
            **self.model.identity(),
            "vae": self.vae.name if self.vae else "own",
            "diffusers": version("diffusers"),
            "transformers": version("transformers"),
        }
        if self.vae is None:
            return found
        files = {f"vae:{name}": digest for name, digest in self.vae.identity().items() if name.startswith("sha256:")}
        return found | {"vae_revision": self.vae.revision, "vae_sha256": self.vae.fingerprint(), **files}

    def has_attention(self, half: str, level: int) -> bool:
        """Whether a half of the UNet attends at a level (0: the latent's resolution, each further one half of it)."""
        types = self.unet_config[f"{half}_block_types"]
        return level < len(types) and "Attn" in types[level if half == "down" else -1 - level]

    def read_unet(self, deepest: int | None, rounded: torch.dtype, dtype: torch.dtype) -> Any:
        """The UNet, or its encoder down to a level; only those weights are read.

        Args:
            deepest: last level kept; None keeps the whole UNet.
            rounded: precision that the weights are rounded to.
            dtype: that they are held in.
        """
        from diffusers import UNet2DConditionModel

        with _built_from(self.model.files["unet/config.json"]), torch.device("meta"):
            unet = UNet2DConditionModel.from_config(self.unet_config)
        if deepest is not None:
            keep_encoder(unet, deepest)
        return _fill(unet, self.model.weights("unet"), rounded, dtype)

    def read_vae(self, rounded: torch.dtype, dtype: torch.dtype) -> Any:
        """The VAE without its decoder; arguments as in `read_unet`."""
        from diffusers import AutoencoderKL, AutoencoderTiny

        kind: Any = AutoencoderTiny if self.vae_is_tiny else AutoencoderKL
        checkpoint, folder = (self.vae, "") if self.vae else (self.model, "vae")
        with _built_from(checkpoint.files[f"{folder}/config.json".lstrip("/")]), torch.device("meta"):
            vae = kind.from_config(self.vae_config)
        vae.decoder = None
        vae.post_quant_conv = None
        return _fill(vae, checkpoint.weights(folder), rounded, dtype)

    def scheduler(self) -> Any:
        """The forward process of the checkpoint's betas, whatever sampler its config names.

        Raises:
            UserError: the config's betas are none.
        """
        from diffusers import DDPMScheduler

        betas = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")
        with _built_from(self.model.files["scheduler/scheduler_config.json"]):
            return DDPMScheduler(
                **{name: self.scheduler_config[name] for name in betas if name in self.scheduler_config}
            )

    def empty_prompt(
        self, rounded: torch.dtype, dtype: torch.dtype = torch.float32, device: torch.device = _CPU
    ) -> tuple[Tensor, Tensor | None]:
        """Embedding of the empty prompt [1, tokens, channels] and, for SDXL-type models, the pooled one [1, channels].

        Computed once for a checkpoint by diffusers' own pipeline, and kept in the hub's assets cache.

        Args:
            rounded: precision that the weights are rounded to.
            dtype: of the arithmetic and of what is given, on the CPU.
            device: that computes; float32 is always computed on the CPU, so that every machine has the same.
        """
        from huggingface_hub import cached_assets_path

        device = _CPU if dtype == torch.float32 else device
        text = {name: path for name, path in self.model.files.items() if name.startswith(("text", "token"))}
        state = f"{Checkpoint('', '', text).fingerprint()} {rounded} {version('transformers')} {version('diffusers')}"
        if dtype != torch.float32:
            state += f" {dtype} {device.type}"
        name = f"{hashlib.sha256(state.encode()).hexdigest()}.safetensors"
        try:
            path = Path(cached_assets_path("diffcut_bench", namespace="prompts")) / name
        except (OSError, ValueError):  # it can't be kept, which only costs time
            kept = self._encode_empty_prompt(rounded, dtype, device)
            return kept["prompt"], kept.get("pooled")
        try:
            kept = {name: _aligned(tensor) for name, tensor in load_file(path).items()}
        except (OSError, SafetensorError):  # not there yet, or damaged
            kept = self._encode_empty_prompt(rounded, dtype, device)
            with suppress(UserError):
                write_atomically(path, save(kept))
        return kept["prompt"], kept.get("pooled")

    def _encode_empty_prompt(self, rounded: torch.dtype, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
        with quiet_transformers():
            from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
            from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

        def read(kind: Any, folder: str) -> Any:
            weights = self.model.weights(folder)
            variant = self.variant if self.variant and weights.name == f"model.{self.variant}.safetensors" else None
            hint = "download its files again"
            with blaming("text encoder can't be read", weights.parent, hint), quiet_transformers():
                encoder = kind.from_pretrained(weights.parent, variant=variant, dtype=rounded).to(dtype).eval()
            return encoder._apply(_aligned).to(device)

        def tokens(folder: str) -> Any:
            return CLIPTokenizer.from_pretrained(self.model.files[f"{folder}/tokenizer_config.json"].parent)

        parts: dict[str, Any] = {"vae": None, "unet": None, "scheduler": None, "feature_extractor": None}
        parts |= {"text_encoder": read(CLIPTextModel, "text_encoder"), "tokenizer": tokens("tokenizer")}
        with torch.no_grad():
            if not self.takes_pooled_prompt:
                pipeline: Any = StableDiffusionPipeline(**parts, safety_checker=None, requires_safety_checker=False)
                prompt, _ = pipeline.encode_prompt("", device, 1, False)
                return {"prompt": prompt.cpu().contiguous()}
            second = read(CLIPTextModelWithProjection, "text_encoder_2")
            pipeline = StableDiffusionXLPipeline(**parts, text_encoder_2=second, tokenizer_2=tokens("tokenizer_2"))
            prompt, _, pooled, _ = pipeline.encode_prompt("", device=device, do_classifier_free_guidance=False)
            return {"prompt": prompt.cpu().contiguous(), "pooled": pooled.cpu().contiguous()}


def _weight_names(folder: str, stem: str, variant: str | None) -> Names:
    """Names that weights may have in a folder (empty: the top): of the variant first, safetensors only."""
    names = [f"{stem}.{variant}.safetensors"] if variant else []
    return [f"{folder}/{name}".lstrip("/") for name in (*names, f"{stem}.safetensors")]


def _network_config(path: Path) -> dict[str, Any]:
    """A config with the lists of levels that a network's shape is known from."""
    values = read_json(path)
    is_tiny = values.get("_class_name") == "AutoencoderTiny"
    levels = (
        ("encoder_block_out_channels",) if is_tiny else ("block_out_channels", "down_block_types", "up_block_types")
    )
    for name in levels:
        if not isinstance(values.get(name), list):
            raise UserError(f"{path.name} has no list {name}", str(path), "fetch the file again")
    return values


def _built_from(config: Path) -> AbstractContextManager[None]:
    """`blaming` of a config that the library refuses."""
    return blaming(f"{config.name} says what can't be built", config, "fetch the file again")


def keep_encoder(unet: Any, deepest: int) -> None:
    """Take away everything behind level ``deepest`` of a `UNet2DConditionModel`'s encoder; its forward still runs."""
    unet.down_blocks = unet.down_blocks[: deepest + 1]
    unet.down_blocks[-1].downsamplers = None
    unet.mid_block = None
    unet.up_blocks = torch.nn.ModuleList()
    unet.conv_norm_out = None
    unet.conv_out = torch.nn.Identity()


def last_self_attention(unet: Any, half: str, level: int) -> torch.nn.Module:
    """The last self-attention layer at a level of the UNet's ``down`` or ``up`` half."""
    blocks = unet.down_blocks if half == "down" else unet.up_blocks
    block = blocks[level if half == "down" else -1 - level]
    layer: torch.nn.Module = block.attentions[-1].transformer_blocks[-1].attn1
    return layer


def _fill(network: Any, file: Path, rounded: torch.dtype, dtype: torch.dtype) -> Any:
    """Read the tensors that the network has, and no others.

    Raises:
        UserError: the file is damaged, or its tensors are not those of the config.
    """
    with blaming("weights can't be read", file, "download the file again"):
        with safe_open(file, framework="pt") as tensors:
            names = {_current_name(name): name for name in tensors.keys()}  # noqa: SIM118
            state = {
                name: _aligned(tensors.get_tensor(names[name]).to(rounded), dtype)
                for name in network.state_dict()
                if name in names
            }
        network.load_state_dict(state, assign=True)
    return network


def _aligned(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A copy in memory of its own, rows first: unaligned, as in a file, kernels sum in another order."""
    return torch.empty(tensor.shape, dtype=dtype or tensor.dtype).copy_(tensor)


def _current_name(name: str) -> str:
    for old, new in _RENAMED.items():
        name = name.replace(old, new) if ".attentions." in name else name
    return name
