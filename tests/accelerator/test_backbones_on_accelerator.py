"""Every family of backbones on the pretended accelerator, on tiny checkpoints: the features are those of the CPU."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusion_checkpoints as tiny
import pytest
import torch
from device_runs import compare, computed_there
from test_vision_transformer import FAMILIES, write_checkpoint
from torch import Tensor

from benchmarks.pretended import DEVICE
from diffcut_bench.backbones import Backbone, Colour, DiffusionAttention, DiffusionEncoder, EfficientNetLite0
from diffcut_bench.backbones.vision_transformer import VisionTransformer
from diffcut_bench.scoring.features import FeatureSource
from diffcut_bench.scoring.framing import Example, Framing

IMAGES = torch.rand(2, 3, 128, 96, generator=torch.Generator().manual_seed(0))
SMALL = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1))
# Kernels that the CPU chooses for its own tensors may sum in another order.
TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=["sdxl", "sd1"])
def diffusion(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """Folder and options of a tiny diffusion model."""
    folder = tmp_path_factory.mktemp(request.param)
    pipeline = {"sdxl": tiny.sdxl_pipeline, "sd1": tiny.sd1_pipeline}[request.param](folder)
    options = {"text_encoders": 2 if request.param == "sdxl" else 1, "weights_dtype": "float32"}
    return str(tiny.write(pipeline, folder / "model")), options


@pytest.fixture(autouse=True)
def assets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "assets"))
    monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", str(tmp_path / "assets"))


def of(build: Callable[[], Backbone]) -> Callable[[Tensor], Tensor]:
    """Features of a backbone that is built where the images are."""

    @torch.inference_mode()
    def features(images: Tensor) -> Tensor:
        return build().to(images.device)(images)

    return features


def cosines(found: Tensor, expected: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(found.cpu().float(), expected.float(), dim=1)


@pytest.mark.parametrize("backbone", [Colour, EfficientNetLite0])
def test_embedded_backbones(accelerator, backbone):
    counts = compare(accelerator, of(backbone), IMAGES, tolerance=TOLERANCE)
    assert computed_there(counts, IMAGES)


@pytest.mark.parametrize("family", FAMILIES)
def test_vision_transformers(accelerator, tmp_path, family):
    write_checkpoint(tmp_path, family)
    asks = [{}, {"facet": "keys", "layer": 1}]
    if not family.startswith("siglip"):
        asks.append({"attention": True})
    for asked in asks:
        build = of(lambda asked=asked: VisionTransformer("tiny", str(tmp_path), dtype="float32", **asked))
        counts = compare(accelerator, build, SMALL, tolerance=TOLERANCE)
        assert computed_there(counts, SMALL), asked


@pytest.mark.parametrize("asked", [{"block": ["E64", "E32"]}, {"block": "D32", "channels_last": True}])
def test_diffusion_encoders(accelerator, diffusion, asked):
    folder, options = diffusion
    single = {"unet_dtype": "float32", "prompt_dtype": "float32"}
    build = of(lambda: DiffusionEncoder("tiny", folder, **options, **single, **asked))
    counts = compare(accelerator, build, IMAGES, tolerance=TOLERANCE)
    assert computed_there(counts, IMAGES)


def test_diffusion_attention(accelerator, diffusion):
    folder, options = diffusion
    single = {"unet_dtype": "float32", "prompt_dtype": "float32"}
    build = of(lambda: DiffusionAttention("tiny", folder, **options, **single))
    assert computed_there(compare(accelerator, build, IMAGES, tolerance=TOLERANCE), IMAGES)


@pytest.mark.parametrize("autocast", [True, False])
@torch.inference_mode()
def test_auto_is_half_precision_there_and_stays_close(accelerator, diffusion, autocast):
    folder, options = diffusion
    exact = DiffusionEncoder("tiny", folder, **options)(IMAGES)
    there = DiffusionEncoder("tiny", folder, **options, autocast=autocast).to(DEVICE)
    features = there(IMAGES.to(DEVICE))
    assert features.dtype == there.feature_dtype == torch.float16
    assert (features.device, there.fingerprint()["generator"]) == (DEVICE, DEVICE.type)
    assert cosines(features, exact).min() > 0.99


@torch.inference_mode()
def test_vision_transformers_are_in_half_precision_there(accelerator, tmp_path):
    write_checkpoint(tmp_path, "vit")
    exact, there = (VisionTransformer("tiny", str(tmp_path)).to(device) for device in ("cpu", DEVICE))
    features = there(SMALL.to(DEVICE))
    assert features.dtype == there.feature_dtype == torch.float16
    assert cosines(features, exact(SMALL)).min() > 0.999


@pytest.mark.parametrize("generator", ["auto", "cpu"])
def test_noise_is_drawn_where_it_is_asked_for(accelerator, diffusion, generator):
    folder, options = diffusion
    encoder = DiffusionEncoder("tiny", folder, **options, generator=generator).to(DEVICE)
    expected = DiffusionEncoder("tiny", folder, **options).latents(IMAGES)
    torch.testing.assert_close(encoder.latents(IMAGES.to(DEVICE)).cpu(), expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_after_the_first_batch_nothing_is_waited_for(accelerator, diffusion):
    folder, options = diffusion
    encoder = DiffusionEncoder("tiny", folder, **options).to(DEVICE)
    images = IMAGES.to(DEVICE)
    encoder(images)
    accelerator.taken()
    encoder(images)
    counts = accelerator.taken()
    assert counts.uploaded_bytes < 100
    assert (counts.downloaded_bytes, counts.crossings.total()) == (0, 0)


def test_images_elsewhere_are_refused_by_a_network(accelerator, tmp_path):
    write_checkpoint(tmp_path, "vit")
    backbone = VisionTransformer("tiny", str(tmp_path), dtype="float32").to(DEVICE)
    with pytest.raises(RuntimeError, match="same device"):
        backbone(SMALL)


def test_a_source_of_features_brings_images_up(accelerator):
    backbone = Colour(stride=8).to(DEVICE)
    framing = Framing("none", 128, 32, "ignore", 8)
    pixels, label = (IMAGES * 255).byte(), torch.zeros(128, 96, dtype=torch.long)
    examples = [Example(i, "", framing, (128, 96), label, each) for i, each in enumerate(pixels)]
    features = FeatureSource(backbone, framing, DEVICE).compute(examples)
    assert features.device == DEVICE
    assert torch.equal(features.cpu(), Colour(stride=8)(pixels / 255))
