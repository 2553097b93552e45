"""`diffcut-bench segment` over many pictures."""

import contextlib
import io
import json
import os
import signal
import sys
import threading
from pathlib import Path

import killing
import numpy as np
import pytest
import skimage.data
from PIL import Image

from diffcut_bench.commands import segment as segment_command
from diffcut_bench.commands.terminal import console
from diffcut_bench.segmentation import PictureSegmenter, SegmentRecord, named_pictures

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
FAST = ("backbone=colour", "protocol.image_size=128", "refiner=none")


@pytest.fixture
def photos(tmp_path):
    """Three photographs in folders."""
    pictures = {"a.png": skimage.data.coffee(), "sub/a.png": skimage.data.chelsea(), "sub/b.jpg": skimage.data.rocket()}
    for name, pixels in pictures.items():
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[::6, ::6]).save(tmp_path / "photos" / name)
    return tmp_path / "photos"


@pytest.fixture
def segmented(monkeypatch):
    """Names of the pictures that went through a network, as they do."""
    names = []
    plain = PictureSegmenter.try_map

    def counted(self, images, batch_size=1):
        images = list(images)
        names.extend(Path(image).name for image in images)
        return plain(self, images, batch_size)

    monkeypatch.setattr(PictureSegmenter, "try_map", counted)
    return names


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def recorded(folder):
    return json.loads((folder / "segments.json").read_text())["images"]


def test_everything_goes_below_the_folder_at_its_place(cli, photos, tmp_path, segmented):
    out = tmp_path / "out"
    done = cli("segment", photos, "-r", "-o", out, *FAST)
    assert done.code == 0, done.err
    names = {f"{name}_{kind}.png" for name in ("a", "sub/a", "sub/b") for kind in ("labels", "overlay")}
    assert files(out) == {*names, "segments.json", ".segments.lock"}
    assert {each["file_name"]: each["labels"] for each in recorded(out)} == {
        "a.png": "a_labels.png",
        "sub/a.png": "sub/a_labels.png",
        "sub/b.jpg": "sub/b_labels.png",
    }
    again = cli("segment", f"{photos}/**/*.png", photos / "sub" / "b.jpg", "--output", out, *FAST)
    assert again.out.count("segmented before") == 3
    assert len(segmented) == 3


def test_the_folder_of_the_pictures_may_be_that_of_the_segments(cli, photos, segmented):
    for _ in range(2):
        done = cli("segment", photos, "--recursive", "-o", photos, *FAST)
        assert done.code == 0, done.err
    assert sorted(segmented) == ["a.png", "a.png", "b.jpg"], "no label picture is segmented"
    assert (photos / "sub" / "a_labels.png").is_file()


def test_segments_are_passed_over_and_pictures_beside_them_are_not(cli, photos, tmp_path, segmented):
    assert cli("segment", photos / "sub", "-o", photos / "sub", *FAST, "--format", "overlay,masks").code == 0
    for named, wanted in ((photos, 3), (photos / "sub", 2), (f"{photos}/sub/*", 2)):
        out = tmp_path / f"out{len(segmented)}"
        assert cli("segment", named, "-r", "-o", out, *FAST).code == 0
        assert len(recorded(out)) == wanted


def test_a_list_comes_from_standard_input(cli, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, text in enumerate([b"photos/a.png\nphotos/sub/b.jpg\n", b"photos/a.png\0photos/sub/b.jpg\0"]):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        assert cli("segment", "-", "-o", f"out{number}", *FAST).code == 0
        assert {each["labels"] for each in recorded(tmp_path / f"out{number}")} == {
            "photos/a_labels.png",
            "photos/sub/b_labels.png",
        }
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    empty = cli("segment", "-", "-o", "out", *FAST)
    assert empty.code == 2
    assert "an empty list" in empty.err


def test_shards_are_disjoint_and_together_are_the_whole(cli, photos, tmp_path, segmented):
    pytest.importorskip("pycocotools", reason="writes COCO")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    command = ("segment", photos, "-r", *FAST, "--format", "labels,coco", "batch_size=2")
    assert cli(*command, "-o", whole).code == 0
    segmented.clear()
    for shard in ("2/2", "1/2"):
        assert cli(*command, "-o", parts, f"shard={shard}").code == 0
    assert sorted(segmented) == ["a.png", "a.png", "b.jpg"]
    assert files(parts) == files(whole)
    for name in files(whole) - {"segments.json"}:
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name


def test_one_coco_file_is_of_all_pictures(cli, photos, tmp_path):
    coco = pytest.importorskip("pycocotools.coco", reason="reads COCO").COCO
    out = tmp_path / "out"
    assert cli("segment", photos, "-o", out, *FAST, "--format", "coco").code == 0
    assert len(json.loads((out / "segments_coco.json").read_text())["images"]) == 1
    assert cli("segment", photos, "-r", "-o", out, *FAST, "--format", "coco").code == 0
    assert {path for path in files(out) if "overlay" in path} == set(), "only what was asked for"
    read = coco(out / "segments_coco.json")
    assert len(read.anns) == len({each["id"] for each in read.dataset["annotations"]})
    named = {each["file_name"]: each for each in recorded(out)}
    images = read.loadImgs(read.getImgIds())
    assert {each["file_name"]: each["id"] for each in images} == {"a.png": 1, "sub/a.png": 2, "sub/b.jpg": 3}
    for image in images:
        entry = named[image["file_name"]]
        labels = np.asarray(Image.open(out / entry["labels"]))
        masks = [read.annToMask(each) for each in read.loadAnns(read.getAnnIds(imgIds=image["id"]))]
        assert [np.array_equal(mask, labels == segment) for segment, mask in enumerate(masks)] == [True] * len(masks)
        assert len(masks) == len(entry["segments"]) > 0
    joined = out / "segments_coco.json"
    joined.write_text("of the user")
    (photos / "new.png").write_bytes((photos / "a.png").read_bytes())
    refused = cli("segment", photos, "-r", "-o", out, *FAST, "--format", "coco")
    assert refused.code == 2
    assert "in the way" in refused.err
    assert joined.read_text() == "of the user"
    joined.unlink()
    assert cli("segment", photos, "-r", "-o", out, *FAST, "--format", "coco").code == 0
    assert len(json.loads(joined.read_text())["images"]) == len(recorded(out)) == 4
    assert cli("segment", photos, "-r", "-o", out, *FAST, "segmenter.tau=0.3").code == 0
    assert not joined.exists(), "it is of other segments"


def test_further_formats_are_made_of_the_labels(cli, photos, tmp_path, segmented):
    for name in ("pycocotools", "shapely"):
        pytest.importorskip(name, reason="writes formats")
    command = ("segment", photos / "a.png", f"output_dir={tmp_path}", *FAST)
    every = "labels,overlay,coco,cvat,geojson,labelme,masks,svg"
    assert cli(*command, "--format", "labels").code == 0
    folder = tmp_path / "segments"
    assert not list(folder.glob("*overlay*"))
    before = (folder / "a_labels.png").stat().st_mtime_ns
    assert cli(*command, "--format", every).code == 0
    assert segmented == ["a.png"]
    assert (folder / "a_labels.png").stat().st_mtime_ns == before
    at_once = tmp_path / "at once"
    assert cli(*command[:2], f"output_dir={at_once}", *FAST, "--format", every).code == 0
    assert files(folder) == files(at_once / "segments")
    for name in files(folder) - {"segments.json"}:
        assert (folder / name).read_bytes() == (at_once / "segments" / name).read_bytes(), name
    (once,), (other,) = recorded(folder), recorded(at_once / "segments")
    assert once | {"image": ""} == other | {"image": ""}
    segmented.clear()
    assert cli(*command, "--format", "tree", "--explore").code == 0
    assert segmented == ["a.png"], "the tree is of features"
    assert len(recorded(folder)[0]["formats"]) == 8, "the others are of the same segments"


@pytest.mark.parametrize("change", ["edited", "unreadable", "cropped"])
def test_labels_that_are_not_the_pictures_own_are_made_again(cli, photos, tmp_path, segmented, change):
    command = ["segment", photos / "a.png", f"output_dir={tmp_path}", *FAST]
    if change == "cropped":
        command.append("protocol=released")
    assert cli(*command).code == 0
    labels = tmp_path / "segments" / "a_labels.png"
    if change == "edited":
        Image.fromarray(np.asarray(Image.open(labels)) + np.uint8(1)).save(labels)
    if change == "unreadable":
        labels.write_bytes(b"no picture")
    done = cli(*command, "--format", "masks")
    assert done.code == 0, done.err
    assert segmented == ["a.png", "a.png"]
    assert np.asarray(Image.open(labels)).min() == 0


def test_pictures_above_the_limit_are_passed_over_undecoded(cli, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(
        Image.Image, "load", lambda self: pytest.fail("decoded") if self.size == (100, 67) else plain(self)
    )
    done = cli("segment", photos, "-r", "-o", tmp_path / "out", *FAST, "--limit-pixels", "6699")
    assert done.code == 0
    assert "a.png: passed over, it has more than 6699 pixels" in done.err
    assert {each["file_name"] for each in recorded(tmp_path / "out")} == {"sub/a.png"}


plain = Image.Image.load


def test_two_limits_or_two_folders_are_refused(cli, photos, tmp_path):
    limits = cli("segment", photos, "--limit-pixels", "9", "max_pixels=10", *FAST)
    assert limits.code == 2
    assert "two limits" in limits.err
    folders = cli("segment", photos, "-o", tmp_path, f"output_dir={tmp_path}", *FAST)
    assert folders.code == 2
    assert "two folders" in folders.err


def test_a_picture_that_fails_does_not_stop_its_batch(cli, photos, tmp_path, monkeypatch):
    (photos / "broken.png").write_bytes(b"no picture")
    done = cli("segment", photos, "-r", "-o", tmp_path / "out", *FAST, "batch_size=4")
    assert done.code == 2
    assert "broken.png" in done.err
    assert len(recorded(tmp_path / "out")) == 3

    plain_scene = PictureSegmenter._scene
    monkeypatch.setattr(
        PictureSegmenter,
        "_scene",
        lambda self, image: 1 / 0 if Path(image).name == "b.jpg" else plain_scene(self, image),
    )
    done = cli("segment", photos, "-r", "-o", tmp_path / "more", *FAST, "batch_size=4")
    assert "ZeroDivisionError" in done.err
    assert {each["file_name"] for each in recorded(tmp_path / "more")} == {"a.png", "sub/a.png"}


def test_a_picture_that_changes_meanwhile_is_not_recorded(cli, photos, tmp_path, monkeypatch):
    plain = PictureSegmenter.try_map

    def changing(self, images, batch_size):
        Image.new("RGB", (8, 6)).save(images[0])
        return plain(self, images, batch_size)

    with monkeypatch.context() as patch:
        patch.setattr(PictureSegmenter, "try_map", changing)
        done = cli("segment", photos / "a.png", "-o", tmp_path / "out", *FAST)
    assert done.code == 2
    assert "changed meanwhile" in done.err
    assert cli("segment", photos / "a.png", "-o", tmp_path / "out", *FAST).out.count("1 segment") == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_no_picture(cli, tmp_path):
    os.mkfifo(tmp_path / "a.png")
    done = cli("segment", tmp_path / "a.png", "-o", tmp_path / "out", *FAST)
    assert done.code == 2
    assert "no such picture" in done.err


def test_a_damaged_coco_file_is_named_and_made_anew(cli, photos, tmp_path):
    pytest.importorskip("pycocotools", reason="writes COCO")
    command = ("segment", photos, "-o", tmp_path / "out", *FAST, "--format", "coco")
    assert cli(*command).code == 0
    part = tmp_path / "out" / "a_coco.json"
    whole = part.read_text()
    for text in ("{", '{"images": 3}', whole.replace('"category_id": 1', '"category_id": 7')):
        part.write_text(text)
        Image.new("RGB", (8, 6)).save(photos / f"{len(text)}.png")
        refused = cli(*command)
        assert refused.code == 2
        assert "damaged" in refused.err
        assert str(part) in refused.err
    part.unlink()
    assert cli(*command).code == 0
    assert part.read_text() == whole
    assert len(json.loads((tmp_path / "out" / "segments_coco.json").read_text())["images"]) == 4


def test_a_name_with_a_line_break_is_told_in_one_line(cli, tmp_path):
    Image.new("RGB", (8, 6)).save(tmp_path / "a\nb.png")
    done = cli("segment", tmp_path / "a\nb.png", "-o", tmp_path / "out", *FAST)
    assert done.code == 0
    assert r"a\nb.png: 1 segment" in done.out
    assert len(done.out.strip().splitlines()) == 2


def test_many_pictures_that_were_there_are_one_line(cli, tmp_path):
    for number in range(25):
        Image.new("RGB", (8, 6), (number, 0, 0)).save(tmp_path / f"{number}.png")
    command = ("segment", tmp_path, "-o", tmp_path / "out", *FAST)
    assert cli(*command).out.count(": 1 segment") == 25
    again = cli(*command)
    assert "25 pictures segmented before" in again.out
    assert len(again.out.strip().splitlines()) == 2


def test_the_line_of_progress_counts_what_is_new(cli, photos, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(console, "_force_terminal", True)
    monkeypatch.setattr(
        segment_command,
        "progress",
        lambda what, unit, transient: contextlib.nullcontext(lambda *each: told.append(each)),
    )
    assert cli("segment", photos / "a.png", "-o", tmp_path / "out", *FAST).code == 0
    assert told == [], "of one picture there is nothing to tell"
    assert cli("segment", photos, "-r", "-o", tmp_path / "out", *FAST, "batch_size=1").code == 0
    assert told == [(0, 3), (0, 2), (1, 2), (2, 2)]


def test_another_process_takes_what_nobody_is_at_and_waits_for_the_rest(cli, photos, tmp_path, segmented):
    out = tmp_path / "out"
    record = SegmentRecord(out, out, {}, {})
    claim = record.claim(photos / "a.png")
    assert claim.acquire()
    ended = []
    process = threading.Thread(target=lambda: ended.append(cli("segment", photos, "-r", "-o", out, *FAST)))
    process.start()
    killing.wait_for(lambda: len(segmented) == 2)
    assert sorted(segmented) == ["a.png", "b.jpg"]  # of sub
    process.join(0.5)
    assert process.is_alive()
    claim.release()
    process.join()
    assert len(recorded(out)) == len(segmented) == 3


def _start(command, errors):
    return killing.start([str(word) for word in command], errors)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="processes are found in /proc")
def test_500_pictures_killed_and_resumed_are_each_segmented_once(cli, tmp_path):
    """Two processes at a time, killed by turns with SIGKILL and SIGINT; what was recorded is never made again."""
    generator = np.random.default_rng(0)
    for number in range(500):
        path = tmp_path / "photos" / f"{number % 7}" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        corners = generator.integers(0, 256, (2, 2, 3), dtype=np.uint8)
        Image.fromarray(corners).resize((24, 16), Image.Resampling.NEAREST).save(path)
    out, errors = tmp_path / "out", tmp_path / "errors.txt"
    command = ("segment", tmp_path / "photos", "-r", "-o", out, *FAST, "batch_size=3", "--format", "labels,masks")
    journal, made = out / "segments.jsonl", {}

    def done():
        """Entries so far: journalled and, after an orderly end, in segments.json."""
        lines = journal.read_bytes().count(b'"entry": {"image"') if journal.is_file() else 0
        return lines + (len(recorded(out)) if (out / "segments.json").is_file() else 0)

    for number in (signal.SIGKILL, signal.SIGINT, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        before = done()
        processes = [_start(command, errors), _start(command, errors)]
        killing.wait_for(lambda before=before: done() >= min(before + 60, 500))
        for process in processes:
            os.kill(process, number)
        for process in processes:
            killing.end(process)
        states = {path: path.stat().st_mtime_ns for path in out.rglob("*_labels.png")}
        record = SegmentRecord(out, out, {}, {})
        whole = {record.folder / entry["labels"] for entry in record._known.by_key.values()}
        for path in whole:
            assert made.setdefault(path, states[path]) == states[path], "made twice"
        assert len(whole) < 500
    assert len(made) > 100
    assert cli(*command).code == 0
    images = recorded(out)
    assert len(images) == len({each["image"] for each in images}) == 500
    assert len({each["labels"] for each in images}) == 500
    for path, time in made.items():
        assert path.stat().st_mtime_ns == time, "made twice"
    wanted = {f"{each['labels']}" for each in images} | {
        f"{each['formats']['masks']['path']}/{segment:03}.png"
        for each in images
        for segment in range(len(each["segments"]))
    }
    assert {name for name in files(out) if not name.startswith(".")} == wanted | {"segments.json"}
    assert len(named_pictures([str(tmp_path / "photos")], recursive=True)) == 500
