"""Several backbones as one: unit features side by side, on the finest grid."""

import pytest
import torch
from torch.nn.functional import cosine_similarity, interpolate

from diffcut_bench.backbones import Backbone, Colour, Fused, NoBackbone
from diffcut_bench.errors import UserError

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.rand(3, 3, 64, 96, generator=GENERATOR)


class Other(Backbone):
    """Six colours of patches of 16 pixels, in half precision."""

    name, stride, channels = "other", 16, 6

    def forward(self, images):
        small = interpolate(images, scale_factor=1 / 16, mode="bilinear", antialias=True)
        return torch.cat([small - 0.4, small.square() - 0.3], dim=1).half()

    def fingerprint(self):
        return {"model": "other", "noise_generator": "cpu"}


class Attending(Other):
    attention_channels = 2


class Patches(Other):
    channels_are_patches = True


def fused(weights=None, **parts):
    parts = parts or {"colour": Colour(16), "other": Other()}
    return Fused(list(parts), parts, weights)


def unit(vector):
    length = vector.norm()
    return vector / length if length > 0 else vector


def test_it_is_the_concatenation_of_unit_features():
    found = fused([2, 0.5])(IMAGES)
    colour, other = Colour(16)(IMAGES), Other()(IMAGES).float()
    assert found.shape == (3, 9, 4, 6) and found.dtype == torch.float32
    for image in range(3):
        for row in range(4):
            for col in range(6):
                parts = [2 * unit(colour[image, :, row, col]), 0.5 * unit(other[image, :, row, col])]
                torch.testing.assert_close(found[image, :, row, col], torch.cat(parts))


def test_cosines_are_averaged_with_squared_weights():
    found, colour, other = (maps.flatten(2).mT for maps in (fused([2, 1])(IMAGES), Colour(16)(IMAGES), Other()(IMAGES)))

    def cosines(patches):
        return cosine_similarity(patches.float()[:, :, None], patches.float()[:, None], dim=3)

    torch.testing.assert_close(cosines(found), (4 * cosines(colour) + cosines(other)) / 5, atol=1e-5, rtol=0)


def test_a_zero_vector_stays_zero_and_small_ones_are_brought_to_length_one():
    grey = IMAGES.clone()
    grey[0, :, :16, :16] = 0.5
    found = fused()(grey)
    assert found.isfinite().all()
    assert (found[0, :3, 0, 0] == 0).all() and found[0, 3:, 0, 0].norm() == pytest.approx(1)
    tiny = torch.full((1, 6, 1, 1), 6e-8, dtype=torch.float16)  # whose square is zero in half precision
    joined = fused().join([torch.ones(1, 3, 1, 1), tiny], (1, 1))
    assert joined[0, 3:].norm() == pytest.approx(1)


def test_a_coarser_grid_is_resized_and_brought_to_length_one_again():
    parts = {"coarse": Colour(32), "fine": Other()}
    found = fused(**parts)(IMAGES)
    assert found.shape == (3, 9, 4, 6)
    resized = interpolate(unit_maps(Colour(32)(IMAGES)), (4, 6), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found[:, :3], unit_maps(resized))
    torch.testing.assert_close(found[:, :3].norm(dim=1), torch.ones(3, 4, 6))
    assert torch.equal(found[:, 3:], unit_maps(Other()(IMAGES).float()))


def unit_maps(maps):
    return maps / maps.norm(dim=1, keepdim=True).clamp_min(1e-12)


def test_an_image_does_not_depend_on_its_batch():
    whole = fused(coarse=Colour(32), fine=Other())(IMAGES)
    for number in range(3):
        assert torch.equal(fused(coarse=Colour(32), fine=Other())(IMAGES[number : number + 1])[0], whole[number])


def test_the_finest_grid_is_the_one_of_most_patches_and_the_first_of_equals():
    class Small(Other):
        image_size = 256

    first, second, small = Colour(32), Other(), Small()
    assert fused(a=first, b=Colour(32)).finest(1024) is first
    assert fused(a=first, b=second).finest(1024) is second
    assert fused(a=first, b=small).finest(1024) is first, "32 patches against 16"
    assert fused(a=first, b=small).finest(256) is small


def test_the_fingerprint_tells_parts_order_and_weights():
    def told(weights=None, **parts):
        return fused(weights, **parts).fingerprint()

    a, b = Colour(16), Other()
    assert told(a=a, b=b) == told([1, 1.0], a=a, b=b)
    every = [told([1, 2], a=a, b=b), told([2, 1], a=a, b=b), told([1, 2], b=b, a=a), told(a=Colour(8), b=b), told()]
    assert len({str(sorted(each.items())) for each in every}) == len(every)
    assert told(a=a, b=b)["b.model"] == "other" and told(a=a, b=b)["noise_generator"] == "cpu"
    larger = Colour(16)
    larger.image_size = 64
    assert told(a=larger, b=b) != told(a=a, b=b), "a part sees the picture at its own size"


@pytest.mark.parametrize(
    ("part", "what"),
    [
        (NoBackbone(), "has no features"),
        (Attending(), "has attention for channels"),
        (Patches(), "a channel for each patch"),
        (fused(), "is a fused backbone itself"),
    ],
)
def test_what_can_be_no_part_is_refused(part, what):
    with pytest.raises(UserError, match=what):
        fused(a=Colour(16), b=part)


@pytest.mark.parametrize(
    "weights", [[1], [1, 1, 1], [], [1, 0], [1, -1], [1, float("nan")], [1, float("inf")], [1, 1e9], [1, True]]
)
def test_weights_out_of_range_are_refused(weights):
    with pytest.raises(UserError, match="weight"):
        fused(weights)


@pytest.mark.parametrize("of", [["a"], ["a", "a"], ["a", "c"], []])
def test_names_that_are_not_those_of_two_parts_are_refused(of):
    with pytest.raises(UserError, match="part"):
        Fused(of, {"a": Colour(16), "b": Other()})


def test_it_moves_with_its_parts():
    moved = fused(a=Colour(16), b=Other()).to(torch.float64)
    assert {"_modules_of_parts.0", "_modules_of_parts.1"} <= {name for name, _ in moved.named_modules()}
