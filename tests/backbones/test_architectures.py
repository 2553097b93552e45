"""What networks give and take, told without weights: against counts of the paper, and against what then runs."""

import re
from typing import Any

import diffusion_checkpoints as tiny
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from diffcut_bench.backbones import DiffusionAttention, DiffusionEncoder, VisionTransformer
from diffcut_bench.backbones.architectures import (
    UNETS,
    VAE,
    VISION_TRANSFORMERS,
    VisionShape,
    unet_operations,
    unet_parameters,
    vae_operations,
)
from diffcut_bench.config import conf_dir

TERA = 1e12


def test_operations_are_those_of_the_paper():
    """Known counts of a 1024-pixel image."""
    assert unet_operations(UNETS["segmind/SSD-1B"], 2, 1024) / TERA == pytest.approx(1.33, abs=0.005)
    assert unet_operations(UNETS["segmind/Segmind-Vega"], 2, 1024) / TERA == pytest.approx(0.85, abs=0.005)
    assert vae_operations(VAE, 1024) / TERA == pytest.approx(4.88, abs=0.005)
    assert unet_parameters(UNETS["segmind/SSD-1B"]) == pytest.approx(1.3e9, rel=0.01)


def test_every_published_network_has_a_shape():
    texts = "\n".join(path.read_text() for path in (conf_dir() / "backbone").glob("*.yaml"))
    models = set(re.findall(r"^ *model: (\S+)", texts, re.MULTILINE))
    assert models == {*UNETS, *VISION_TRANSFORMERS}


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

    folder = tmp_path_factory.mktemp("vit")
    sizes = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
    ViTModel(ViTConfig(**sizes, patch_size=4, image_size=16), add_pooling_layer=False).save_pretrained(folder)
    ViTImageProcessorPil().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("options", "layers", "projected"),
    [
        ({}, 3, False),
        ({"layer": 1}, 2, False),
        ({"facet": "keys"}, 3, True),
        ({"layer": 0, "facet": "values"}, 1, True),
    ],
)
def test_operations_of_vision_transformers_are_those_that_run(vit, options, layers, projected):
    backbone = VisionTransformer("tiny", vit, **options)
    backbone.read()
    # The counter knows the products that the CPU's fused attention is made of, and not that itself.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        backbone(torch.rand(1, 3, 24, 24))
    assert VisionShape("vit", patch=4, width=16, depth=3).operations(24, layers, projected) == counter.get_total_flops()
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        backbone(torch.rand(1, 3, 12, 24))
    counted = counter.get_total_flops()
    assert VisionShape("vit", patch=4, width=16, depth=3).operations(24, layers, projected, aspect=2) == counted


@pytest.mark.parametrize("gated", [False, True])
def test_weights_and_operations_of_a_gated_network(tmp_path, gated):
    from transformers import DINOv3ViTConfig, DINOv3ViTModel, ViTImageProcessorPil

    sizes = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
    network = DINOv3ViTModel(DINOv3ViTConfig(**sizes, patch_size=4, num_register_tokens=4, use_gated_mlp=gated))
    network.save_pretrained(tmp_path)
    ViTImageProcessorPil().save_pretrained(tmp_path)
    shape = VisionShape("dinov3_vit", patch=4, width=16, depth=3, extra=5, gated=gated)
    matrices = [name for name, _ in network.named_parameters() if re.search(r"(proj|patch_embeddings)\.weight", name)]
    assert shape.parameters() == sum(network.get_parameter(name).numel() for name in matrices)
    backbone = VisionTransformer("tiny", str(tmp_path))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        backbone(torch.rand(1, 3, 24, 24))
    assert shape.operations(24, 3) == counter.get_total_flops()


# Of the whole vision tower in transformers, 512 (448) pixels, as each model's card or paper says: millions.
PUBLISHED = {"dinov3-vits16-": 21, "dinov3-vits16plus": 29, "dinov3-vitb16": 86, "dinov3-vitl16": 300}
PUBLISHED |= {"dinov3-vith16plus": 840, "C-RADIOv4-H": 631, "tipsv2-b14": 86, "siglip2-base": 86, "registers-base": 86}


@pytest.mark.parametrize("model", PUBLISHED)
def test_weights_are_as_many_as_published(model):
    (shape,) = (shape for name, shape in VISION_TRANSFORMERS.items() if model in name)
    assert shape.parameters() == pytest.approx(PUBLISHED[model] * 1e6, rel=0.03)
    assert shape.heads == {384: 6, 768: 12, 1024: 16, 1280: 20 if shape.gated else 16}[shape.width]


@pytest.fixture(scope="module", params=["sdxl", "sd1"])
def settings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of a tiny diffusion model."""
    folder = tmp_path_factory.mktemp(request.param)
    pipeline = {"sdxl": tiny.sdxl_pipeline, "sd1": tiny.sd1_pipeline}[request.param](folder / "tokenizers")
    encoders = 2 if request.param == "sdxl" else 1
    return {"name": "tiny", "model": str(tiny.write(pipeline, folder / "model")), "text_encoders": encoders}


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (DiffusionEncoder, {}),
        (DiffusionEncoder, {"block": ["E64", "D32"], "unet_dtype": "bfloat16"}),
        (DiffusionAttention, {"image_size": 64}),
    ],
)
def test_an_outline_is_what_the_backbone_then_gives(settings, kind, more):
    told = kind.outline({**settings, **more}, 64, "cpu")
    features = kind(**settings, **more)(torch.rand(1, 3, 64, 64))
    assert (1, told.channels, told.rows, told.cols) == features.shape
    assert told.dtype == features.dtype
    assert told.operations > 0
    oblong = kind.outline({**settings, **more}, 64, "cpu", aspect=2)
    assert (oblong.channels, oblong.rows, oblong.cols) == kind(**settings, **more)(torch.rand(1, 3, 32, 64)).shape[1:]
    assert oblong.operations < told.operations
    half = kind.outline({**settings, **more, "unet_dtype": "auto"}, 64, "cuda").dtype
    assert half == (torch.float32 if kind is DiffusionAttention else torch.float16)


def test_a_larger_image_and_more_of_the_network_take_more(settings):
    def operations(size: int, **more: Any) -> float:
        return DiffusionEncoder.outline({**settings, **more}, size, "cpu").operations

    assert operations(128) > 3 * operations(64)
    assert operations(64, whole_unet=True) > operations(64) > operations(64, block="E64")
    assert DiffusionEncoder.outline({"model": "someone/something"}, 64, "cpu") is None
    assert DiffusionEncoder.outline({**settings, "vae": "someone/tiny"}, 64, "cpu").operations is None
