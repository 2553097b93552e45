"""Latent diffusion models: what the UNet's self-attention sees of a slightly noised image.

One class for SDXL-type models (SSD-1B, Vega, SDXL) and Stable Diffusion 1.x, on diffusers' own networks.
"""

from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from diffcut_bench.backbones.architectures import published_config, unet_operations, unet_parameters, vae_operations
from diffcut_bench.backbones.base import Outline, PretrainedBackbone, grid_of
from diffcut_bench.backbones.diffusion_weights import DiffusionWeights, last_self_attention
from diffcut_bench.backbones.pretrained import blaming
from diffcut_bench.errors import UserError

DTYPES = ("auto", "float32", "float16", "bfloat16")
# Half of the UNet, and its levels below the latent's resolution: patches of 32 and 16 pixels, 32² and 64² at 1024 px.
BLOCKS = {"E32": ("down", 2), "E64": ("down", 1), "D32": ("up", 2), "D64": ("up", 1)}
_PIXELS_A_CALL = 1024 * 1024  # of the VAE, whose activations are the peak of memory


class DiffusionEncoder(PretrainedBackbone):
    """Output of the last self-attention at a resolution of a diffusion UNet (Couairon et al., NeurIPS 2024).

    The image becomes the mean of the VAE's posterior, scaled; noise of ``timestep`` is added, the same for every image;
    the UNet sees it with the embedding of the empty prompt. Features are the output of a self-attention layer after
    its output projection and before the residual. Only the VAE's encoder and the part of the UNet up to the asked block
    are read; the text encoders are read once for a model, and their embedding of the empty prompt is kept.

    Args:
        name: option name.
        model: hub id or folder with ``unet vae text_encoder tokenizer scheduler`` (and ``text_encoder_2 tokenizer_2``).
        revision: branch, tag or commit of the hub.
        variant: preferred file variant, such as ``fp16``; the plain files are taken where it is missing.
        text_encoders: 2 for SDXL-type models, 1 for Stable Diffusion 1.x.
        vae: hub id (``ID@COMMIT`` pins one) or folder of another VAE for the same latents (also a tiny one); None: the
            model's own.
        timestep: of the added noise, 0 to the scheduler's last.
        block: ``E32 | E64 | D32 | D64`` (encoder or decoder, patches a side of a 1024-pixel image), or several, which
            are resized bilinearly to the coarsest of them and concatenated. A decoder block needs the whole UNet.
        image_size: pixels of the network's input; None: the protocol's.
        weights_dtype: precision that all weights are rounded to first; the released code's is float16.
        vae_dtype: of the VAE's arithmetic; ``auto`` is float32 (the released code's).
        unet_dtype: of the UNet's arithmetic; ``auto`` is float32 on the CPU and float16 on an accelerator.
        prompt_dtype: of the text encoders' arithmetic; ``auto`` likewise, and float16 is the released code's.
        autocast: normalisations and softmax in float32 where the UNet is in half precision, as released.
        noise: add the noise; False: the clean latent is given at ``timestep``.
        seed: of the noise.
        generator: device that draws the noise, which is another on each type of device: ``auto`` is the one that the
            network runs on (CUDA in the released code), or a type of device, such as ``cpu``.
        channels_last: memory format of the convolutions.
        compile: `torch.compile` both networks at the first image.
        whole_unet: keep all of the UNet, for `self_attention` of the decoder.

    Raises:
        UserError: files are missing, or an argument is out of range.
    """

    immaterial = ("variant", "whole_unet")

    def __init__(
        self,
        name: str,
        model: str,
        *,
        revision: str = "main",
        variant: str | None = "fp16",
        text_encoders: int = 2,
        vae: str | None = None,
        timestep: int = 50,
        block: str | Sequence[str] = "E32",
        image_size: int | None = None,
        weights_dtype: str = "float16",
        vae_dtype: str = "auto",
        unet_dtype: str = "auto",
        prompt_dtype: str = "auto",
        autocast: bool = True,
        noise: bool = True,
        seed: int = 42,
        generator: str = "auto",
        channels_last: bool = False,
        compile: bool = False,
        whole_unet: bool = False,
    ) -> None:
        super().__init__()
        self.name, self.image_size = name, image_size
        self.blocks = tuple(block) if isinstance(block, (list, tuple)) else (str(block),)
        self._options: dict[str, Any] = {
            "timestep": timestep,
            "weights_dtype": weights_dtype,
            "autocast": autocast,
            "noise": noise,
            "seed": seed,
            "channels_last": channels_last,
            "compile": compile,
        }
        self._generator = generator
        self._dtypes = {"vae": vae_dtype, "unet": unet_dtype, "prompt": prompt_dtype}
        numbers = {"timestep": timestep, "seed": seed, "image_size": image_size, "text_encoders": text_encoders}
        _check(self.blocks, {"weights": weights_dtype, **self._dtypes}, numbers)
        self._weights = DiffusionWeights.find(model, revision, variant, vae, text_encoders)
        if self._weights.takes_pooled_prompt != (text_encoders == 2):
            kind = "SDXL-type" if text_encoders == 1 else "Stable Diffusion 1.x"
            raise UserError(f"text_encoders={text_encoders} does not fit a {kind} UNet", model, "choose the other")
        self._timestep = torch.tensor(timestep)
        hint = "backbone.generator=auto draws on the device that computes"
        with blaming(f"no noise generator on {generator!r} here", f"backbone={name}", hint):
            torch.Generator("cpu" if generator == "auto" else generator)
        self._scheduler = self._weights.scheduler()
        steps = len(self._scheduler.betas)
        if not 0 <= timestep < steps:
            raise UserError(f"timestep {timestep} out of range", f"backbone={name}", f"0 <= timestep < {steps}")
        for name_of_block in self.blocks:
            if not self._weights.has_attention(*BLOCKS[name_of_block]):
                raise UserError(f"this UNet has no self-attention at {name_of_block}", model, "choose another block")
        levels = [BLOCKS[block][1] for block in self.blocks]
        self.stride = self._weights.vae_stride * 2 ** max(levels)
        self.channels = sum(self._weights.unet_config["block_out_channels"][level] for level in levels)
        self._whole = whole_unet or any(BLOCKS[block][0] == "up" for block in self.blocks)
        self._noises: dict[tuple[int, ...], Tensor] = {}
        self._captured: dict[str, Tensor] = {}
        self._maps: list[list[Tensor]] = []  # the list that is being filled, while maps are asked for

    def fingerprint(self) -> dict[str, str]:
        dtypes = {part: str(self._dtype(part)).removeprefix("torch.") for part in self._dtypes}
        return {
            "model": self.name,
            **self._weights.fingerprint(),
            "block": "+".join(self.blocks),
            **{name: str(value) for name, value in self._options.items()},
            "autocast": str(self._uses_autocast()),
            **{f"{part}_dtype": dtype for part, dtype in dtypes.items()},
            "generator": self._drawn_on(),
            "noise_generator": self._drawn_on(),
        }

    @classmethod
    def outline(cls, settings: Mapping[str, Any], image_size: int, device_type: str, aspect: int = 1) -> Outline | None:
        model, size = str(settings.get("model")), settings.get("image_size") or image_size
        config = published_config(model, "unet")
        if config is None:
            return None
        blocks = settings.get("block", "E32")
        known = [BLOCKS[block] for block in (blocks if isinstance(blocks, list) else [blocks]) if block in BLOCKS]
        if not known:
            return None
        levels = [level for _, level in known]
        whole = settings.get("whole_unet", False) or any(half == "up" for half, _ in known)
        vae = published_config(model, "vae") if settings.get("vae") is None else None
        counted = vae is not None and vae.get("_class_name") != "AutoencoderTiny"
        operations = _operations(model, None if whole else max(levels), size, aspect) if counted else None
        grid = grid_of(size, 8 * 2 ** max(levels), aspect)
        channels = sum(config["block_out_channels"][level] for level in levels)
        dtype = _resolved_dtype("unet", settings.get("unet_dtype", "auto"), device_type)
        return Outline(*grid, channels, dtype, operations, _parameters(model))

    @property
    def feature_dtype(self) -> torch.dtype:
        return self._dtype("unet")

    @torch.no_grad()
    def latents(self, images: Tensor) -> Tensor:
        """Noised latents of images in [0, 1]: [b, c, height / vae stride, width / vae stride], float32."""
        self.read()
        dtype = self._dtype("vae")
        per_call = max(_PIXELS_A_CALL // (images.shape[-2] * images.shape[-1]), 1)
        # Chunked, because at full size one image fills the device and the activations of several fill its memory.
        means = [self._posterior_mean((2 * part - 1).to(dtype)).float() for part in images.split(per_call)]
        latents = torch.cat(means) * self.vae.config.scaling_factor
        if not self._options["noise"]:
            return latents
        return self._scheduler.add_noise(latents, self._noise(latents), self._timestep.expand(len(latents)))

    @torch.no_grad()
    def self_attention(self, images: Tensor) -> list[Tensor]:
        """Maps of every self-attention layer that is kept, in the order of computation, heads averaged.

        Args:
            images: [batch, 3, height, width] in [0, 1].

        Returns:
            For each layer [batch, queries, keys]; keys are patches in raster order and each row sums to one.
        """
        self.read()
        self._maps.append([])
        try:
            self._run_unet(images)
        finally:
            maps = self._maps.pop()
        return maps

    def _extract(self, images: Tensor) -> Tensor:
        self._run_unet(images)
        rows, cols = images.shape[-2] // self.stride, images.shape[-1] // self.stride
        maps = []
        for block in self.blocks:
            tokens = self._captured.pop(block)
            stride = self._weights.vae_stride * 2 ** BLOCKS[block][1]
            map_ = tokens.transpose(1, 2).unflatten(2, (images.shape[-2] // stride, images.shape[-1] // stride))
            if map_.shape[-2:] != (rows, cols):
                map_ = interpolate(map_, (rows, cols), mode="bilinear", align_corners=False)
            maps.append(map_)
        return torch.cat(maps, dim=1).contiguous()

    def _run_unet(self, images: Tensor) -> None:
        """One denoising step; the hooks keep what is asked for."""
        latents = self.latents(images)
        dtype = self._dtype("unet")
        conditions: dict[str, Any] = {}
        if self._pooled is not None:
            height, width = images.shape[-2:]
            ids = torch.tensor([[height, width, 0, 0, height, width]], dtype=dtype)
            ids = ids.to(images.device, non_blocking=True)
            pooled = self._pooled.to(images.device, dtype).expand(len(images), -1)
            conditions["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": ids.expand(len(images), -1)}
        prompt = self._prompt.to(images.device, dtype).expand(len(images), -1, -1)
        with torch.autocast(images.device.type, dtype, enabled=self._uses_autocast()):
            self.unet(latents.to(dtype), self._timestep.to(images.device), prompt, return_dict=False, **conditions)

    def _posterior_mean(self, images: Tensor) -> Tensor:
        if self._options["channels_last"]:
            images = images.contiguous(memory_format=torch.channels_last)
        moments = self.vae.encoder(images)
        if self._weights.vae_is_tiny:
            return moments
        if self.vae.quant_conv is not None:
            moments = self.vae.quant_conv(moments)
        return moments.chunk(2, dim=1)[0]

    def _noise(self, latents: Tensor) -> Tensor:
        """Standard normal [1, c, h, w] from the seed alone: every image gets the same."""
        shape = (1, *latents.shape[1:])
        if shape not in self._noises:
            source = torch.Generator(self._drawn_on()).manual_seed(self._options["seed"])
            self._noises[shape] = torch.randn(shape, generator=source, device=source.device)
        return self._noises[shape].to(latents.device)

    def _drawn_on(self) -> str:
        """Type of the device that draws the noise."""
        return self.device.type if self._generator == "auto" else self._generator

    def _dtype(self, part: str) -> torch.dtype:
        return _resolved_dtype(part, self._dtypes[part], self.device.type)

    def _uses_autocast(self) -> bool:
        return bool(self._options["autocast"]) and self._dtype("unet") != torch.float32

    def _read(self) -> None:
        rounded = getattr(torch, self._options["weights_dtype"])
        weights = self._weights
        deepest = None if self._whole else max(BLOCKS[block][1] for block in self.blocks)
        self.unet: Any = weights.read_unet(deepest, rounded, self._dtype("unet")).to(self.device)
        self.vae: Any = weights.read_vae(rounded, self._dtype("vae")).to(self.device)
        prompt, pooled = weights.empty_prompt(rounded, self._dtype("prompt"), self.device)
        # Here and not with every batch: an accelerator is waited for at each small upload.
        self._prompt, self._pooled = prompt.to(self.device), None if pooled is None else pooled.to(self.device)
        self._timestep = self._timestep.to(self.device)
        if self._options["channels_last"]:
            self.unet.to(memory_format=torch.channels_last)
            self.vae.to(memory_format=torch.channels_last)
        # Hooks hold where tensors go and not the encoder, so that its memory is freed with its last reference.
        for block in self.blocks:
            keep = partial(_keep_output, self._captured, block)
            last_self_attention(self.unet, *BLOCKS[block]).register_forward_hook(keep)
        for name, module in self.unet.named_modules():
            if name.endswith(".attn1"):
                module.register_forward_pre_hook(partial(_keep_map, self._maps), with_kwargs=True)
        if self._options["compile"]:
            self.unet.compile()
            self.vae.encoder.compile()


def _keep_output(captured: dict[str, Tensor], block: str, module: Any, inputs: Any, output: Tensor) -> None:
    captured[block] = output


def _keep_map(maps: list[list[Tensor]], module: Any, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
    """Hook before a self-attention layer: its map, where maps are asked for, one head at a time."""
    if not maps:
        return
    tokens = inputs[0] if inputs else options["hidden_states"]
    queries, keys = (projection(tokens).unflatten(-1, (module.heads, -1)) for projection in (module.to_q, module.to_k))
    mean = sum(
        (queries[:, :, head].float() @ keys[:, :, head].float().transpose(1, 2) * module.scale).softmax(dim=-1)
        for head in range(module.heads)
    )
    maps[-1].append(mean / module.heads)


# Counting takes seconds, and a plan asks for each of its cells.
@cache
def _operations(model: str, deepest: int | None, image_size: int, aspect: int) -> float:
    """Of one image in the parts of a published model that are read."""
    unet, vae = (published_config(model, part) or {} for part in ("unet", "vae"))
    return unet_operations(unet, deepest, image_size, aspect) + vae_operations(vae, image_size, aspect)


@cache
def _parameters(model: str) -> int:
    return unet_parameters(published_config(model, "unet") or {})


def _resolved_dtype(part: str, name: str, device_type: str) -> torch.dtype:
    """Precision of a part's arithmetic on a type of device, ``auto`` resolved."""
    if name == "auto":
        name = "float16" if part != "vae" and device_type != "cpu" else "float32"
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def _check(blocks: tuple[str, ...], dtypes: dict[str, str], numbers: Mapping[str, object]) -> None:
    """Every argument out of range, in one error."""
    problems = [f"block {block!r}: {' | '.join(BLOCKS)}" for block in blocks if block not in BLOCKS]
    if len(set(blocks)) != len(blocks) or not blocks:
        problems.append("block: name one or several, each once")
    problems += [f"{part}_dtype {name!r}: {' | '.join(DTYPES)}" for part, name in dtypes.items() if name not in DTYPES]
    if dtypes["weights"] == "auto":
        problems.append("weights_dtype can't be auto")
    least = {"timestep": 0, "seed": 0, "image_size": 1, "text_encoders": 1}
    for name, value in numbers.items():
        if name == "image_size" and value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < least[name]:
            problems.append(f"{name} {value!r}: a whole number of at least {least[name]}")
    if numbers["text_encoders"] not in (1, 2):
        problems.append("text_encoders: 1 or 2")
    if problems:
        raise UserError("; ".join(problems), "the backbone's options", "see conf/backbone/ssd1b.yaml")
