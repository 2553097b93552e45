"""Speed of the diffusion encoder in each precision, memory layout and mode, and what each does to the features.

Weights are random (`random_weights`), shapes are real. Nothing here prints or writes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, interpolate

from benchmarks.timing import allocator, timed
from diffcut_bench.backbones import DiffusionEncoder
from diffcut_bench.environment import matrix_rate

MODES = ("eager", "compiled")
_WARM_UP = 2


@dataclass(frozen=True)
class Precision:
    """Arithmetic of the encoder.

    Attributes:
        unet_dtype, vae_dtype: of the networks.
        autocast: the UNet's normalisations and softmax in float32.
        tf32: float32 convolutions may run in TF32, PyTorch's default on accelerators that have it.
        vae: ``own``, or ``tiny``, the distilled one.
    """

    unet_dtype: str
    vae_dtype: str
    autocast: bool = True
    tf32: bool = True
    vae: str = "own"


# `float32` is what the others are compared with. `vae_float16` and `float16` need a VAE mended for half precision
# (sdxl-vae-fp16-fix): SDXL's own overflows in float16, though not in bfloat16.
PRECISIONS: Mapping[str, Precision] = {
    "float32": Precision("float32", "float32", tf32=False),
    "released": Precision("float16", "float32"),
    "vae_bfloat16": Precision("float16", "bfloat16"),
    "vae_float16": Precision("float16", "float16"),
    "bfloat16": Precision("bfloat16", "bfloat16"),
    "float16_pure": Precision("float16", "float16", autocast=False),
    "bfloat16_pure": Precision("bfloat16", "bfloat16", autocast=False),
    "vae_tiny": Precision("float16", "float16", vae="tiny"),
}


@dataclass(frozen=True)
class Setting:
    """One way to run the encoder.

    Attributes:
        precision: name in `PRECISIONS`.
        batch: images at a time.
        channels_last: memory layout of the convolutions.
        compile: by `torch.compile`, for this batch's shape.
    """

    precision: str
    batch: int
    channels_last: bool = False
    compile: bool = False

    @property
    def released(self) -> bool:
        """Whether the released evaluation runs so (at whatever batch size)."""
        return self.precision == "released" and not self.channels_last and not self.compile

    @property
    def rates(self) -> dict[str, str]:
        """Name of the matrix rate that bounds each network; see `measure_rates`."""
        precision = PRECISIONS[self.precision]
        vae = "tf32" if precision.vae_dtype == "float32" and precision.tf32 else precision.vae_dtype
        return {"unet": precision.unet_dtype, "vae" if precision.vae == "own" else "tiny_vae": vae}


@dataclass(frozen=True)
class Measured:
    """How a setting did.

    Attributes:
        images_per_s: median over the repeats.
        vae_s, unet_s: seconds an image until the noised latents are there, and of the rest.
        memory_bytes: most that the device's allocator held; None where the device does not tell.
        floor_images_per_s: operations over the matrix rate: no faster without fewer operations.
        floor_share: ``images_per_s / floor_images_per_s``.
        finite: share of the features that are finite numbers.
        cosine_mean, cosine_min: over the patches, of features to those in float32; None where some are not finite.
        centred_mean: mean cosine of what is left of the features after the image's mean patch is taken away: the cut
            sees differences between patches. None as above.
    """

    images_per_s: float
    vae_s: float
    unet_s: float
    memory_bytes: int | None
    floor_images_per_s: float
    floor_share: float
    finite: float
    cosine_mean: float | None
    cosine_min: float | None
    centred_mean: float | None

    def is_sound(self, least_cosine: float) -> bool:
        """Whether every patch's cosine to float32 is at least this."""
        return self.cosine_min is not None and self.cosine_min >= least_cosine


@dataclass(frozen=True)
class Row:
    """A setting with its measurement, or with the reason why there is none."""

    setting: Setting
    measured: Measured | None
    error: str | None = None


def all_settings(
    batches: Sequence[int], precisions: Sequence[str], layouts: Sequence[bool], modes: Sequence[str]
) -> list[Setting]:
    """Every combination; those without a compiler first, because they are done soon."""
    return [
        Setting(precision, batch, channels_last, mode == "compiled")
        for mode in sorted(modes, key=MODES.index)
        for precision in precisions
        for channels_last in layouts
        for batch in batches
    ]


def open_encoder(
    folder: Path,
    precision: Precision,
    device: torch.device,
    *,
    channels_last: bool = False,
    compile: bool = False,
) -> DiffusionEncoder:
    """The encoder of a folder that `write_random_checkpoint` wrote."""
    return DiffusionEncoder(
        folder.name,
        str(folder),
        vae=str(folder / "tiny_vae") if precision.vae == "tiny" else None,
        unet_dtype=precision.unet_dtype,
        vae_dtype=precision.vae_dtype,
        autocast=precision.autocast,
        channels_last=channels_last,
        compile=compile,
    ).to(device)


def colour_fields(count: int, size: int, device: torch.device, seed: int = 0) -> Tensor:
    """Smooth colours with some noise [count, 3, size, size] in [0, 1]: images whose patches differ."""
    source = torch.Generator().manual_seed(seed)
    fields = torch.rand(count, 3, 8, 8, generator=source)
    smooth = interpolate(fields, (size, size), mode="bicubic", align_corners=False)
    return (smooth + 0.05 * torch.randn(smooth.shape, generator=source)).clamp(0, 1).to(device)


def float32_features(folder: Path, vaes: Iterable[str], images: Tensor) -> dict[str, Tensor]:
    """Features of the same weights in float32 without TF32, image by image.

    Args:
        folder: of the weights.
        vaes: ``own`` and ``tiny``, or one of them.
        images: [n, 3, size, size].

    Returns:
        For each VAE [n, channels, rows, cols].
    """
    features = {}
    for vae in sorted(set(vaes)):
        encoder = open_encoder(folder, replace(PRECISIONS["float32"], vae=vae), images.device)
        with _convolutions_in_tf32(False):
            features[vae] = torch.cat([encoder(image[None]) for image in images])
        _free(encoder, images.device)
    return features


def measure_rates(settings: Sequence[Setting], device: torch.device) -> dict[str, float]:
    """Operations a second of matrix products in every arithmetic that the settings use: a dtype's name, or ``tf32``,
    which is float32 on the CPU."""
    rates = {}
    for name in sorted({name for setting in settings for name in setting.rates.values()}):
        tf32 = name == "tf32" and device.type != "cpu"
        dtype: torch.dtype = torch.float32 if name == "tf32" else getattr(torch, name)
        rates[name] = matrix_rate(dtype, device, tf32=tf32)
    return rates


def measure(
    settings: Sequence[Setting],
    open_setting: Callable[[Setting], DiffusionEncoder],
    images: Tensor,
    exact: Mapping[str, Tensor],
    flops: Mapping[str, float],
    rates: Mapping[str, float],
    repeats: int = 5,
) -> Iterator[Row]:
    """Time the settings one after the other; one that fails gets a row with the reason, and the others go on.

    Args:
        settings: in this order; neighbours that differ in their batch alone share an encoder.
        open_setting: builds the encoder.
        images: [n, 3, size, size] on the device, as many as the largest batch or more.
        exact: features in float32 of the same images, by VAE; see `float32_features`.
        flops: of one image, by network; see `count_flops`.
        rates: operations a second; see `measure_rates`.
        repeats: timed calls after warming up.

    Yields:
        A row for each setting, when it is done.
    """
    device = images.device
    for _, group in groupby(settings, key=lambda setting: replace(setting, batch=0)):
        encoder: DiffusionEncoder | None = None
        for setting in group:
            precision = PRECISIONS[setting.precision]
            floor_s = sum(flops[network] / rates[rate] for network, rate in setting.rates.items())
            try:
                if setting.compile:
                    torch.compiler.reset()  # else the second batch size is compiled for any shape
                encoder = encoder or open_setting(setting)
                with _convolutions_in_tf32(precision.tf32):
                    batch = images[: setting.batch]
                    measured = _measure(encoder, batch, exact[precision.vae][: setting.batch], floor_s, repeats)
                row = Row(setting, measured)
            except Exception as error:  # out of memory, no compiler, a kernel that this device lacks …
                row = Row(setting, None, _reason(error))
                _free(encoder, device)
                encoder = None
            yield row
        _free(encoder, device)


def fastest_sound(rows: Sequence[Row], least_cosine: float) -> Row | None:
    """The row of most images a second among those whose every patch has this cosine to float32; own VAE only, because
    another VAE means other features."""
    sound = [
        (row.measured.images_per_s, index)
        for index, row in enumerate(rows)
        if row.measured is not None
        and row.measured.is_sound(least_cosine)
        and PRECISIONS[row.setting.precision].vae == "own"
    ]
    return rows[max(sound)[1]] if sound else None


def _measure(encoder: DiffusionEncoder, images: Tensor, exact: Tensor, floor_s: float, repeats: int) -> Measured:
    device = images.device
    for _ in range(_WARM_UP):
        features = encoder(images)
    memory = allocator(device)
    if memory is not None:
        memory.reset_peak_memory_stats(device)
    whole, vae = timed([lambda: encoder(images), lambda: encoder.latents(images)], repeats, device)
    image_s, vae_s = whole.median / len(images), vae.median / len(images)
    finite = features.isfinite().float().mean().item()
    cosine_mean = cosine_min = centred_mean = None
    if finite == 1:
        cosine = cosine_similarity(features.double(), exact.double(), dim=1)
        cosine_mean, cosine_min = cosine.mean().item(), cosine.min().item()
        centred_mean = cosine_similarity(_centred(features), _centred(exact), dim=1).mean().item()
    return Measured(
        images_per_s=1 / image_s,
        vae_s=vae_s,
        unet_s=max(image_s - vae_s, 0.0),
        memory_bytes=None if memory is None else int(memory.max_memory_allocated(device)),
        floor_images_per_s=1 / floor_s,
        floor_share=floor_s / image_s,
        finite=finite,
        cosine_mean=cosine_mean,
        cosine_min=cosine_min,
        centred_mean=centred_mean,
    )


def _centred(features: Tensor) -> Tensor:
    features = features.double()
    return features - features.mean(dim=(2, 3), keepdim=True)


@contextmanager
def _convolutions_in_tf32(allowed: bool) -> Iterator[None]:
    """Whether float32 convolutions may run in TF32; without effect where the device has none."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _free(encoder: DiffusionEncoder | None, device: torch.device) -> None:
    """Give an encoder's memory back at once; it and its hooks hold each other, so that letting go of it would not."""
    if encoder is not None:
        encoder.to("meta")
    module = torch.get_device_module(device)
    if hasattr(module, "empty_cache"):
        module.empty_cache()


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200].removesuffix(": ")
