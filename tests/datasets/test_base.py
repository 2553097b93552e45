import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from diffcut_bench.datasets.base import VOID, SegmentationDataset, label_lookup
from diffcut_bench.datasets.records import FileRecords, records_from_files
from diffcut_bench.errors import UserError


def dataset(tmp_path, label: Image.Image, image: Image.Image | None = None) -> SegmentationDataset:
    (image or Image.new("RGB", label.size)).save(tmp_path / "a.png")
    label.save(tmp_path / "a_label.png")
    return SegmentationDataset(
        name="mini",
        records=records_from_files(["a"], [tmp_path / "a.png"], [tmp_path / "a_label.png"]),
        class_names=("one", "two"),
        lookup=label_lookup({1: 0, 2: 1}, void=[255]),
    )


def test_raw_values_become_classes(tmp_path):
    raw = Image.fromarray(np.array([[1, 2, 255]], dtype=np.uint8))
    image, label = dataset(tmp_path, raw).read(0)
    assert image.mode == "RGB"
    assert label.tolist() == [[0, 1, VOID]]


def test_palette_labels_give_their_indices(tmp_path):
    raw = Image.fromarray(np.array([[1, 2, 1]], dtype=np.uint8), mode="L").convert("P")
    raw.putdata([1, 2, 1])
    raw.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    assert dataset(tmp_path, raw).read(0)[1].tolist() == [[0, 1, 0]]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_pngs_of_few_bits_keep_their_raw_values(tmp_path, bits):
    values = np.array([[0, 1, 1, 0, 1]] if bits == 1 else [[0, 1, 2, 3, 1]], dtype=np.uint8)
    rows = b"\0" + np.packbits(np.unpackbits(values.T, axis=1)[:, -bits:].ravel()).tobytes()

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", 5, 1, bits, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    few = dataset(tmp_path, Image.new("L", (5, 1)))
    (tmp_path / "a_label.png").write_bytes(png)
    assert few.raw_label(0).tolist() == values.tolist()


@pytest.mark.parametrize("orientation", [3, 6])
def test_exif_orientation_is_not_followed(tmp_path, orientation):
    pixels = np.zeros((4, 6, 3), dtype=np.uint8)
    pixels[:, :3] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = dataset(tmp_path, Image.new("L", (6, 4), 1))
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(np.asarray(turned.read(0)[0]), pixels)


def test_unknown_value_names_file_value_and_what_is_legal(tmp_path):
    raw = Image.fromarray(np.array([[1, 7, 0]], dtype=np.uint8))
    with pytest.raises(ValueError, match=r"a_label.png: label value \[0, 7\] out of range; mini has 1..2, 255"):
        dataset(tmp_path, raw).read(0)


def test_sixteen_bit_values_are_not_wrapped(tmp_path):
    raw = Image.fromarray(np.array([[1, 257]], dtype=np.uint16))
    with pytest.raises(ValueError, match="257"):
        dataset(tmp_path, raw).read(0)


def test_size_mismatch_names_the_label(tmp_path):
    with pytest.raises(ValueError, match=r"a_label.png: label is 3×1 but its image is 4×1"):
        dataset(tmp_path, Image.new("L", (3, 1), 1), Image.new("RGB", (4, 1))).read(0)


def test_colour_label_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a_label\.png: label is a RGB picture"):
        dataset(tmp_path, Image.new("RGB", (3, 1))).read(0)


def test_damaged_file_is_named(tmp_path):
    broken = dataset(tmp_path, Image.new("L", (30, 30), 1))
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"a.png: can't be decoded"):
        broken.read(0)


def test_missing_files_are_counted_and_the_first_is_named(tmp_path):
    with pytest.raises(UserError, match=r"and 1 more") as caught:
        records_from_files(["a"], [tmp_path / "a.png"], [tmp_path / "b.png"])
    assert caught.value.where == str(tmp_path / "a.png")


def test_records_name_files_that_are_not_read(tmp_path):
    mini = dataset(tmp_path, Image.new("L", (3, 2), 1))
    assert isinstance(mini.records, FileRecords)
    assert mini.records.column_names == ["id", "image", "label"]
    assert mini.records[0]["image"] == {"path": str(tmp_path / "a.png"), "bytes": None}
    assert mini.select(1, seed=3).ids == mini.ids == ["a"]


def test_fingerprint_follows_content_and_meaning(tmp_path):
    first = dataset(tmp_path, Image.new("L", (3, 2), 1)).fingerprint()
    assert dataset(tmp_path, Image.new("L", (3, 2), 1)).fingerprint() == first
    assert dataset(tmp_path, Image.new("L", (3, 2), 2)).fingerprint() != first
    other = dataset(tmp_path, Image.new("L", (3, 2), 1))
    renamed = replace(other, class_names=("one", "three"))
    assert renamed.fingerprint() != first


def test_the_text_of_a_failure_is_the_same_in_every_run(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"no picture at all")
    records = records_from_files(["a"], [path], [path])
    dataset = SegmentationDataset(name="x", records=records, class_names=("c",), lookup=label_lookup({0: 0}))
    with pytest.raises(ValueError, match="no picture format") as failed:
        dataset.read(0)
    assert "0x" not in str(failed.value)
