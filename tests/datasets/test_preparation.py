import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import datasets as hf
import miniatures
import numpy as np
import pytest
from miniatures import values

import diffcut_bench.datasets.preparation as preparation
import diffcut_bench.datasets.shards as shards
from diffcut_bench.datasets import (
    Benchmark,
    coco_object,
    context,
    open_benchmark,
    prepare,
    prepared_folder,
    read_manifest,
    voc,
)
from diffcut_bench.errors import UserError

IDS = tuple(f"2007_{number:06d}" for number in range(10))


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "SHARD", 3)


@pytest.fixture
def benchmark(tmp_path) -> Benchmark:
    miniatures.write_voc(tmp_path, values(0, 1, 20, 255), IDS)
    return voc(str(tmp_path))


@pytest.mark.parametrize("num_proc", [1, 2])
def test_holds_the_original_bytes_and_raw_values(benchmark, tmp_path, small_shards, num_proc):
    originals = benchmark.from_originals()
    prepared = prepare(benchmark, tmp_path / "data", num_proc)
    assert isinstance(prepared.records, hf.Dataset)
    rows = prepared.records
    devkit = tmp_path / "VOCdevkit" / "VOC2012"
    assert rows["id"][:] == list(IDS)
    for row in rows:
        assert row["image"]["bytes"] == (devkit / "JPEGImages" / f"{row['id']}.jpg").read_bytes()
        assert row["label"]["bytes"] == (devkit / "SegmentationClass" / f"{row['id']}.png").read_bytes()
    assert prepared.fingerprint() == originals.fingerprint()
    for index in range(len(IDS)):
        assert np.array_equal(prepared.read(index)[1], originals.read(index)[1])
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["voc-val", "voc-val.lock"]


def test_mat_labels_become_16_bit_pngs_of_raw_ids(tmp_path):
    miniatures.write_context(tmp_path, values(0, 2, 431, 459))
    prepared = prepare(context(str(tmp_path)), tmp_path / "data")
    assert np.array_equal(prepared.raw_label(0), values(0, 2, 431, 459))
    assert prepared.read(0)[1].ravel()[:4].tolist() == [59, 0, 59, 59]
    assert prepared.fingerprint() == context(str(tmp_path)).from_originals().fingerprint()


def test_a_second_preparation_finds_the_first(benchmark, tmp_path, monkeypatch):
    prepare(benchmark, tmp_path / "data")
    monkeypatch.setattr(shards, "_write_shard", lambda *_: pytest.fail("prepared again"))
    assert len(prepare(benchmark, tmp_path / "data")) == 10


def test_a_change_of_the_originals_is_noticed(benchmark, tmp_path):
    before = prepare(benchmark, tmp_path / "data").fingerprint()
    miniatures.picture(tmp_path / "VOCdevkit" / "VOC2012" / "JPEGImages" / f"{IDS[4]}.jpg", seed=99)
    after = prepare(benchmark, tmp_path / "data").fingerprint()
    assert before != after == benchmark.from_originals().fingerprint()


def test_an_interrupted_preparation_is_never_taken_for_whole_and_goes_on(
    benchmark, tmp_path, small_shards, monkeypatch
):
    written = shards._write_shard
    calls: list[int] = []

    def dies(originals, work, size, start):
        calls.append(start)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return written(originals, work, size, start)

    monkeypatch.setattr(shards, "_write_shard", dies)
    with pytest.raises(KeyboardInterrupt):
        prepare(benchmark, tmp_path / "data")
    assert read_manifest(prepared_folder(benchmark, tmp_path / "data")) is None
    with pytest.raises(UserError, match="not prepared"):
        open_benchmark(voc(None), tmp_path / "data")
    assert len(prepare(benchmark, tmp_path / "data")) == 10
    assert calls == [0, 3, 6, 6, 9]


def test_a_full_disk_is_said_and_what_is_done_is_kept(benchmark, tmp_path, small_shards, monkeypatch):
    save = hf.Dataset.save_to_disk
    calls: list[str] = []

    def full(self, path, **settings):
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return save(self, path, **settings)

    monkeypatch.setattr(hf.Dataset, "save_to_disk", full)
    with pytest.raises(UserError, match="No space left") as caught:
        prepare(benchmark, tmp_path / "data")
    assert "data_dir" in caught.value.hint
    assert len(list((tmp_path / "data").glob("voc-val.unfinished/*/shard-*"))) == 1
    assert len(prepare(benchmark, tmp_path / "data")) == 10


def prepare_and_report(root: str, data_dir: str, queue: "multiprocessing.Queue[str]") -> None:
    queue.put(prepare(voc(root), Path(data_dir)).fingerprint())


@pytest.mark.slow
def test_two_preparations_at_once_give_one_right_data_set(benchmark, tmp_path):
    multi = multiprocessing.get_context("spawn")
    queue = multi.Queue()
    workers = [
        multi.Process(target=prepare_and_report, args=(str(tmp_path), str(tmp_path / "data"), queue)) for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    found = [queue.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    assert found == [benchmark.from_originals().fingerprint()] * 2


def test_an_unreadable_label_is_named(tmp_path):
    miniatures.write_context(tmp_path, values(2))
    (tmp_path / "trainval" / "2010_000009.mat").write_bytes(b"not a mat file")
    with pytest.raises(UserError, match="label can't be read") as caught:
        prepare(context(str(tmp_path)), tmp_path / "data")
    assert caught.value.where.endswith("2010_000009.mat")


def test_the_prepared_form_is_enough(benchmark, tmp_path):
    whole = prepare(benchmark, tmp_path / "data").fingerprint()
    assert open_benchmark(voc(None), tmp_path / "data").fingerprint() == whole
    assert open_benchmark(voc(None), tmp_path, prepared=str(tmp_path / "data" / "voc-val")).fingerprint() == whole


def test_originals_can_be_read_directly(benchmark, tmp_path):
    assert len(open_benchmark(benchmark, tmp_path / "data", prepared="never")) == 10
    assert not (tmp_path / "data").exists()


def test_a_remote_file_system_works(benchmark, tmp_path):
    import fsspec

    prepare(benchmark, tmp_path / "data")
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "data" / "voc-val"), "/bucket/voc-val", recursive=True)
    remote = open_benchmark(voc(None), tmp_path / "none", prepared="memory://bucket/voc-val")
    assert remote.fingerprint() == benchmark.from_originals().fingerprint()


def test_parquet_files_work(benchmark, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    prepare(benchmark, tmp_path / "data").records.to_parquet(str(tmp_path / "voc.parquet"))
    opened = open_benchmark(voc(None), tmp_path, prepared=str(tmp_path / "voc.parquet"))
    assert opened.fingerprint() == benchmark.from_originals().fingerprint()


def test_nothing_there_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="no prepared data set there"):
        open_benchmark(voc(None), tmp_path, prepared=str(tmp_path / "nowhere"))


@pytest.mark.parametrize("url", ["memory://me:secret@bucket/voc", "s9://me:secret@bucket/voc?sig=secret"])
def test_credentials_of_a_url_are_not_shown(tmp_path, url):
    with pytest.raises(UserError, match="no prepared data set there") as caught:
        open_benchmark(voc(None), tmp_path, prepared=url)
    assert "://bucket/voc" in caught.value.where
    assert "secret" not in str(caught.value)


def test_another_format_is_not_taken(benchmark, tmp_path):
    prepare(benchmark, tmp_path / "data")
    path = tmp_path / "data" / "voc-val" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 0}))
    assert read_manifest(path.parent) is None
    assert len(prepare(benchmark, tmp_path / "data")) == 10


def test_a_form_prepared_for_another_data_set_is_refused(benchmark, tmp_path):
    prepare(benchmark, tmp_path / "data")
    with pytest.raises(UserError, match="prepared for voc-val, but coco-val2017-curated is wanted"):
        open_benchmark(coco_object(None), tmp_path, prepared=str(tmp_path / "data" / "voc-val"))


def test_a_folder_of_the_users_is_left_alone(benchmark, tmp_path):
    precious = tmp_path / "data" / "voc-val" / "precious.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("x")
    with pytest.raises(UserError, match="in the way"):
        prepare(benchmark, tmp_path / "data")
    assert precious.read_text() == "x"


def test_a_process_that_dies_is_said(benchmark, tmp_path, small_shards):
    def kill_one() -> None:
        while not multiprocessing.active_children():
            time.sleep(0.01)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    with pytest.raises(UserError, match="a process that prepares died") as caught:
        prepare(benchmark, tmp_path / "data", num_proc=2)
    killer.join()
    assert "num_proc=1" in caught.value.hint


@pytest.mark.parametrize("damage", ["arrow gone", "arrow cut", "manifest cut", "rows gone"])
def test_a_damaged_form_is_made_anew_from_originals_and_said_without(benchmark, tmp_path, damage):
    whole = prepare(benchmark, tmp_path / "data").fingerprint()
    folder = tmp_path / "data" / "voc-val"
    arrow = next(folder.glob("*.arrow"))
    if damage == "arrow gone":
        arrow.unlink()
    elif damage == "arrow cut":
        arrow.write_bytes(arrow.read_bytes()[:200])
    elif damage == "manifest cut":
        (folder / "manifest.json").write_text('{"source": ')
    else:
        values_ = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(values_ | {"pairs": 11}))
    with pytest.raises(UserError) as caught:
        open_benchmark(voc(None), tmp_path / "data")
    assert "data prepare voc dataset.root=DIR" in caught.value.hint
    assert open_benchmark(benchmark, tmp_path / "data").fingerprint() == whole
    assert open_benchmark(voc(None), tmp_path / "data").fingerprint() == whole


def test_a_damaged_shard_is_written_again(benchmark, tmp_path, small_shards, monkeypatch):
    save = hf.Dataset.save_to_disk

    def interrupted(self, path, **settings):
        if path.endswith("complete"):
            raise KeyboardInterrupt
        return save(self, path, **settings)

    monkeypatch.setattr(hf.Dataset, "save_to_disk", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(benchmark, tmp_path / "data")
    monkeypatch.setattr(hf.Dataset, "save_to_disk", save)
    arrow = next((tmp_path / "data").glob("voc-val.unfinished/*/shard-00000003/*.arrow"))
    arrow.write_bytes(arrow.read_bytes()[:100])
    assert prepare(benchmark, tmp_path / "data").fingerprint() == benchmark.from_originals().fingerprint()


def test_shards_of_another_size_are_not_mixed(benchmark, tmp_path, monkeypatch):
    written = shards._write_shard
    for size in (4, 5):
        monkeypatch.setattr(shards, "SHARD", size)
        calls: list[int] = []

        def dies(originals, work, size, start, calls=calls):
            calls.append(start)
            if len(calls) == 2 and size == 4:
                raise KeyboardInterrupt
            return written(originals, work, size, start)

        monkeypatch.setattr(shards, "_write_shard", dies)
        if size == 4:
            with pytest.raises(KeyboardInterrupt):
                prepare(benchmark, tmp_path / "data")
    assert prepare(benchmark, tmp_path / "data").ids == list(IDS)


def test_originals_that_moved_need_no_new_preparation(benchmark, tmp_path, monkeypatch):
    prepare(benchmark, tmp_path / "data")
    monkeypatch.setattr(shards, "write_rows", lambda *_: pytest.fail("prepared again"))
    (tmp_path / "VOCdevkit").rename(tmp_path / "elsewhere")
    (tmp_path / "new").mkdir()
    (tmp_path / "elsewhere").rename(tmp_path / "new" / "VOCdevkit")
    assert len(open_benchmark(voc(str(tmp_path / "new")), tmp_path / "data")) == 10
    assert len(open_benchmark(voc(str(tmp_path / "gone")), tmp_path / "data")) == 10


def test_a_current_form_is_read_without_writing(benchmark, tmp_path, monkeypatch):
    prepare(benchmark, tmp_path / "data")
    monkeypatch.setattr(preparation, "FileLock", lambda *_: pytest.fail("locked, which writes"))
    assert len(open_benchmark(benchmark, tmp_path / "data")) == 10
