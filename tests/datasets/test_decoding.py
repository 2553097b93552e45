import hashlib
import io
import json
import pickle
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from diffcut_bench.config import RunConfig, load_config
from diffcut_bench.datasets import folder
from diffcut_bench.datasets.decoding import MAX_PIXELS, decode, decode_rgb, to_rgb
from diffcut_bench.scoring.passes import open_dataset


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def deep(*values: int) -> Image.Image:
    return Image.fromarray(np.array([values], dtype=np.uint16))


def first_channel(data: bytes) -> list[int]:
    return np.asarray(decode_rgb(data, "x"))[0, :, 0].tolist()


def with_significant_bits(png: bytes, bits: int) -> bytes:
    """The same PNG with an sBIT chunk after its header."""
    body = b"sBIT" + bytes([bits])
    return png[:33] + struct.pack(">I", 1) + body + struct.pack(">I", zlib.crc32(body)) + png[33:]


def blank_png(width: int, height: int) -> bytes:
    return encoded(Image.new("1", (width, height)))


# --- depth


def test_grey_of_sixteen_bits_is_scaled_by_its_depth_and_not_by_what_is_in_it():
    values = [0, 106, 255, 256, 285, 4095, 32768, 65535]
    together = first_channel(encoded(deep(*values)))
    assert together == [0, 0, 0, 0, 1, 15, 127, 255]
    assert [first_channel(encoded(deep(value)))[0] for value in values] == together


def test_tiff_says_how_many_bits_it_has():
    data = bytearray(encoded(deep(0, 2048, 4095, 1000), "TIFF"))
    assert first_channel(bytes(data)) == [0, 7, 15, 3]
    # Rewritten to 12 bits, packed: two values in three bytes.
    entry = struct.pack("<HHI", 258, 3, 1)
    data[data.index(entry) + len(entry)] = 12
    old = np.array([0, 2048, 4095, 1000], dtype="<u2").tobytes()
    data[data.index(old) : data.index(old) + 6] = bytes([0x00, 0x08, 0x00, 0xFF, 0xF3, 0xE8])
    assert first_channel(bytes(data)) == [0, 128, 255, 62]


def test_png_of_twelve_significant_bits_is_right_whether_its_writer_scaled_it_or_not():
    unscaled = np.array([0, 17, 2048, 4095])
    as_they_were = with_significant_bits(encoded(deep(*unscaled)), 12)
    repeated = with_significant_bits(encoded(deep(*(unscaled << 4 | unscaled >> 8))), 12)
    shifted = with_significant_bits(encoded(deep(*(unscaled << 4))), 12)
    for data in (as_they_were, repeated, shifted):
        assert first_channel(data) == pytest.approx([0, 1, 127, 255], abs=1)
    dark = np.array([3, 200])  # a dark picture that was scaled stays dark
    assert first_channel(with_significant_bits(encoded(deep(*(dark << 4 | dark >> 8))), 12)) == [0, 12]


def test_integers_of_32_bits_are_grey_of_16_or_refused():
    assert first_channel(encoded(Image.fromarray(np.array([[0, 65535]], dtype=np.int32)), "TIFF")) == [0, 255]
    with pytest.raises(ValueError, match=r"x: values 0..70000 are no grey of 0..65535"):
        first_channel(encoded(Image.fromarray(np.array([[0, 70000]], dtype=np.int32)), "TIFF"))


def test_floating_point_is_refused_by_the_file_s_name():
    with pytest.raises(ValueError, match=r"a\.tif: a floating-point picture"):
        decode_rgb(encoded(Image.new("F", (2, 2)), "TIFF"), "a.tif")


# --- transparency


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_is_laid_on_white(mode):
    black = (0, 0, 0) if mode == "RGBA" else (0,)
    picture = Image.new(mode, (3, 1))
    picture.putdata([(*black, 0), (*black, 255), (*black, 102)])
    assert first_channel(encoded(picture)) == [255, 0, 153]


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_transparent_colour_is_white(mode):
    picture = Image.new("L", (2, 1))
    picture.putdata([0, 9])
    black = (0, 0, 0) if mode == "RGB" else 0
    assert first_channel(encoded(picture.convert(mode), transparency=black)) == [255, 9]


def test_a_transparent_colour_of_sixteen_bits_is_white():
    assert first_channel(encoded(deep(500, 65535 // 2), transparency=500)) == [255, 127]


def test_palette_with_alpha():
    assert np.asarray(to_rgb(Image.new("PA", (1, 1), (0, 0)))).tolist() == [[[255, 255, 255]]]


# --- nothing changes for anything else


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "CMYK"])
def test_other_pictures_are_as_pillow_converts_them(mode):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 7, 3), dtype=np.uint8))
    data = encoded(noise.convert(mode), "TIFF" if mode == "CMYK" else "PNG")
    expected = Image.open(io.BytesIO(data)).convert("RGB")
    assert np.array_equal(np.asarray(decode_rgb(data, "x")), np.asarray(expected))


def test_an_opaque_alpha_channel_changes_no_colour():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 7, 3), dtype=np.uint8))
    opaque = encoded(noise.convert("RGBA"))
    assert np.array_equal(np.asarray(decode_rgb(opaque, "x")), np.asarray(noise))


def test_features_and_fingerprint_of_plain_pictures_are_known_by_their_bytes_alone(tmp_path):
    root = tmp_path / "d"
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    grey = Image.new("L", (4, 3), 100)
    for name, data in {
        "plain": encoded(grey),
        "alpha": encoded(grey.convert("LA")),
        "deep": encoded(Image.new("I;16", (4, 3), 100)),
    }.items():
        (root / "images" / f"{name}.png").write_bytes(data)
        Image.new("L", (4, 3)).save(root / "labels" / f"{name}.png")
    data = folder(str(root), num_classes=1)
    same = [
        data.image_digest(i) == hashlib.sha256((root / "images" / f"{image_id}.png").read_bytes()).hexdigest()
        for i, image_id in enumerate(data.ids)
    ]
    assert dict(zip(data.ids, same, strict=True)) == {"alpha": False, "deep": False, "plain": True}


# --- size


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_larger_picture_is_refused_before_it_is_decoded():
    bomb = blank_png(13000, 13000)
    assert len(bomb) < 30_000
    with pytest.raises(ValueError, match=r"13000×13000 pixels are more than max_pixels=64000000; max_pixels=169000000"):
        decode(bomb, "x")


def test_the_limit_is_the_asked_for_one_and_no_other():
    data = blank_png(30, 20)
    assert decode(data, "x", 600).size == (30, 20)
    with pytest.raises(ValueError, match=r"x: 30×20 pixels are more than max_pixels=599"):
        decode(data, "x", 599)


def test_beyond_pillow_s_own_limit_the_option_is_named_too(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    with pytest.raises(ValueError, match="larger than max_pixels=100"):
        decode(blank_png(30, 20), "x", 100)
    assert decode(blank_png(30, 20), "x", 600).size == (30, 20)


def test_the_limit_goes_with_the_data_set_into_other_processes(shapes):
    data = pickle.loads(pickle.dumps(replace(folder(str(shapes), num_classes=3), max_pixels=100)))
    with pytest.raises(ValueError, match="more than max_pixels=100"):
        data.read(0)


def test_the_limit_reaches_the_reader_and_no_key(shapes, cli, tmp_path):
    options = ["dataset=folder", f"dataset.root={shapes}", "dataset.num_classes=3", "backbone=colour", "refiner=none"]
    options += ["segmenter=one_segment", f"output_dir={tmp_path / 'out'}"]
    small = [*options, f"max_pixels={150 * 140}"]  # pictures are 150, 160 and 170 wide
    assert cli("run", *small).code == 0
    (result,) = (json.loads(path.read_text()) for path in tmp_path.glob("out/results/*/result.json"))
    assert len(result["failures"]) == 5
    assert "160×140 pixels are more than max_pixels=21000" in result["failures"][0]["error"]
    assert "max_pixels" not in json.dumps(result["identity"])
    assert cli("run", *options, "if_exists=resume").code == 0
    (again,) = (json.loads(path.read_text()) for path in tmp_path.glob("out/results/*/result.json"))
    assert (again["key"], again["failures"]) == (result["key"], [])


def test_one_default_and_no_picture_of_no_pixel(shapes):
    assert RunConfig.__dataclass_fields__["max_pixels"].default == MAX_PIXELS == load_config([]).max_pixels
    config = load_config(["dataset=folder", f"dataset.root={shapes}", "dataset.num_classes=3", "max_pixels=7"])
    assert open_dataset(config).max_pixels == 7
    assert config.problems() == []
    config.max_pixels = 0
    assert config.problems() == ["max_pixels must be at least 1, not 0"]


def test_segment_says_and_takes_the_limit(cli, tmp_path):
    (tmp_path / "a.png").write_bytes(blank_png(40, 30))
    options = ["backbone=colour", "refiner=none", f"output_dir={tmp_path / 'out'}"]
    refused = cli("segment", tmp_path / "a.png", *options, "max_pixels=1000")
    assert refused.code == 2
    assert "40×30 pixels are more than max_pixels=1000" in refused.err


def test_a_picture_that_is_a_program_is_not_run():
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, format="EPS")
    with pytest.raises(ValueError, match="EPS is a program"):
        decode(buffer.getvalue(), "x.eps")
