import fcntl
import json
import multiprocessing
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open

from diffcut_bench.errors import UserError
from diffcut_bench.store import FeatureStore, StoreOptions, list_sets, open_set

IDENTITY = {"backbone": {"model": "x", "timestep": 50}, "crop": "center"}
FEATURES = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0))


def store(folder: Path, identity: dict = IDENTITY, **options: object) -> FeatureStore:
    return FeatureStore(StoreOptions(str(folder), **({"dtype": "float16"} | options)), "x", identity)


def filled(folder: Path, **options: object) -> FeatureStore:
    kept = store(folder, **options)
    for number, features in enumerate(FEATURES):
        kept.put(f"image{number}", features)
    kept.flush()
    return kept


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_features_come_back_in_the_precision_asked_for(tmp_path, dtype):
    kept = store(tmp_path, dtype=dtype)
    given = kept.put("image0", FEATURES[0])
    expected = FEATURES[0].to(getattr(torch, dtype))
    assert torch.equal(given, expected)
    assert torch.equal(kept.get("image0"), expected), "what waits is there already"
    kept.flush()
    again = store(tmp_path, dtype=dtype)
    assert torch.equal(again.get("image0"), expected)
    assert again.images() == {"image0"}
    assert again.get("image1") is None


def test_the_key_lies_beside_the_features_in_plain(tmp_path):
    kept = filled(tmp_path)
    assert json.loads((kept.folder / "key.json").read_text()) == {**IDENTITY, "dtype": "float16"}


@pytest.mark.parametrize(
    "other",
    [
        {"backbone": {"model": "x", "timestep": 51}, "crop": "center"},
        {"backbone": {"model": "y", "timestep": 50}, "crop": "center"},
        {"backbone": {"model": "x", "timestep": 50}, "crop": "none"},
        {"backbone": {"model": "x", "timestep": 50, "revision": "main"}, "crop": "center"},
    ],
)
def test_another_key_is_another_set(tmp_path, other):
    filled(tmp_path)
    assert store(tmp_path, other).images() == set()
    assert store(tmp_path, dtype="float32").images() == set()
    assert store(tmp_path).images() == {"image0", "image1", "image2"}


def test_a_folder_with_features_of_another_key_is_refused(tmp_path):
    kept = filled(tmp_path)
    another = store(tmp_path / "other", {"backbone": "another"})
    another.put("image0", FEATURES[0])
    another.flush()
    shutil.rmtree(kept.folder)
    another.folder.rename(kept.folder)
    with pytest.raises(UserError, match="features of another key"):
        store(tmp_path)
    with pytest.raises(UserError, match="does not belong to this folder"):
        open_set(kept.folder)


@pytest.mark.parametrize("text", ["{", "null", "5", "[" * 20_000, '{"backbone": "another", "dtype": "float16"}'])
def test_a_damaged_key_does_not_cost_the_set(tmp_path, text):
    kept = filled(tmp_path)
    (kept.folder / "key.json").write_text(text)
    assert store(tmp_path).images() == {"image0", "image1", "image2"}
    assert open_set(kept.folder).verify() == (3, [])


@pytest.mark.parametrize("text", ["{", '{"backbone": 3}', '{"backbone": ["x"]}'])
def test_a_damaged_key_is_told_in_the_list(tmp_path, text):
    (filled(tmp_path).folder / "key.json").write_text(text)
    (found,) = list_sets(tmp_path)
    assert found.describe() == "key.json can't be read"


def test_a_shard_of_another_set_is_set_aside(tmp_path):
    kept, another = filled(tmp_path), store(tmp_path, {"backbone": "another"})
    another.put("image7", FEATURES[0])
    another.flush()
    (shard,) = another.folder.glob("*.safetensors")
    shard.rename(kept.folder / shard.name)
    opened = store(tmp_path)
    assert opened.images() == {"image0", "image1", "image2"}
    assert opened.damaged == [shard.name]


def test_features_of_another_shape_are_not_given(tmp_path):
    kept = filled(tmp_path)
    assert kept.get("image0", (4, 2, 2)) is not None
    assert kept.get("image0", (4, 2, 3)) is None


def test_what_killed_writers_left_is_collected_and_a_live_file_is_not(tmp_path):
    kept = filled(tmp_path)
    old = time.time() - 2 * 86_400
    left, live, aside, new = (kept.folder / n for n in (".a.partial", ".b.partial", "c.damaged", ".d.partial"))
    for path in (left, live, aside, new):
        path.touch()
        if path != new:
            os.utime(path, (old, old))
    with live.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as its writer does
        store(tmp_path)
        assert [path.exists() for path in (left, live, aside, new)] == [False, True, False, True]
    store(tmp_path)
    assert not live.exists()


def test_a_small_need_is_not_refused_for_a_large_reserve(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 10**6, 10**6))
    kept = store(tmp_path)
    assert kept.check_space(1, 4600) == 4600
    with pytest.raises(UserError, match="are free"):
        kept.check_space(1000, 1000)


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def test_a_flipped_byte_anywhere_in_a_shard_is_found(tmp_path):
    kept = filled(tmp_path)
    (path,) = kept.folder.glob("*.safetensors")
    whole = path.read_bytes()
    with safe_open(path, framework="pt") as shard:
        expected = {image: shard.get_tensor(image).clone() for image in shard.keys()}  # noqa: SIM118
    for offset in range(len(whole)):
        flip(path, offset)
        opened = store(tmp_path)
        found = {image: opened.get(image) for image in opened.images()}
        # Nothing comes back with other values, and what is intact is not lost with what is not.
        assert all(values is None or torch.equal(values, expected[image]) for image, values in found.items())
        assert offset < len(whole) - 96 or sum(values is not None for values in found.values()) == 2
        assert opened.damaged == [path.name], offset
        for left in kept.folder.glob("*.[sd]*"):
            left.unlink()
        path.write_bytes(whole)


def test_a_damaged_shard_is_set_aside_and_what_is_intact_of_it_kept(tmp_path):
    kept = filled(tmp_path)
    (path,) = kept.folder.glob("*.safetensors")
    flip(path, -1)
    opened = store(tmp_path)
    assert [image for image in sorted(opened.images()) if opened.get(image) is None] == ["image2"]
    assert opened.damaged == [path.name]
    assert path.with_suffix(".damaged").is_file()
    assert opened.images() == store(tmp_path).images() == {"image0", "image1"}
    opened.put("image2", FEATURES[2])
    opened.flush()
    intact, damaged = store(tmp_path).verify()
    assert (intact, damaged) == (3, [])


def test_a_truncated_shard_and_one_that_vanishes(tmp_path):
    kept = filled(tmp_path)
    (path,) = kept.folder.glob("*.safetensors")
    opened = store(tmp_path)
    opened._readers.clear()
    path.unlink()
    assert opened.get("image0") is None
    path.write_bytes(b"short")
    assert store(tmp_path).damaged == [path.name]


def test_a_lost_key_is_written_anew_and_a_readable_name_stays_in_the_folder(tmp_path):
    kept = filled(tmp_path)
    (kept.folder / "key.json").unlink()
    assert store(tmp_path).images() == {"image0", "image1", "image2"}
    assert (kept.folder / "key.json").is_file()
    nested = FeatureStore(StoreOptions(str(tmp_path / "sub"), "float16"), "../my/vit", IDENTITY)
    assert nested.folder.parent == tmp_path / "sub"


def test_damage_in_a_folder_that_can_not_be_written(tmp_path, monkeypatch):
    kept = filled(tmp_path)
    (path,) = kept.folder.glob("*.safetensors")
    flip(path, -1)

    def refuse(path: Path, content: bytes, hint: str) -> None:
        raise UserError("can't write", "here", hint)

    monkeypatch.setattr("diffcut_bench.store.feature_store.write_atomically", refuse)
    opened = store(tmp_path)
    assert opened.get("image2") is None
    assert opened.verify()[1] == [path.name]
    with pytest.raises(UserError, match="features=memory keeps none"):
        FeatureStore(StoreOptions(str(tmp_path / "new"), "float16"), "x", IDENTITY).check_space(1, 1)


def test_what_another_process_saved_of_a_damaged_shard_is_found(tmp_path):
    kept = filled(tmp_path)
    (path,) = kept.folder.glob("*.safetensors")
    flip(path, -1)
    first, second = store(tmp_path), store(tmp_path)
    second._readers.clear()
    assert first.get("image2") is None
    assert second.get("image0") is not None
    assert second.get("image2") is None


def test_shards_are_written_by_size_and_by_time(tmp_path, monkeypatch):
    monkeypatch.setattr("diffcut_bench.store.feature_store._MIB", FEATURES[0].nbytes)  # two images in half precision
    kept = filled(tmp_path, shard_mib=1)
    assert len(list(kept.folder.glob("*.safetensors"))) == 2
    monkeypatch.setattr("diffcut_bench.store.feature_store._PATIENCE_S", -1.0)
    slow = store(tmp_path / "slow")
    slow.put("image0", FEATURES[0])
    assert len(list(slow.folder.glob("*.safetensors"))) == 1


def test_the_patience_begins_with_the_first_image_that_waits(tmp_path, monkeypatch):
    clock = SimpleNamespace(monotonic=lambda: 0.0)
    monkeypatch.setattr("diffcut_bench.store.feature_store.time", clock)
    kept = store(tmp_path)
    shards = []
    for image, now in enumerate([100.0, 155.0, 161.0, 300.0, 359.0, 361.0]):
        clock.monotonic = lambda now=now: now
        kept.put(f"image{image}", FEATURES[0])
        shards.append(len(list(kept.folder.glob("*.safetensors"))))
    assert shards == [0, 0, 1, 1, 1, 2], "a minute after the first that waits, however long the store was idle before"


def test_more_shards_than_are_held_open(tmp_path, monkeypatch):
    monkeypatch.setattr("diffcut_bench.store.feature_store._OPEN_SHARDS", 2)
    monkeypatch.setattr("diffcut_bench.store.feature_store._PATIENCE_S", -1.0)
    filled(tmp_path)
    opened = store(tmp_path)
    for _ in range(2):
        assert all(opened.get(f"image{i}") is not None for i in range(3))
    assert len(opened._readers) == 2


def write_in_process(folder: str, first: int) -> None:
    kept = store(Path(folder))
    for number in range(first, first + 20):
        kept.put(f"image{number}", torch.full((4, 2, 2), float(number)))
        if number % 3 == 0:
            kept.flush()
    kept.flush()


def test_two_writers_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_in_process, args=(str(tmp_path), first)) for first in (0, 10)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    kept = store(tmp_path)
    assert kept.images() == {f"image{number}" for number in range(30)}
    assert all(kept.get(f"image{number}").unique().tolist() == [number] for number in range(30))
    assert not list(kept.folder.glob(".*"))


def test_features_out_of_range_are_refused(tmp_path):
    kept = store(tmp_path)
    with pytest.raises(ValueError, match="leave the range of float16"):
        kept.put("image0", FEATURES[0] * 1e6)
    with pytest.raises(ValueError, match="not finite"):
        kept.put("image0", FEATURES[0] / 0)
    assert kept.images() == set()
    store(tmp_path, dtype="bfloat16").put("image0", FEATURES[0] * 1e6)


def test_no_room_on_the_disk_is_said_before_anything_is_computed(tmp_path):
    kept = store(tmp_path)
    assert kept.check_space(10, 1000) == 10_000
    with pytest.raises(UserError, match=r"features of 1000000 images take .* TB, and .* are free"):
        kept.check_space(10**6, 10**9)


def test_options_are_checked(tmp_path):
    with pytest.raises(ValueError, match=r"features\.dtype"):
        StoreOptions(str(tmp_path), dtype="int8")
    with pytest.raises(ValueError, match=r"features\.shard_mib"):
        StoreOptions(str(tmp_path), shard_mib=0)


def test_sets_are_listed(tmp_path):
    kept = filled(tmp_path)
    filled(tmp_path, dtype="float32")
    found = list(list_sets(tmp_path))
    assert [one.images for one in found] == [3, 3]
    assert {one.identity["dtype"] for one in found} == {"float16", "float32"}
    assert {one.folder for one in found} >= {kept.folder}
    assert list(list_sets(tmp_path / "nothing")) == []
