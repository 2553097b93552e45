"""Aggregated self-attention against a plain computation, on tiny random models of both kinds."""

from pathlib import Path
from typing import Any

import diffusion_checkpoints as tiny
import pytest
import torch
from conftest import shapes_overrides
from torch import Tensor
from torch.nn.functional import interpolate

from diffcut_bench.backbones import DiffusionAttention, DiffusionEncoder
from diffcut_bench.backbones.diffusion_attention import aggregate_attention
from diffcut_bench.config import instantiate, load_config
from diffcut_bench.errors import UserError
from diffcut_bench.scoring.features import backbone_identity
from diffcut_bench.scoring.passes import run_cell

IMAGES = torch.rand(3, 3, 128, 128, generator=torch.Generator().manual_seed(0))
# Layers by patches a side of a 128-pixel image; SD 1.x at 512 pixels.
LAYERS = {"sd1": {16: 5, 8: 5, 4: 5, 2: 1}, "sdxl": {8: 10, 4: 18}}


@pytest.fixture(scope="module", params=["sdxl", "sd1"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    pipeline = {"sdxl": tiny.sdxl_pipeline, "sd1": tiny.sd1_pipeline}[request.param](folder)
    return request.param, tiny.write(pipeline, folder / "model")


@pytest.fixture(autouse=True)
def assets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "assets"))
    monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", str(tmp_path / "assets"))


def options(kind: str, **others: Any) -> dict[str, Any]:
    return {"text_encoders": 2 if kind == "sdxl" else 1, "weights_dtype": "float32", **others}


def plain(maps: list[Tensor]) -> Tensor:
    """The aggregation for one square image, one query and one key map at a time; sizes are powers of two."""
    sides = [round(len(map_) ** 0.5) for map_ in maps]
    finest = max(sides)
    total = torch.zeros(finest, finest, finest, finest)
    for map_, side in zip(maps, sides, strict=True):
        share = side / sum(set(sides)) / sides.count(side)
        for row in range(finest):
            for col in range(finest):
                query = map_[(row * side // finest) * side + col * side // finest].view(1, 1, side, side)
                keys = interpolate(query, (finest, finest), mode="bilinear", align_corners=False)[0, 0]
                total[row, col] += share * keys / keys.sum()
    return total


def test_is_the_weighted_mean_of_all_layers(model):
    kind, folder = model
    backbone = DiffusionAttention(kind, str(folder), **options(kind, image_size=128))
    features = backbone(IMAGES)
    finest = max(LAYERS[kind])
    assert features.shape == (3, finest**2, finest, finest)
    assert (backbone.channels, backbone.stride) == (finest**2, 128 // finest)
    assert features.dtype == torch.float32 == backbone.feature_dtype
    torch.testing.assert_close(features.sum(dim=1), torch.ones(3, finest, finest))
    encoder = DiffusionEncoder(kind, str(folder), **options(kind, timestep=300, noise=False, whole_unet=True))
    maps = encoder.self_attention(IMAGES)
    sides = [round(map_.shape[1] ** 0.5) for map_ in maps]
    assert {side: sides.count(side) for side in sides} == LAYERS[kind]
    for index in range(3):
        expected = plain([map_[index] for map_ in maps]).flatten(2).permute(2, 0, 1)
        torch.testing.assert_close(features[index], expected)
    torch.testing.assert_close(backbone(IMAGES[1:2]), features[1:2], rtol=1e-4, atol=1e-7)


def test_pictures_that_are_not_square_and_grids_that_do_not_halve(model):
    kind, folder = model
    backbone = DiffusionAttention(kind, str(folder), **options(kind))
    images = IMAGES[:1, :, : 8 * backbone.stride, : 5 * backbone.stride]
    features = backbone(images)
    assert features.shape == (1, 40, 8, 5)
    torch.testing.assert_close(features.sum(dim=1), torch.ones(1, 8, 5))


def test_layers_of_the_encoder_alone(model):
    kind, folder = model
    whole = DiffusionAttention(kind, str(folder), **options(kind))
    encoder = DiffusionAttention(kind, str(folder), **options(kind, whole_unet=False))
    assert whole(IMAGES[:1]).shape == encoder(IMAGES[:1]).shape
    assert not torch.allclose(whole(IMAGES[:1]), encoder(IMAGES[:1]))
    assert whole.fingerprint() != encoder.fingerprint()
    assert not any(name.startswith("unet.up_blocks") for name, _ in encoder.named_parameters())


def test_weights_are_proportional_to_the_resolution():
    """A layer that looks at the first patch only, and one of half the resolution at the last only: 2 to 1."""
    fine, coarse = torch.zeros(1, 16, 16), torch.zeros(1, 4, 4)
    fine[:, :, 0] = coarse[:, :, 3] = 1
    features = aggregate_attention([fine, coarse, coarse], (4, 4))
    torch.testing.assert_close(features[0, 0], torch.full((4, 4), 2 / 3))
    torch.testing.assert_close(features.sum(dim=1), torch.ones(1, 4, 4))
    upper = features[0].unflatten(0, (4, 4))[1:, 1:].sum(dim=(0, 1))
    torch.testing.assert_close(upper, torch.full((4, 4), 1 / 3))
    with pytest.raises(ValueError, match="7 patches are no level"):
        aggregate_attention([torch.rand(1, 7, 7)], (4, 4))


def test_options_are_diffsegs_and_features_stay_in_memory(tmp_path):
    for name, stride in (("sd14_attention", 8), ("ssd1b_attention", 16)):
        config = load_config([f"backbone={name}"])
        chosen = {key: config.backbone[key] for key in ("image_size", "timestep", "noise", "whole_unet")}
        assert chosen == {"image_size": 512, "timestep": 300, "noise": False, "whole_unet": True}
        assert config.choices["features"] == "memory"
        assert load_config([f"backbone={name}", "features=store"]).choices["features"] == "store"
        pipeline = tiny.sdxl_pipeline if name == "ssd1b_attention" else tiny.sd1_pipeline
        folder = tiny.write(pipeline(tmp_path / f"{name}-tokens"), tmp_path / name)
        config = load_config([f"backbone={name}", f"backbone.model={folder}"])
        backbone = instantiate("backbone", config.backbone)
        assert (backbone.stride, backbone.image_size, backbone.channels) == (stride, 512, (512 // stride) ** 2)
        identity = backbone_identity(backbone, config.backbone)
        assert (identity["timestep"], identity["features"]) == ("300", "self-attention")
    with pytest.raises(UserError, match="timestep"):
        instantiate("backbone", {**config.backbone, "timestep": 1000})


@pytest.mark.parametrize("protocol", ["released", "strict"])
def test_a_run_segments_the_maps_whatever_the_pictures_shape(model, shapes, tmp_path, protocol):
    kind, folder = model
    name = {"sd1": "sd14_attention", "sdxl": "ssd1b_attention"}[kind]
    base = [*shapes_overrides(shapes, tmp_path / "out"), f"backbone={name}", f"backbone.model={folder}"]
    base += ["segmenter=diffseg", "upsampler=nearest", "backbone.image_size=128", f"protocol={protocol}"]
    cell = run_cell(load_config([*base, "limit=4"]))
    assert not cell.result.failures
    assert cell.result.timings.features_s > 0
    assert not (tmp_path / "out" / "features").exists()
    if (protocol, kind) == ("strict", "sd1"):  # not square: as many keys as patches, in the store as well
        stored = [*base, "limit=2", "features=store"]
        first = run_cell(load_config(stored))
        again = run_cell(load_config([*stored, "segmenter.threshold=0.5"]))
        assert not first.result.failures and not again.result.failures
        assert again.result.timings.features_s < first.result.timings.features_s
