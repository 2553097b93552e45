"""The class token's attention as feature channels, against the weights that transformers itself returns."""

import json

import pytest
import torch
from test_vision_transformer import CHANNELS, FAMILIES, PREFIX, reference, write_checkpoint

from diffcut_bench.backbones.vision_transformer import VisionTransformer
from diffcut_bench.config import instantiate, load_config
from diffcut_bench.errors import UserError

HEADS = 4
WITH_CLASS_TOKEN = [family for family in FAMILIES if not family.startswith("siglip")]


@pytest.fixture(scope="module", params=WITH_CLASS_TOKEN)
def attending(request, tmp_path_factory):
    """Folder, family and the reference network, which keeps its attention."""
    folder = tmp_path_factory.mktemp(request.param)
    network = write_checkpoint(folder, request.param)
    network.set_attn_implementation("eager")
    return str(folder), request.param, network


@pytest.mark.parametrize("facet", ["tokens", "keys"])
@pytest.mark.parametrize("layer", ["last", 1, 0])
@torch.inference_mode()
def test_attention_is_the_networks_own(attending, layer, facet):
    folder, family, network = attending
    images = torch.rand(2, 3, 20, 16)
    network.config.output_attentions = True
    weights = reference(network, family, images).attentions[-1 if layer == "last" else layer]
    expected = weights[:, :, 0, PREFIX.get(family, 1) :].unflatten(2, (5, 4))
    options = {"layer": layer, "facet": facet}
    backbone = VisionTransformer("tiny", folder, attention=True, **options)
    features = backbone(images)
    assert backbone.channels == features.shape[1] == CHANNELS + HEADS
    torch.testing.assert_close(features[:, CHANNELS:], expected, rtol=1e-4, atol=1e-6)
    plain = VisionTransformer("tiny", folder, **options)(images)
    torch.testing.assert_close(features[:, :CHANNELS], plain, rtol=1e-5, atol=1e-6)
    assert (features[:, CHANNELS:].sum(dim=(2, 3)) < 1).all(), "the class token attends to itself too"


@pytest.mark.parametrize("family", ["siglip", "siglip_vision_model"])
def test_without_a_class_token_there_is_none(tmp_path, family):
    write_checkpoint(tmp_path, family)
    with pytest.raises(UserError, match="no class token") as caught:
        VisionTransformer("tiny", str(tmp_path), attention=True)
    assert "backbone.attention=false" in caught.value.hint


def test_the_fingerprint_names_it_and_is_as_ever_without(tmp_path):
    write_checkpoint(tmp_path, "vit")
    without, with_it = (VisionTransformer("t", str(tmp_path), attention=on).fingerprint() for on in (False, True))
    assert with_it == {**without, "class_attention": "true"}
    assert json.dumps(with_it)


@torch.inference_mode()
def test_the_option_of_the_yaml_feeds_found(tmp_path):
    write_checkpoint(tmp_path, "vit")
    asked = ["backbone=dino_s8", f"backbone.model={tmp_path}", "backbone.facet=keys", "backbone.attention=true"]
    config = load_config([*asked, "segmenter=found", f"segmenter.attention_channels={HEADS}"])
    features = instantiate("backbone", config.backbone)(torch.rand(2, 3, 32, 32))
    assert features.shape == (2, CHANNELS + HEADS, 8, 8)
    assert instantiate("segmenter", config.segmenter)(features).shape == (2, 8, 8)
    assert load_config(["backbone=dino_s8"]).backbone["attention"] is False


@torch.inference_mode()
def test_half_precision_keeps_the_order(tmp_path):
    write_checkpoint(tmp_path, "vit")
    images = torch.rand(1, 3, 32, 32)
    exact, half = (
        VisionTransformer("t", str(tmp_path), attention=True, dtype=d)(images) for d in ("float32", "float16")
    )
    assert half.dtype == torch.float16
    torch.testing.assert_close(half[:, CHANNELS:].float(), exact[:, CHANNELS:], rtol=0.05, atol=1e-4)


@pytest.mark.slow
@torch.inference_mode()
def test_a_compiled_network_gives_the_same(tmp_path):
    write_checkpoint(tmp_path, "dinov3_vit")
    images = torch.rand(2, 3, 24, 16)
    plain, fast = (VisionTransformer("t", str(tmp_path), attention=True, compile=c)(images) for c in (False, True))
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)
