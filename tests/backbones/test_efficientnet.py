from importlib.metadata import version

import numpy as np
import pytest
import skimage.data
import torch
from conftest import DATA
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import avg_pool2d, interpolate, normalize
from torch.utils.flop_counter import FlopCounterMode

from diffcut_bench.backbones import Backbone, EfficientNetLite0
from diffcut_bench.config import instantiate, load_config
from diffcut_bench.errors import UserError
from diffcut_bench.scoring.features import backbone_identity
from diffcut_bench.scoring.framing import Framing, prepare_example


@pytest.fixture(scope="module")
def backbone() -> EfficientNetLite0:
    return EfficientNetLite0()


@pytest.fixture(scope="module")
def side_by_side() -> EfficientNetLite0:
    return EfficientNetLite0("several", (5, 11, 16), stride=16)


@torch.inference_mode()
def test_features_of_coffee_equal_the_golden_ones(backbone):
    picture = Image.fromarray(skimage.data.coffee())
    label = np.zeros((picture.height, picture.width), np.int64)
    example = prepare_example(0, "coffee", picture, label, Framing("center", 1024, 128, "ignore", 32))
    features = backbone(example.image[None])
    golden = torch.from_numpy(np.load(DATA / "recursive_ncut_coffee.npz")["features"]).float()
    assert features.shape == (1, 320, 32, 32)
    # The golden ones are rounded to half precision: 2^-7 at their greatest magnitude of 16.
    assert (features[0].flatten(1).T - golden).abs().max() <= 2**-7


@torch.inference_mode()
def test_an_image_does_not_depend_on_its_batch(backbone):
    images = torch.rand(5, 3, 96, 128)
    together = backbone(images)
    assert together.shape == (5, backbone.channels, 96 // backbone.stride, 128 // backbone.stride)
    for batch in (1, 2, 3):
        apart = torch.cat([backbone(images[i : i + batch]) for i in range(0, 5, batch)])
        assert torch.equal(apart, together)


def test_is_frozen_and_says_what_it_is(backbone):
    assert isinstance(backbone, Backbone)
    assert not backbone.training
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert len(backbone.fingerprint()["weights_sha256"]) == 64


@pytest.mark.parametrize(
    ("settings", "height", "width", "aspect"),
    [
        ({}, 1024, 1024, 1),
        ({}, 512, 1024, 2),
        ({}, 96, 96, 1),
        ({"blocks": [5, 11, 16], "stride": 16}, 48, 144, 3),
        ({"blocks": [5, 11, 16], "stride": 16, "image_size": 512}, 512, 512, 1),
        ({"blocks": [3, 11], "stride": 8}, 96, 96, 1),
    ],
)
def test_outline_tells_what_the_network_takes_and_gives(settings, height, width, aspect):
    told = EfficientNetLite0.outline(settings, width, "cpu", aspect)
    backbone = EfficientNetLite0(**settings)
    with FlopCounterMode(display=False) as counter, torch.inference_mode(), FakeTensorMode(allow_non_fake_inputs=True):
        features = backbone(torch.rand(1, 3, height, width))
    assert features.shape == (1, told.channels, told.rows, told.cols)
    assert told.operations == counter.get_total_flops()


@torch.inference_mode()
def test_blocks_side_by_side_are_unit_vectors_on_one_grid(side_by_side):
    images = torch.rand(2, 3, 96, 128)
    edges, parts, things = side_by_side(images).split([40, 112, 320], dim=1)
    for each in (edges, parts, things):
        assert each.shape[2:] == (6, 8)
        assert torch.allclose(each.norm(dim=1), torch.ones(2, 6, 8))
    # Patches of 8 pixels are averaged by twos, those of 16 stay, those of 32 are blown up.
    alone = EfficientNetLite0(blocks=(5,), stride=8)(images)
    assert torch.allclose(edges, normalize(avg_pool2d(alone, 2)), atol=1e-6)
    assert torch.allclose(parts, normalize(EfficientNetLite0(blocks=(11,), stride=16)(images)), atol=1e-6)
    blown_up = interpolate(EfficientNetLite0()(images), (6, 8), mode="bilinear")
    assert torch.allclose(things, normalize(blown_up), atol=1e-5)


@torch.inference_mode()
def test_patches_that_fill_no_whole_patch_of_the_last_block_stay_where_they_are(side_by_side):
    image = torch.rand(1, 3, 96, 128)
    image[:, :, 80:] = image[:, :, 79:80]  # so that the part below repeats the last row
    features = side_by_side(image[:, :, :80])
    assert features.shape == (1, 472, 5, 8)
    assert torch.allclose(features, side_by_side(image)[:, :, :5], atol=1e-6)


@torch.inference_mode()
def test_the_last_block_alone_is_the_whole_network(backbone):
    images = torch.rand(2, 3, 96, 128)
    normalised = ((images * 255 - 127) / 128).contiguous(memory_format=torch.channels_last)
    assert torch.equal(backbone(images), backbone.blocks(backbone.stem(normalised)))


def test_the_options_say_what_they_are():
    last, several = (load_config([f"backbone=efficientnet_lite0{name}"]).backbone for name in ("", "_blocks"))
    # Results and stored features of earlier versions are found by this.
    assert backbone_identity(instantiate("backbone", last), last) == {
        "_target_": "diffcut_bench.backbones.EfficientNetLite0",
        "model": "efficientnet_lite0",
        "weights_sha256": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "layer": "block 16",
        "efficientnet-lite-pytorch": version("efficientnet-lite-pytorch"),
        "dtype": "float32",
        "code": {"torch": version("torch")},
    }
    identity = backbone_identity(instantiate("backbone", several), several)
    assert (identity["layer"], identity["stride"]) == ("block 5+8+11+15+16", "8")
    assert (identity["model"], several["image_size"]) == ("efficientnet_lite0_blocks", 512)


@pytest.mark.parametrize(
    "settings",
    [
        {"blocks": []},
        {"blocks": [0]},
        {"blocks": [17]},
        {"blocks": [5, 5]},
        {"stride": 3},
    ],
)
def test_no_such_blocks(settings):
    with pytest.raises(UserError):
        EfficientNetLite0(**settings)
