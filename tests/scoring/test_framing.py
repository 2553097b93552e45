import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from diffcut_bench.scoring import framing
from diffcut_bench.scoring.framing import Framing, _resize_label, center_crop_box, prepare_example, resize_pixels


def prepared(height: int, width: int, **choices: object):
    generator = np.random.default_rng(0)
    picture = Image.fromarray(generator.integers(0, 255, (height, width, 3), dtype=np.uint8))
    label = generator.integers(-1, 5, (height, width))
    settings = {"crop": "center", "image_size": 64, "eval_size": 16, "void": "ignore", "stride": 32, **choices}
    return picture, label, prepare_example(3, "x", picture, label, Framing(**settings))


@pytest.mark.parametrize(
    ("size", "box"), [((375, 500), (0, 63, 374)), ((500, 333), (84, 0, 332)), ((4, 4), (0, 0, 3)), ((1, 5), (0, 2, 1))]
)
def test_released_crop(size, box):
    assert center_crop_box(*size) == box


def test_center_crop_gives_squares():
    _, _, example = prepared(50, 70)
    assert example.image.shape == (3, 64, 64)
    assert example.eval_image.shape == (3, 16, 16)
    assert example.label.shape == (16, 16)
    assert 0 <= example.image.min() <= example.image.max() <= 1


def test_label_takes_released_pixels():
    # 1024 by nearest-exact, then every eighth: for a crop of 32 that is every second pixel of the crop.
    _, label, example = prepared(33, 40, image_size=128, eval_size=16)
    top, left, side = center_crop_box(33, 40)
    assert torch.equal(example.label, torch.from_numpy(label[top : top + side, left : left + side][::2, ::2]))


def test_whole_images_keep_aspect_ratio_and_resolution():
    picture, label, example = prepared(90, 130, crop="none", image_size=128, eval_size="original")
    assert example.image.shape == (3, 96, 128)
    assert torch.equal(example.label, torch.from_numpy(label))
    assert torch.equal(
        (example.eval_image * 255).round().to(torch.uint8), torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    )


def test_resizing_is_not_antialiased():
    stripes = np.zeros((65, 65, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    label = np.zeros((65, 65), np.int64)
    example = prepare_example(0, "x", Image.fromarray(stripes), label, Framing("center", 32, 32, "ignore", 32))
    # Half-pixel centres fall between a light and a dark column each.
    assert torch.allclose(example.image, torch.full((3, 32, 32), 0.5), atol=0.01)


@pytest.mark.parametrize("crop", ["center", "none"])
@pytest.mark.parametrize("eval_size", [16, 96, "original"])
@pytest.mark.parametrize(("image_size", "input_size"), [(64, None), (96, 80)])
def test_bytes_become_what_colours_became(crop, eval_size, image_size, input_size):
    """Made of floating-point colours, step by step, as it was before pictures travelled as bytes."""
    choices = {"crop": crop, "image_size": image_size, "eval_size": eval_size, "input_size": input_size, "stride": 16}
    picture, label, example = prepared(90, 131, **choices)
    colours, classes = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255, torch.from_numpy(label)
    if crop == "center":
        top, left, side = center_crop_box(90, 131)
        colours, classes = (part[..., top : top + side, left : left + side] for part in (colours, classes))

    def scaled(longer, stride):
        scale = longer / max(colours.shape[1:]) / stride
        return [round(extent * scale) * stride for extent in colours.shape[1:]]

    def resized(image, size, **options):
        return interpolate(image[None], size, mode="bilinear", **options)[0]

    plain = resized(colours, scaled(image_size, 1 if input_size else 16))
    expected = plain if input_size is None else resized(colours, scaled(input_size, 16), antialias=True)
    assert torch.equal(example.image, expected)
    assert example.grid == (expected.shape[1] // 16, expected.shape[2] // 16)
    if eval_size == "original":
        assert torch.equal(example.eval_image, colours)
        assert torch.equal(example.label, classes)
        return
    assert torch.equal(example.eval_image, resized(plain, scaled(eval_size, 1)))
    large = interpolate(classes[None, None].float(), plain.shape[1:], mode="nearest-exact")
    assert torch.equal(example.label, interpolate(large, scaled(eval_size, 1), mode="nearest")[0, 0].long())


@pytest.mark.parametrize("height", [1, 2, 31, 64, 100, 374, 1023, 1024, 2048, 3000])
def test_rows_and_columns_are_picked_as_from_the_whole_label(height):
    label = torch.arange(height)[:, None].expand(height, 3)
    for image_size, eval_size in ((1024, 128), (512, 320), (96, 96), (768, 1000)):
        large = interpolate(label[None, None].float(), (image_size, 5), mode="nearest-exact")
        expected = interpolate(large, (eval_size, 2), mode="nearest")[0, 0].long()
        found = _resize_label(label, ((image_size, 5), "nearest-exact"), ((eval_size, 2), "nearest"))
        assert torch.equal(found, expected)
        assert torch.equal(_resize_label(label, ((image_size, 5), "nearest-exact")), large[0, 0].long())


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("size", [(31, 40), (120, 150)])
def test_large_pictures_are_resized_colour_by_colour(monkeypatch, size, antialias):
    pixels = torch.randint(0, 256, (3, 61, 83), dtype=torch.uint8)
    whole = resize_pixels(pixels, size, antialias)
    monkeypatch.setattr(framing, "_LARGE", 1)
    # A thousandth of a grey level; torch 2.6 rounds 1.9e-6 apart.
    assert torch.allclose(resize_pixels(pixels, size, antialias), whole, rtol=0, atol=4e-6)
