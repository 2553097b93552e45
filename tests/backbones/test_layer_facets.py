"""Facets of several layers side by side, against those of each layer alone."""

import pytest
import torch
from test_vision_transformer import CHANNELS, write_checkpoint

from diffcut_bench.backbones import LayerFacets, VisionTransformer
from diffcut_bench.config import instantiate, load_config
from diffcut_bench.errors import UserError
from diffcut_bench.scoring.features import backbone_identity
from diffcut_bench.store import cell_key


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vit")
    return str(folder), write_checkpoint(folder, "vit").config.num_hidden_layers


@pytest.mark.parametrize("facet", ["keys", "queries", "values"])
def test_channels_are_those_of_each_layer_in_order(folder, facet):
    model, depth = folder
    images = torch.rand(2, 3, 20, 16, generator=torch.Generator().manual_seed(0))
    layers = list(range(depth))
    alone = [VisionTransformer("tiny", model, layer=layer, facet=facet)(images) for layer in layers]
    backbone = LayerFacets("tiny", model, layers=[layer - depth for layer in layers], facet=facet)
    for _ in range(2):
        features = backbone(images)
        assert features.shape == (2, CHANNELS * depth, 5, 4) and backbone.channels == CHANNELS * depth
        torch.testing.assert_close(features, torch.cat(alone, dim=1), rtol=1e-5, atol=1e-6)
    only = LayerFacets("tiny", model, layers=[depth - 1], facet=facet)
    assert torch.equal(only(images), alone[-1])


def test_the_key_tells_the_layers(folder):
    model, depth = folder
    several = LayerFacets("tiny", model, layers=[-2, -1]).fingerprint()
    assert several["layer"] == f"{depth - 2}+{depth - 1}" and several["facet"] == "keys"
    one = VisionTransformer("tiny", model, layer=-1, facet="keys").fingerprint()
    assert {name for name in several if several[name] != one[name]} == {"layer"}
    keys = []
    for layers in ([-2, -1], [depth - 2, depth - 1], [0, depth - 1]):
        settings = {"name": "tiny", "model": model, "layers": layers}
        keys.append(cell_key(backbone_identity(LayerFacets(**settings), settings)))
    assert keys[0] == keys[1] != keys[2], "layers from the end are those from the start"


@pytest.mark.parametrize("layers", [[], [-1, -2], [-1, -1], [9], [-9]])
def test_layers_are_checked(folder, layers):
    with pytest.raises(UserError, match="layer") as error:
        LayerFacets("tiny", folder[0], layers=layers)
    assert error.value.where == f"backbone.layers={layers}" and "backbone.layers=[-3,-2,-1]" in error.value.hint
    with pytest.raises(UserError, match="tokens"):
        LayerFacets("tiny", folder[0], facet="tokens")


def test_the_options_are_eagles(folder):
    for option, model in (("dino_s8_layers", "facebook/dino-vits8"), ("dino_b8_layers", "facebook/dino-vitb8")):
        settings = load_config([f"backbone={option}"]).backbone
        assert (settings["name"], settings["model"], settings["image_size"]) == (option, model, 320)
        outline = LayerFacets.outline(settings, 1024, "cpu")
        assert (outline.rows, outline.cols) == (40, 40)
        assert outline.channels == 3 * {"dino_s8_layers": 384, "dino_b8_layers": 768}[option]
    overrides = [f"backbone.model={folder[0]}", "backbone.layers=[-2,-1]", "backbone.image_size=32"]
    backbone = instantiate("backbone", load_config(["backbone=dino_s8_layers", *overrides]).backbone)
    assert backbone(torch.rand(1, 3, 32, 32)).shape == (1, 2 * CHANNELS, 8, 8)
