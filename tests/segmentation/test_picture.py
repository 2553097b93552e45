import re
import sys
from functools import partial

import numpy as np
import pytest
import skimage.data
import torch
from conftest import agreement
from PIL import Image

import diffcut_bench
import diffcut_bench.segmentation.picture as segmentation
from diffcut_bench.config import load_config
from diffcut_bench.errors import UserError
from diffcut_bench.refinement import refine_labels
from diffcut_bench.scoring.pipeline import segment_images

FAST = "protocol.image_size=256"


def test_takes_arrays_pictures_and_paths(tmp_path):
    array = skimage.data.coffee()
    Image.fromarray(array).save(tmp_path / "coffee.png")
    results = [
        diffcut_bench.segment(image, "efficientnet_lite0", FAST)
        for image in (
            array,
            Image.fromarray(array),
            tmp_path / "coffee.png",
            str(tmp_path / "coffee.png"),
            (tmp_path / "coffee.png").as_uri(),
            (tmp_path / "coffee.png").read_bytes(),
            torch.from_numpy(array).permute(2, 0, 1),
            torch.from_numpy(array).permute(2, 0, 1) / 255,
        )
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


@pytest.mark.parametrize("kind", ["floats", "alpha", "grey", "grey 16"])
def test_arrays_of_other_kinds_are_the_same_picture(kind):
    array = skimage.data.coffee()[::4, ::4]
    grey = array[..., 1]
    arrays = {
        "floats": (array, (array / 255).astype(np.float32)),
        "alpha": (array, np.dstack([array, np.full(grey.shape, 255, dtype=np.uint8)])),
        "grey": (np.dstack([grey] * 3), grey),
        "grey 16": (np.dstack([grey] * 3), grey.astype(np.uint16) * 257),
    }
    plain, other = (diffcut_bench.segment(each, "colour", FAST) for each in arrays[kind])
    assert np.array_equal(plain.image, other.image)
    assert np.array_equal(plain.labels, other.labels)


RGB = np.zeros((4, 5, 3))
NO_PICTURES = {
    "beyond 1": (RGB + 255.0, "the floats are 255 to 255, not from 0 to 1"),
    "below 0": (RGB - 0.5, "not from 0 to 1"),
    "not a number": (RGB * np.nan, "not from 0 to 1"),
    "infinite": (RGB + np.inf, "not from 0 to 1"),
    "whole numbers": (RGB.astype(np.int64), "the values are int64"),
    "booleans": (RGB.astype(bool), "the values are bool"),
    "16-bit colours": (RGB.astype(np.uint16), "the values are uint16"),
    "colours first": (np.zeros((3, 4, 5)), "with the colours first"),
    "a batch": (np.zeros((1, 4, 5, 3)), r"the shape is \[1, 4, 5, 3\]"),
    "a line": (np.zeros(5), r"the shape is \[5\]"),
    "words": (np.array([["a"]]), "the values are"),
    "objects": (np.array([[None]]), "the values are object"),
    "a tensor, colours last": (torch.zeros(6, 5, 3), "of a tensor come first"),
    "a tensor beyond 1": (torch.full((3, 4, 5), 2.0), "the floats are 2 to 2"),
    "an address": ("https://example.org/a.jpg", "an address, and no path"),
    "bytes of nothing": (b"", "not a picture that can be read"),
    "bytes of text": (b"a picture", "not a picture that can be read"),
    "None": (None, "of type NoneType"),
    "no rows": (np.zeros((0, 5, 3), dtype=np.uint8), "without pixels"),
    "no columns": (np.zeros((5, 0, 3)), "without pixels"),
    "an empty picture": (Image.new("RGB", (0, 5)), "without pixels"),
    "floats of unknown range": (Image.new("F", (4, 5)), "no picture"),
    "an empty path": ("", "an empty path"),
    "a folder": (".", "a folder, not a picture"),
}


@pytest.mark.parametrize("kind", NO_PICTURES)
def test_what_is_no_picture_is_a_user_error(kind):
    image, what = NO_PICTURES[kind]
    with pytest.raises(UserError) as caught:
        diffcut_bench.segment(image, "colour", FAST)
    assert re.search(what, str(caught.value)), caught.value


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "colour"])
@pytest.mark.parametrize("size", [(1, 1), (300, 200), (40, 3)])
def test_a_picture_of_one_colour_is_one_segment(backbone, size):
    result = diffcut_bench.segment(Image.new("RGB", size, (200, 30, 90)), backbone, FAST)
    assert result.labels.shape == size[::-1]
    assert result.num_segments == 1
    assert result.describe()[0]["mean_rgb"] == [200, 30, 90]


def test_a_picture_of_nearly_one_colour_is_looked_at():
    pixels = np.full((64, 96, 3), 40, dtype=np.uint8)
    pixels[:, 48:] = 220
    assert diffcut_bench.segment(pixels, "colour", "protocol.image_size=256").num_segments == 2


def test_the_home_folder_and_variables_are_expanded(tmp_path, monkeypatch):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert diffcut_bench.segment("~/a.png", "colour", FAST).labels.shape == (30, 40)
    assert diffcut_bench.segment("$HOME/a.png", "colour", FAST).labels.shape == (30, 40)


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


def test_labels_of_large_pictures_are_refined_at_a_bounded_size_and_then_in_tiles(monkeypatch):
    whole = diffcut_bench.segment(skimage.data.coffee(), "efficientnet_lite0", FAST)
    sizes = []

    def refine(image, labels, *settings):
        sizes.append(image.shape[2:])
        return refine_labels(image, labels, *settings)

    monkeypatch.setattr(sys.modules["diffcut_bench.refinement.pamr"], "refine_labels", refine)
    monkeypatch.setattr(segmentation, "segment_images", partial(segment_images, largest=150))
    result = diffcut_bench.segment(skimage.data.coffee(), "efficientnet_lite0", FAST)
    assert sizes[0] == (100, 150) and len(sizes) > 1
    assert result.labels.shape == (400, 600)
    # Enlarged four times: borders run along the picture's pixels, not along blocks.
    changes = np.flatnonzero((np.diff(result.labels, axis=1) != 0).any(axis=0)) + 1
    assert set((changes % 4).tolist()) == {0, 1, 2, 3}
    assert agreement(result.labels, whole.labels) > 0.9


def test_the_code_of_a_namer_from_outside_is_in_the_key():
    class Namer:
        def identity(self):
            return {}

    segmenter = segmentation.PictureSegmenter(load_config(["protocol=strict", "backbone=colour"]))
    assert segmenter.identity()["code"] == {}
    segmenter._namer = Namer()
    assert Namer.__module__ in segmenter.identity()["code"]
