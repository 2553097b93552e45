"""The folder that `diffcut-bench segment` writes: nothing in it is lost, whatever happens."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from diffcut_bench.errors import UserError
from diffcut_bench.segmentation import PictureSegmenter, Segmentation
from diffcut_bench.segmentation.record import SegmentRecord

SMALL = "protocol.image_size=128"


@pytest.fixture
def pictures(tmp_path):
    """Two photographs, a picture of one colour, a format that Pillow gives up on, and things that are no pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(skimage.data.coffee()[::4, ::4]).save(folder / "a.png")
    Image.fromarray(skimage.data.chelsea()[::4, ::4]).save(folder / "b.jpg")
    Image.new("RGB", (90, 60), (10, 20, 30)).save(folder / "plain.png")
    header = bytearray(192)
    header[:8], header[8:20] = b"DDS \x7c\0\0\0", b"\x07\x10\0\0\x40\0\0\0\x40\0\0\0"
    header[76:88] = b"\x20\0\0\0\x04\0\0\0XXXX"
    (folder / "odd.dds").write_bytes(header)
    (folder / ".hidden.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def record(tmp_path):
    """An empty record, and pictures to add to it without a network."""
    return SegmentRecord(tmp_path / "segments", {"segmenter": {"tau": 0.5}}, {"tau": 0.5})


def entries(output_dir):
    return {Path(each["image"]).name: each for each in read(output_dir)["images"]}


def read(output_dir):
    return json.loads((output_dir / "segments" / "segments.json").read_text())


def written(folder, name, value=0):
    """A file with content of its own, and segments of it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(bytes([value]))
    return folder / name, Segmentation(np.full((4, 6, 3), value, dtype=np.uint8), np.zeros((4, 6), dtype=np.int64))


def test_a_folder_is_all_its_pictures_and_a_bad_one_is_named(cli, pictures, tmp_path):
    done = cli("segment", pictures, f"output_dir={tmp_path}", SMALL)
    assert done.code == 2
    assert "odd.dds" in done.err
    assert len(done.err.strip().splitlines()) == 3
    assert set(entries(tmp_path)) == {"a.png", "b.jpg", "plain.png"}
    empty = tmp_path / "empty"
    empty.mkdir()
    none = cli("segment", empty, f"output_dir={tmp_path}")
    assert none.code == 2
    assert "no picture in this folder" in none.err


def test_the_same_command_goes_on_where_it_was(cli, pictures, tmp_path, monkeypatch):
    segmented = []
    plain = PictureSegmenter.__call__

    def interrupted(self, image):
        segmented.append(image.name)
        if len(segmented) == 2:
            raise KeyboardInterrupt
        return plain(self, image)

    monkeypatch.setattr(PictureSegmenter, "__call__", interrupted)
    command = ("segment", pictures / "a.png", pictures / "b.jpg", f"output_dir={tmp_path}", SMALL)
    assert cli(*command).code == 130
    assert set(entries(tmp_path)) == {"a.png"}
    before = (tmp_path / "segments" / "a_labels.png").stat().st_mtime_ns
    done = cli(*command)
    assert done.code == 0
    assert "a_overlay.png, segmented before" in done.out
    assert segmented == ["a.png", "b.jpg", "b.jpg"]
    assert (tmp_path / "segments" / "a_labels.png").stat().st_mtime_ns == before
    assert set(entries(tmp_path)) == {"a.png", "b.jpg"}


def test_other_settings_and_lost_pictures_are_segmented_again_under_their_name(cli, pictures, tmp_path):
    command = ("segment", pictures / "a.png", f"output_dir={tmp_path}", SMALL)
    cli(*command)
    first = entries(tmp_path)["a.png"]
    other = cli(*command, "segmenter.tau=0.9")
    assert "segmented before" not in other.out
    second = entries(tmp_path)["a.png"]
    assert second["labels"] == first["labels"] == "a_labels.png"
    assert second["settings"] != first["settings"]
    (config,) = read(tmp_path)["configs"].values()
    assert config["segmenter"]["tau"] == 0.9
    assert "segmented before" in cli(*command, "segmenter.tau=0.9", "batch_size=8").out
    (tmp_path / "segments" / "a_overlay.png").unlink()
    assert "segmented before" not in cli(*command, "segmenter.tau=0.9").out
    assert "segmented before" not in cli(*command, "segmenter.tau=0.9", "if_exists=overwrite").out
    assert len(read(tmp_path)["images"]) == 1


def test_no_picture_of_an_earlier_call_is_written_over(record, tmp_path):
    names = [
        record.add(*written(tmp_path / "one", "same.png", 1))["labels"],
        record.add(*written(tmp_path / "two", "same.jpg", 2))["labels"],
        record.add(*written(tmp_path / "one", "SAME.PNG", 3))["labels"],
        record.add(*written(tmp_path / "one", "same.png", 4))["labels"],  # another content: a camera's card, say
        record.add(*written(tmp_path / "one", "same.png", 1))["labels"],  # the first again
    ]
    assert [name.removesuffix("_labels.png") for name in names] == ["same", "same-2", "SAME-3", "same-4", "same"]
    shades = [np.asarray(Image.open(tmp_path / "segments" / each["overlay"])) for each in read(tmp_path)["images"]]
    assert len(shades) == 4
    (tmp_path / "segments" / "lone_labels.png").write_bytes(b"of a record that was lost")
    assert record.add(*written(tmp_path, "lone.png"))["labels"] == "lone-2_labels.png"


def test_a_name_that_is_not_unicode_is_segmented_once(record, tmp_path):
    image, result = written(tmp_path, os.fsdecode(b"a\xff.png"))
    record.add(image, result)
    again = SegmentRecord(tmp_path / "segments", {"segmenter": {"tau": 0.5}}, {"tau": 0.5})
    assert again.find(image)["labels"] == os.fsdecode(b"a\xff_labels.png")


def test_a_kill_between_pictures_and_entry_costs_no_name(record, tmp_path, monkeypatch):
    image, result = written(tmp_path, "a.png")

    def killed(self, labels_path, overlay_path):
        labels_path.write_bytes(b"half of it")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Segmentation, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            record.add(image, result)
    assert record.find(image) is None
    assert record.add(image, result)["labels"] == "a_labels.png"
    with monkeypatch.context() as patch:  # the same where it replaces an entry
        patch.setattr(Segmentation, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            record.add(image, result)
    assert record.find(image) is None
    assert record.add(image, result)["labels"] == "a_labels.png"
    assert record.find(image) is not None
    assert not (tmp_path / "segments" / ".unfinished").exists()


def test_several_at_once_lose_nothing(tmp_path):
    def work(worker):
        own = SegmentRecord(tmp_path / "segments", {"worker": worker}, {"worker": worker})
        return [own.add(*written(tmp_path / f"{worker}", f"{number}.png", worker)) for number in range(6)]

    with ThreadPoolExecutor(4) as pool:
        added = [entry for own in pool.map(work, range(4)) for entry in own]
    stored = read(tmp_path)["images"]
    assert sorted(each["labels"] for each in stored) == sorted(each["labels"] for each in added)
    assert len({each["labels"] for each in stored}) == 24
    assert all((tmp_path / "segments" / each[kind]).is_file() for each in stored for kind in ("labels", "overlay"))
    assert len(read(tmp_path)["configs"]) == 4


NO_RECORDS = ["", "{", "null", "5", "[]", "{}", '{"images": []}', '{"schema_version": 3, "images": []}', "\x00"]


@pytest.mark.parametrize(
    "text",
    [
        *NO_RECORDS,
        '{"schema_version": 2, "configs": {}, "images": [5]}',
        '{"schema_version": 2, "configs": {}, "images": [{"image": "a"}]}',
        '{"schema_version": 2, "configs": [], "images": []}',
        '{"schema_version": 1, "images": [{"image": "a", "labels": "../a", "overlay": "b", "segments": []}]}',
        '{"schema_version": 1, "images": [{"image": "a", "labels": "a", "overlay": "/b", "segments": []}]}',
        '{"schema_version": 1, "images": [{"image": "a", "labels": "a", "overlay": "b", "segments": [1]}]}',
        '{"schema_version": 1, "images": [{"image": "a", "labels": "a", "overlay": "b", "segments": [], '
        '"formats": {"svg": {"path": "../c"}}}]}',
    ],
)
def test_a_damaged_or_foreign_record_is_left_alone(text, tmp_path, cli):
    path = tmp_path / "segments" / "segments.json"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(UserError, match="damaged, or not written by this command") as caught:
        SegmentRecord(path.parent, {}, {})
    assert caught.value.where == str(path)
    assert path.read_text() == text


def test_the_command_says_so_before_any_work(tmp_path, cli, pictures):
    (tmp_path / "segments").mkdir()
    (tmp_path / "segments" / "segments.json").write_text("[]")
    done = cli("segment", pictures / "a.png", f"output_dir={tmp_path}", SMALL)
    assert done.code == 2
    assert len(done.err.strip().splitlines()) == 3
    assert not list((tmp_path / "segments").glob("*.png"))


def test_a_record_of_version_1_is_continued(record, tmp_path):
    image, result = written(tmp_path, "a.png")
    other = str(tmp_path / "b.png")
    old = [
        {"image": str(path), "width": 6, "height": 4, "labels": labels, "overlay": "x_overlay.png", "segments": []}
        for path, labels in ((image, "a_labels.png"), (other, "b_labels.png"))
    ]
    record.folder.mkdir()
    record.path.write_text(json.dumps({"schema_version": 1, "config": {"seed": 1}, "images": old}))
    assert record.find(image) is None, "its content is not known"
    assert record.add(image, result)["labels"] == "a_labels.png"
    stored = read(tmp_path)
    assert stored["schema_version"] == 2
    assert [each["labels"] for each in stored["images"]] == ["b_labels.png", "a_labels.png"]
    assert stored["configs"]["version 1"] == {"seed": 1}


def test_a_folder_that_can_not_be_written_is_a_user_error(tmp_path, cli, pictures):
    (tmp_path / "file").write_text("")
    done = cli("segment", pictures / "a.png", f"output_dir={tmp_path / 'file'}", SMALL)
    assert done.code == 2
    assert "can't write" in done.err
    assert len(done.err.strip().splitlines()) == 3


def test_pictures_are_recorded_without_the_users_name(tmp_path, monkeypatch):
    record = SegmentRecord(tmp_path / "out" / "segments", {}, {})
    monkeypatch.setenv("HOME", str(tmp_path / "alice"))
    image, result = written(tmp_path / "alice" / "photos", "a.png")
    assert record.add(image, result)["image"] == "~/photos/a.png"
    assert record.find(image) is not None
