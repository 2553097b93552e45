import sys

import numpy as np
import pytest
import skimage.data
import torch
from conftest import DATA
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from diffcut_bench.backbones import Backbone, EfficientNetLite0
from diffcut_bench.errors import UserError
from diffcut_bench.scoring.framing import Framing, prepare_example


@pytest.fixture(scope="module")
def backbone() -> EfficientNetLite0:
    return EfficientNetLite0()


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


@pytest.mark.parametrize(("height", "width", "aspect"), [(1024, 1024, 1), (512, 1024, 2), (96, 96, 1)])
def test_outline_tells_what_the_network_takes_and_gives(backbone, height, width, aspect):
    told = EfficientNetLite0.outline({}, width, "cpu", aspect)
    with FlopCounterMode(display=False) as counter, torch.inference_mode(), FakeTensorMode(allow_non_fake_inputs=True):
        features = backbone(torch.rand(1, 3, height, width))
    assert features.shape == (1, told.channels, told.rows, told.cols)
    assert told.operations == counter.get_total_flops()


def test_without_the_extra_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(UserError) as caught:
        EfficientNetLite0()
    assert "diffcut_bench[demo]" in caught.value.hint
