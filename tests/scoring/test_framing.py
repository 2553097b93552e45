import numpy as np
import pytest
import torch
from PIL import Image

from diffcut_bench.scoring.framing import Framing, center_crop_box, prepare_example


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
