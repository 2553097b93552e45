import pytest
import torch

from diffcut_bench.backbones import Backbone, Colour
from diffcut_bench.coherence.roc import cosine


def test_is_the_mean_colour_of_each_patch_less_mid_grey():
    image = torch.full((1, 3, 8, 12), 0.5)
    image[0, :, :4, :4] = torch.tensor([1.0, 0.25, 0.0])[:, None, None]
    image[0, 0, 4:, 8:] = torch.tensor([0.0, 1.0]).repeat(8).reshape(4, 4)  # half red, half not
    features = Colour(stride=4)(image)
    assert features.shape == (1, Colour.channels, 2, 3)
    assert torch.allclose(features[0, :, 0, 0], torch.tensor([0.5, -0.25, -0.5]))
    assert torch.equal(features[0, :, 1, 2], torch.zeros(3))


def test_an_image_does_not_depend_on_its_batch():
    images = torch.rand(3, 3, 64, 96)
    backbone = Colour()
    assert torch.equal(backbone(images)[1:2], backbone(images[1:2]))


def test_light_and_dark_are_opposite():
    light, dark, red = torch.tensor([[[0.9] * 3, [0.1] * 3, [0.9, 0.1, 0.1]]]).transpose(0, 1) - 0.5
    assert cosine(light, dark).item() == pytest.approx(-1)
    assert cosine(light, red).item() < 0


def test_outline_is_what_it_gives():
    for stride, aspect in ((32, 1), (16, 2)):
        told = Colour.outline({"stride": stride}, 256, "cpu", aspect)
        features = Colour(stride)(torch.rand(1, 3, 256 // aspect, 256))
        assert (told.channels, told.rows, told.cols) == features.shape[1:] and told.dtype == features.dtype
        assert told.operations == 0, "no network"


def test_says_what_it_is():
    assert isinstance(Colour(), Backbone)
    assert Colour(16).fingerprint() != Colour(32).fingerprint()
    assert Colour(16).stride == 16
    with pytest.raises(ValueError, match="stride"):
        Colour(0)
