"""The folder that `diffcut-bench segment` writes: nothing in it is lost, whatever happens."""

import contextlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath

import numpy as np
import pytest
import skimage.data
from PIL import Image

from diffcut_bench.errors import UserError
from diffcut_bench.segmentation import NamedPicture, PictureSegmenter, Segmentation
from diffcut_bench.segmentation import record as record_module
from diffcut_bench.segmentation.formats import FORMATS, Segmented
from diffcut_bench.segmentation.record import SegmentRecord
from diffcut_bench.store import append_line

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


def new_record(tmp_path, tau=0.5):
    return SegmentRecord(tmp_path / "segments", tmp_path, {"segmenter": {"tau": tau}}, {"tau": tau})


@pytest.fixture
def record(tmp_path):
    """An empty record, and pictures to add to it without a network."""
    return new_record(tmp_path)


def add(record, image, result, formats="labels,overlay", simplify=0, relative=None):
    """The entry of a picture that is written with these formats."""
    whole = Segmented(image.name, result, simplify)
    contents = {FORMATS[name]: FORMATS[name].encode(whole) for name in formats.split(",")}
    height, width = result.labels.shape
    described = {"width": width, "height": height, "segments": result.describe()}
    picture = NamedPicture(image, PurePath(relative or image.name))
    return record.add(picture, record.key(image), described, contents, simplify)


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
    plain = PictureSegmenter.try_map

    def interrupted(self, images, batch_size):
        segmented.extend(image.name for image in images)
        if len(segmented) == 2:
            raise KeyboardInterrupt
        return plain(self, images, batch_size)

    monkeypatch.setattr(PictureSegmenter, "try_map", interrupted)
    command = ("segment", pictures / "a.png", pictures / "b.jpg", f"output_dir={tmp_path}", SMALL, "batch_size=1")
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
        add(record, *written(tmp_path / "one", "same.png", 1))["labels"],
        add(record, *written(tmp_path / "two", "same.jpg", 2))["labels"],
        add(record, *written(tmp_path / "one", "SAME.PNG", 3))["labels"],
        add(record, *written(tmp_path / "one", "same.png", 4))["labels"],  # another content: a camera's card, say
        add(record, *written(tmp_path / "one", "same.png", 1))["labels"],  # the first again
    ]
    assert [name.removesuffix("_labels.png") for name in names] == ["same", "same-2", "SAME-3", "same-4", "same"]
    record.close()
    shades = [np.asarray(Image.open(tmp_path / "segments" / each["overlay"])) for each in read(tmp_path)["images"]]
    assert len(shades) == 4
    (tmp_path / "segments" / "lone_labels.png").write_bytes(b"of a record that was lost")
    assert add(record, *written(tmp_path, "lone.png"))["labels"] == "lone-2_labels.png"


def test_a_name_that_is_not_unicode_is_segmented_once(record, tmp_path):
    image, result = written(tmp_path, os.fsdecode(b"a\xff.png"))
    add(record, image, result)
    again = new_record(tmp_path)
    assert again.find(image)["labels"] == os.fsdecode(b"a\xff_labels.png")


FILES = "labels,overlay,masks"


@pytest.mark.parametrize("killed_at", range(1, 8))
@pytest.mark.parametrize("before", [None, 0.5, 0.6], ids=["new", "same settings", "other settings"])
def test_a_kill_anywhere_leaves_no_file_of_other_segments(killed_at, before, tmp_path, monkeypatch):
    """Killed at each write of a picture: what is found afterwards is whole, and so is what the next call makes."""
    image, result = written(tmp_path, "a.png")
    other = Segmentation(result.image, np.arange(24).reshape(4, 6) // 12)
    if before is not None:
        add(new_record(tmp_path, before), image, other, FILES)
    done = 0

    def deadly(step):
        def killed(*arguments):
            nonlocal done
            done += 1
            if done == killed_at:
                raise KeyboardInterrupt
            step(*arguments)

        return killed

    with monkeypatch.context() as patch:
        for name in ("append_line", "write_content", "remove_written"):
            patch.setattr(record_module, name, deadly(getattr(record_module, name)))
        with contextlib.suppress(KeyboardInterrupt):
            add(new_record(tmp_path), image, result, "labels,masks")
    again = new_record(tmp_path)
    entry = again.find(image)
    if entry is not None:
        assert_whole(again, entry, other if before == 0.5 and len(entry["segments"]) == 2 else result)
    assert add(again, image, result)["labels"] == "a_labels.png"
    assert_whole(again, again.find(image), result)
    again.close()
    named = {file for each in read(tmp_path)["images"] for file in again.files(each).values()}
    others = {again.folder / name for name in ("segments.json", ".segments.lock")}
    assert set(again.folder.iterdir()) == named | others


def assert_whole(record, entry, result):
    """All files of an entry are of these segments."""
    files = record.files(entry)
    assert np.array_equal(np.asarray(Image.open(files["labels"])), result.labels)
    if "overlay" in files:
        assert np.array_equal(np.asarray(Image.open(files["overlay"])), np.asarray(result.overlay()))
    if "masks" in files:
        assert len(list(files["masks"].iterdir())) == result.num_segments
    assert len(entry["segments"]) == result.num_segments


def test_an_entry_lacks_what_it_was_not_asked_for_and_what_is_gone(record, tmp_path):
    image, result = written(tmp_path, "a.png")
    overlay, svg, masks = (FORMATS[name] for name in ("overlay", "svg", "masks"))
    assert "overlay" not in add(record, image, result, "labels")
    entry = record.find(image)
    assert record.missing(entry, [overlay, svg]) == [overlay, svg]
    pytest.importorskip("shapely", reason="writes SVG")
    assert add(record, image, result, "labels,svg")["formats"] == {"svg": {"path": "a.svg", "simplify": 0}}
    assert record.missing(record.find(image), [svg]) == []
    assert record.missing(record.find(image), [svg], simplify=2) == [svg]
    assert set(add(record, image, result, "labels,masks")["formats"]) == {"svg", "masks"}, "of the same segments"
    (tmp_path / "segments" / "a.svg").unlink()
    assert record.missing(record.find(image), [svg, masks]) == [svg]
    add(record, image, result, "labels,svg")
    assert "masks" not in add(new_record(tmp_path, 0.6), image, result, "labels,svg")["formats"]
    assert not (tmp_path / "segments" / "a_masks").exists(), "the masks were of other settings"


def test_the_journal_is_read_as_it_grows_and_goes_at_the_end(record, tmp_path, monkeypatch):
    other = new_record(tmp_path)
    image, result = written(tmp_path, "a.png")
    add(record, image, result)
    assert other.find(image) is not None
    journal = record.folder / "segments.jsonl"
    with journal.open("ab") as file:
        file.write(b'\n{"entry": {"image"')  # a kill within a line
    second, _ = written(tmp_path, "b.png", 1)
    add(other, second, result)
    assert record.find(second) is not None
    record.close()
    assert not journal.exists()
    assert other.find(image) is not None
    third, _ = written(tmp_path, "c.png", 2)
    add(other, third, result)
    assert {each for each in (image, second, third) if record.find(each)} == {image, second, third}
    kept = journal.read_bytes()
    other.close()
    journal.write_bytes(kept)  # a kill between segments.json and the end of the journal
    again = new_record(tmp_path)
    again.close()
    assert set(entries(tmp_path)) == {"a.png", "b.png", "c.png"}
    assert len(read(tmp_path)["images"]) == 3


def test_the_journal_is_not_read_again_for_each_picture(record, tmp_path, monkeypatch):
    read_bytes = []
    plain = record_module._content_from
    monkeypatch.setattr(
        record_module, "_content_from", lambda *place: read_bytes.append(len(plain(*place))) or plain(*place)
    )
    for value in range(40):
        add(record, *written(tmp_path, f"{value}.png", value))
    size = (record.folder / "segments.jsonl").stat().st_size
    assert sum(read_bytes) < 2 * size


def test_a_damaged_line_of_the_journal_costs_its_picture_only(record, tmp_path):
    paths = [written(tmp_path, f"{value}.png", value) for value in range(3)]
    for path, result in paths:
        add(record, path, result)
    journal = record.folder / "segments.jsonl"
    lines = journal.read_bytes().split(b"\n")
    place = next(i for i, line in enumerate(lines) if b'"entry": {' in line and b"1_labels" in line)
    lines[place] = lines[place].replace(b'"width": 6', b'"width": 7')
    journal.write_bytes(b"\n".join(lines))
    again = new_record(tmp_path)
    assert [again.find(path) is not None for path, _ in paths] == [True, False, True]
    assert add(again, *paths[1])["labels"] == "1_labels.png"


@pytest.mark.parametrize("path", ["../dear.png", "{tmp}/dear_labels.png", "link/dear_labels.png", "dear.png", "link"])
def test_a_journal_of_others_removes_no_file_of_others(path, record, tmp_path):
    kept = [
        tmp_path / "dear.png",
        tmp_path / "dear_labels.png",
        tmp_path / "dear" / "007.png",
        record.folder / "dear.png",
    ]
    kept.append(tmp_path / "dear" / "dear_labels.png")
    for each in kept:
        each.parent.mkdir(exist_ok=True)
        each.write_bytes(b"dear")
    (record.folder / "link").symlink_to(tmp_path / "dear")
    line = {"begin": ["a", "b"], "entry": None, "files": [path.format(tmp=tmp_path)]}
    append_line(record.folder / "segments.jsonl", line, "segments")
    with contextlib.suppress(UserError):
        add(new_record(tmp_path), *written(tmp_path, "a.png"))
    assert all(each.read_bytes() == b"dear" for each in kept)


@pytest.mark.parametrize(
    "line",
    [
        {"entry": {"image": 1}},
        {"entry": [1]},
        {"entry": {"image": "a", "sha256": "b", "settings": "s", "labels": "../a_labels.png", "segments": []}},
        {"begin": 3, "files": [], "entry": None},
        {"begin": ["a", "b"]},
        {"begin": ["a", "b"], "files": [4], "entry": None},
        {"begin": ["a", "b"], "files": ["a\0_labels.png"], "entry": None},
        {"config": 1},
    ],
)
def test_a_line_of_others_is_passed_over(line, record, tmp_path):
    record.folder.mkdir()
    append_line(record.folder / "segments.jsonl", line, "segments")
    add(new_record(tmp_path), *written(tmp_path, "a.png"))
    record.close()
    assert set(entries(tmp_path)) == {"a.png"}


def test_a_killed_writer_leaves_nothing(record, tmp_path):
    image, result = written(tmp_path, "a.png")
    add(record, image, result, "labels,masks")
    line = {"begin": list(record.key(image)), "entry": None, "files": ["a_labels.png", "a_masks"]}
    append_line(record.folder / "segments.jsonl", line, "segments")
    for left in (".a_labels.png.0123.partial", "a_masks/.000.png.0123.partial", ".segments.json.0123.partial"):
        (record.folder / left).write_bytes(b"")
    again = new_record(tmp_path)
    add(again, image, result)
    again.close()
    wanted = {"a_labels.png", "a_overlay.png", "segments.json", ".segments.lock"}
    assert {each.name for each in record.folder.iterdir()} == wanted


def test_a_name_that_is_too_long_for_suffixes_is_cut(record, tmp_path):
    folder = tmp_path / "in"
    labels = [add(record, *written(folder, f"{'n' * 240}{value}.png", value))["labels"] for value in range(2)]
    assert len(set(labels)) == 2
    assert all((record.folder / each).is_file() for each in labels)


def test_a_further_format_is_not_written_over_a_file_of_the_user(record, tmp_path):
    image, result = written(tmp_path, "a.png")
    add(record, image, result)
    (record.folder / "a.svg").write_text("mine")
    entry = add(record, image, result, "labels,svg")
    assert (record.folder / "a.svg").read_text() == "mine"
    assert (entry["labels"], entry["formats"]["svg"]["path"]) == ("a_labels.png", "a-2.svg")
    entry = add(record, image, result, "labels,svg")
    assert (record.folder / entry["formats"]["svg"]["path"]).is_file()
    assert len(list(record.folder.glob("*.svg"))) == 2


def test_names_are_those_of_the_folders_and_taken_ones_are_left_alone(record, tmp_path):
    image, result = written(tmp_path / "in" / "sub", "a.png")
    assert add(record, image, result, relative="sub/a.png")["labels"] == "sub/a_labels.png"
    assert (record.folder / "sub" / "a_overlay.png").is_file()
    other, _ = written(tmp_path / "in 2" / "sub", "a.png", 1)
    assert add(record, other, result, relative="sub/a.png")["labels"] == "sub/a-2_labels.png"
    (record.folder / "own.svg").write_text("of the user")
    own, _ = written(tmp_path, "own.png", 2)
    assert add(record, own, result)["labels"] == "own-2_labels.png"
    whole, _ = written(tmp_path, "segments.png", 3)
    assert add(record, whole, result)["labels"] == "segments-2_labels.png", "segments_coco.json is of all"
    record.close()
    assert {each["file_name"] for each in read(tmp_path)["images"]} == {"sub/a.png", "own.png", "segments.png"}


def test_several_at_once_lose_nothing(tmp_path):
    def work(worker):
        own = new_record(tmp_path, worker)
        return [add(own, *written(tmp_path / f"{worker}", f"{number}.png", worker)) for number in range(6)]

    with ThreadPoolExecutor(4) as pool:
        added = [entry for own in pool.map(work, range(4)) for entry in own]
    new_record(tmp_path).close()
    stored = read(tmp_path)["images"]
    assert sorted(each["labels"] for each in stored) == sorted(each["labels"] for each in added)
    assert len({each["labels"] for each in stored}) == 24
    assert all((tmp_path / "segments" / each[kind]).is_file() for each in stored for kind in ("labels", "overlay"))
    assert len(read(tmp_path)["configs"]) == 4


NO_RECORDS = ["", "{", "null", "5", "[]", "{}", '{"images": []}', '{"schema_version": 4, "images": []}', "\x00"]


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
        SegmentRecord(path.parent, tmp_path, {}, {})
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
    assert add(record, image, result)["labels"] == "a_labels.png"
    record.close()
    stored = read(tmp_path)
    assert stored["schema_version"] == 3
    assert [each["labels"] for each in stored["images"]] == ["b_labels.png", "a_labels.png"]
    assert stored["configs"]["version 1"] == {"seed": 1}


def test_a_record_of_version_2_is_continued(record, tmp_path):
    image, result = written(tmp_path, "a.png")
    add(record, image, result, FILES)
    record.close()
    stored = read(tmp_path)
    stored["schema_version"] = 2
    for entry in stored["images"]:
        del entry["file_name"]
    record.path.write_text(json.dumps(stored))
    again = new_record(tmp_path)
    entry = again.find(image)
    assert entry["labels"] == "a_labels.png"
    assert again.missing(entry, [FORMATS["overlay"], FORMATS["masks"]]) == []
    add(again, *written(tmp_path, "b.png", 1))
    again.close()
    assert read(tmp_path)["schema_version"] == 3
    assert set(entries(tmp_path)) == {"a.png", "b.png"}


def test_a_folder_that_can_not_be_written_is_a_user_error(tmp_path, cli, pictures):
    (tmp_path / "file").write_text("")
    done = cli("segment", pictures / "a.png", f"output_dir={tmp_path / 'file'}", SMALL)
    assert done.code == 2
    assert "can't write" in done.err
    assert len(done.err.strip().splitlines()) == 3


def test_pictures_are_recorded_without_the_users_name(tmp_path, monkeypatch):
    record = SegmentRecord(tmp_path / "out" / "segments", tmp_path / "out", {}, {})
    monkeypatch.setenv("HOME", str(tmp_path / "alice"))
    image, result = written(tmp_path / "alice" / "photos", "a.png")
    assert add(record, image, result)["image"] == "~/photos/a.png"
    assert record.find(image) is not None
