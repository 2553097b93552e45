import numpy as np
import pytest
import skimage.data
from PIL import Image

import diffcut_bench
import diffcut_bench.segmentation as segmentation
from diffcut_bench.errors import UserError

FAST = "protocol.image_size=256"


def test_takes_arrays_pictures_and_paths(tmp_path):
    array = skimage.data.coffee()
    Image.fromarray(array).save(tmp_path / "coffee.png")
    results = [
        diffcut_bench.segment(image, "efficientnet_lite0", FAST)
        for image in (array, Image.fromarray(array), tmp_path / "coffee.png", str(tmp_path / "coffee.png"))
    ]
    assert results[0].labels.shape == array.shape[:2]
    assert np.array_equal(results[0].image, array)
    assert results[0].num_segments > 1
    assert all(np.array_equal(result.labels, results[0].labels) for result in results)


def test_overlay_has_the_size_of_the_picture_and_shows_boundaries():
    result = diffcut_bench.segment(skimage.data.coffee(), "efficientnet_lite0", FAST)
    pixels = np.asarray(result.overlay())
    assert pixels.shape == result.image.shape
    assert ((pixels == 255).all(axis=2)).any()


def test_pictures_are_turned_upright(tmp_path):
    picture = Image.fromarray(skimage.data.coffee())
    exif = picture.getexif()
    exif[0x0112] = 6  # to be turned by a quarter
    picture.save(tmp_path / "turned.jpg", exif=exif)
    assert diffcut_bench.segment(tmp_path / "turned.jpg", "efficientnet_lite0", FAST).labels.shape == (600, 400)


def test_unknown_backbone_is_a_user_error():
    with pytest.raises(UserError, match="unknown option backbone=nope"):
        diffcut_bench.segment(skimage.data.coffee(), "nope")


def test_more_than_256_segments_need_16_bits(tmp_path):
    labels = np.arange(400).reshape(20, 20)
    segmentation = diffcut_bench.Segmentation(np.zeros((20, 20, 3), dtype=np.uint8), labels)
    segmentation.save(tmp_path / "labels.png", tmp_path / "overlay.png")
    assert np.array_equal(np.array(Image.open(tmp_path / "labels.png")), labels)


def test_sixteen_bit_grey_is_the_same_picture_as_eight_bit(tmp_path):
    camera = skimage.data.camera()
    Image.fromarray(camera).save(tmp_path / "eight.png")
    Image.fromarray(camera.astype(np.uint16) * 257).save(tmp_path / "sixteen.png")
    eight, sixteen = (
        diffcut_bench.segment(tmp_path / f"{n}.png", "efficientnet_lite0", FAST) for n in ("eight", "sixteen")
    )
    assert np.array_equal(eight.image, sixteen.image)
    assert np.array_equal(eight.labels, sixteen.labels)


def test_large_pictures_are_refined_at_a_bounded_size(monkeypatch):
    monkeypatch.setattr(segmentation, "_LARGEST", 100)
    result = diffcut_bench.segment(skimage.data.coffee(), "efficientnet_lite0", FAST)
    assert result.labels.shape == (400, 600)
    # Enlarged six times: borders run along blocks.
    changes = np.flatnonzero((np.diff(result.labels, axis=1) != 0).any(axis=0)) + 1
    assert set((changes % 6).tolist()) == {0}
