"""Features in a run: computed once, read back by every later run, computed again where they must be."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from conftest import interrupting_after, shapes_overrides, write_shapes
from safetensors.torch import load_file

from diffcut_bench.backbones import Colour, EfficientNetLite0
from diffcut_bench.config import load_config
from diffcut_bench.errors import UserError
from diffcut_bench.scoring.events import FinishedCell, Observer
from diffcut_bench.scoring.features import FEATURES_VERSION, FeatureSource, open_features
from diffcut_bench.scoring.framing import Framing
from diffcut_bench.scoring.passes import run_cell
from diffcut_bench.segmenters import DiffCut
from diffcut_bench.store import list_sets

WITHOUT_BACKBONE = """
import sys
from diffcut_bench.backbones import EfficientNetLite0
from diffcut_bench.cli import main

def forward(self, images):
    raise AssertionError("the backbone was run")

EfficientNetLite0.forward = forward
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Batch sizes that the backbone is run on."""
    seen: list[int] = []
    forward = EfficientNetLite0.forward

    def counting(self: EfficientNetLite0, images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(EfficientNetLite0, "forward", counting)
    return seen


def run(root: Path, output_dir: Path, *overrides: str) -> tuple[FinishedCell, list[str]]:
    said: list[str] = []
    config = load_config([*shapes_overrides(root, output_dir), *overrides])
    observer = Observer()
    observer.say = said.append
    return run_cell(config, observer), said


class Halves:
    """Another segmenter: left and right."""

    def __init__(self, **options: object) -> None: ...

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        columns = torch.arange(features.shape[3]) >= features.shape[3] // 2
        return columns.long().expand(len(features), features.shape[2], -1)


def test_a_second_run_does_no_backbone_work(shapes, tmp_path, runs):
    first, said = run(shapes, tmp_path)
    assert sum(runs) == 8
    assert "8 of 8 images to compute" in said[0]
    runs.clear()
    _, said = run(shapes, tmp_path, "segmenter.alpha=2")
    run(shapes, tmp_path, "segmenter._target_=test_features.Halves")
    again, _ = run(shapes, tmp_path, "if_exists=overwrite")
    assert runs == []
    assert "all 8 images in" in said[0]
    assert again.result.metrics == first.result.metrics


@pytest.mark.slow
def test_nor_does_another_process_or_a_worker(shapes, tmp_path):
    run(shapes, tmp_path)
    for extra in (["segmenter.alpha=2"], ["segmenter.alpha=3", "num_workers=2"]):
        script = tmp_path / "script.py"
        script.write_text(WITHOUT_BACKBONE.replace("sys.exit", "if __name__ == '__main__': sys.exit"))
        command = [sys.executable, str(script), "run", *shapes_overrides(shapes, tmp_path), *extra, "max_failures=0"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_subsets_shards_and_other_data_sets_share_features(shapes, tmp_path, runs):
    run(shapes, tmp_path, "limit=3")
    run(shapes, tmp_path)
    assert sum(runs) == 8
    runs.clear()
    run(shapes, tmp_path, "shard=1/2")
    copied = write_shapes(tmp_path / "copy", 8)
    run(copied, tmp_path, "dataset.background=1")
    assert runs == []


def test_a_changed_image_is_computed_again(shapes, tmp_path, runs):
    run(shapes, tmp_path)
    runs.clear()
    image = shapes / "images" / "picture3.png"
    image.write_bytes(image.read_bytes() + b" ")
    run(shapes, tmp_path)
    assert sum(runs) == 1


IMMATERIAL = ("seed=43", "protocol.name_pooling=pixels", "protocol.name_input=normalised")


@pytest.mark.parametrize(
    "override",
    ["protocol.image_size=160", "protocol.crop=none", "features.dtype=float16", "backbone=colour", *IMMATERIAL],
)
def test_what_can_change_features_misses_and_nothing_else(shapes, tmp_path, override):
    base = load_config(shapes_overrides(shapes, tmp_path))
    other = load_config([*shapes_overrides(shapes, tmp_path), override])

    def folder(config) -> Path:
        return open_features(config, torch.device("cpu")).store.folder

    assert (folder(base) == folder(other)) == (override in IMMATERIAL)


def test_weights_device_and_versions_are_in_the_key(shapes, tmp_path, monkeypatch):
    config = load_config(shapes_overrides(shapes, tmp_path))
    base = open_features(config, torch.device("cpu")).store
    assert base.identity["features_version"] == FEATURES_VERSION
    assert base.identity["device_type"] == "cpu"
    assert set(base.identity["packages"]) == {"torch", "pillow"}
    changed = {**EfficientNetLite0().fingerprint(), "weights_sha256": "other"}
    monkeypatch.setattr(EfficientNetLite0, "fingerprint", lambda self: changed)
    assert open_features(config, torch.device("cpu")).store.key != base.key
    monkeypatch.undo()
    monkeypatch.setattr("diffcut_bench.scoring.features.version", lambda name: "0.0")
    assert open_features(config, torch.device("cpu")).store.key != base.key


def test_a_result_knows_the_commit_and_the_files_of_its_weights(shapes, tmp_path, monkeypatch):
    from transformers import ViTConfig, ViTModel

    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--someone--tiny"
    snapshot = repository / "snapshots" / commit
    sizes = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ViTModel(ViTConfig(**sizes, patch_size=16, image_size=32), add_pooling_layer=False).save_pretrained(snapshot)
    (snapshot / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}')
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    options = ["backbone=dino_s16", "backbone.image_size=64", "limit=2"]
    first, _ = run(shapes, tmp_path, *options, "backbone.model=someone/tiny")
    assert first.result.config["backbone"]["revision"] == "main"
    told = first.result.identity["backbone"]
    digest = hashlib.sha256((snapshot / "model.safetensors").read_bytes()).hexdigest()
    assert (told["checkpoint"], told["revision"]) == ("someone/tiny", commit)
    assert told["sha256:model.safetensors"] == digest
    (stored,) = list_sets(tmp_path / "features")
    assert stored.identity["backbone"]["sha256:model.safetensors"] == digest
    for same in (["backbone.model=someone/tiny", f"backbone.revision={commit}"], [f"backbone.model={snapshot}"]):
        assert run(shapes, tmp_path, *options, *same)[0].skipped, "the same weights are the same cell"
    own = tmp_path / "mine"
    shutil.copytree(snapshot, own)
    moved, _ = run(shapes, tmp_path, *options, f"backbone.model={own}")
    assert moved.result.identity["backbone"]["sha256:model.safetensors"] == digest


def test_a_setting_that_the_fingerprint_forgets_is_in_the_key(shapes, tmp_path):
    source = FeatureSource(Colour(), Framing("center", 64, 64, "ignore"), torch.device("cpu"))
    from diffcut_bench.scoring.features import backbone_identity

    assert backbone_identity(source.backbone, {"own": 1, "suggests": {"tau": 1}, "stride": 7})["own"] == 1
    assert "suggests" not in backbone_identity(source.backbone, {"suggests": {}})


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_shard_is_computed_again_and_said(shapes, tmp_path, runs, workers):
    first, _ = run(shapes, tmp_path)
    (shard,) = (tmp_path / "features").glob("*/*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    runs.clear()
    again, said = run(shapes, tmp_path, "if_exists=overwrite", f"num_workers={workers}")
    assert sum(runs) == 1
    assert any("of the store were damaged or cleared meanwhile, and computed again" in line for line in said)
    assert again.result.metrics == first.result.metrics
    runs.clear()
    run(shapes, tmp_path, "segmenter.alpha=2")
    assert runs == []


def test_a_truncated_shard_is_said(shapes, tmp_path):
    run(shapes, tmp_path)
    (shard,) = (tmp_path / "features").glob("*/*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-3])
    _, said = run(shapes, tmp_path, "segmenter.alpha=2")
    assert said[0] == f"features: damaged shard {shard.name} set aside"
    assert "8 of 8 images to compute" in said[1]


def test_a_segmenter_that_fails_costs_no_second_run_of_the_backbone(shapes, tmp_path, runs, monkeypatch):
    monkeypatch.setattr(DiffCut, "together", lambda *arguments: (_ for _ in ()).throw(ValueError("not today")))
    with pytest.raises(UserError, match="not today"):
        run(shapes, tmp_path)
    assert sum(runs) == 8


def test_damaged_weights_stop_the_run_at_once(shapes, tmp_path, monkeypatch):
    def damaged(self: EfficientNetLite0, images: torch.Tensor) -> torch.Tensor:
        raise UserError("weights can't be read", "file", "download the file again")

    monkeypatch.setattr(EfficientNetLite0, "forward", damaged)
    with pytest.raises(UserError) as error:
        run(shapes, tmp_path)
    assert error.value.hint == "download the file again"


def test_an_unwritable_store_is_said_before_the_first_image(shapes, tmp_path, runs):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="features=memory keeps none"):
        run(shapes, tmp_path, f"features.folder={tmp_path / 'file'}")
    assert runs == []


def test_an_interrupted_run_keeps_what_it_computed(shapes, tmp_path, runs, monkeypatch):
    config = load_config([*shapes_overrides(shapes, tmp_path), "batch_size=2"])
    with pytest.raises(KeyboardInterrupt):
        run_cell(config, interrupting_after(4))
    assert next(list_sets(tmp_path / "features")).images == 4
    runs.clear()
    run(shapes, tmp_path, "segmenter.alpha=2")
    assert sum(runs) == 4


def test_memory_keeps_nothing(shapes, tmp_path, runs):
    stored, _ = run(shapes, tmp_path)
    cell, said = run(shapes, tmp_path / "memory", "features=memory")
    run(shapes, tmp_path / "memory", "features=memory", "segmenter.alpha=2")
    assert sum(runs) == 24
    assert not (tmp_path / "memory" / "features").exists()
    assert said == []
    assert cell.result.key != stored.result.key


class Half(Colour):
    """A backbone of half precision."""

    feature_dtype = torch.float16

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images).half()


class Boast(Half):
    """Announces half precision, and gives more than that holds."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images).float()


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "half"])
def test_what_the_store_gives_back_scores_as_what_was_never_stored(shapes, tmp_path, backbone):
    """To the last pixel of every image, on the first run and when it is read back."""
    options = [] if backbone != "half" else ["backbone=colour", "backbone._target_=test_features.Half"]
    memory, _ = run(shapes, tmp_path / "memory", "features=memory", "segmenter.alpha=5", *options)
    stored, said = run(shapes, tmp_path, "segmenter.alpha=5", *options)
    again, _ = run(shapes, tmp_path, "segmenter.alpha=5", "if_exists=overwrite", *options)
    rows = [pq.read_table(cell.folder / "per_image.parquet").to_pylist() for cell in (memory, stored, again)]
    assert rows[0] == rows[1] == rows[2]
    assert memory.result.metrics == stored.result.metrics
    dtype = "float16" if backbone == "half" else "float32"
    assert said[0].endswith(f"{dtype}, as computed")
    (kept,) = list_sets(tmp_path / "features")
    assert kept.identity["dtype"] == dtype
    (shard,) = kept.folder.glob("*.safetensors")
    assert {tensor.dtype for tensor in load_file(shard).values()} == {getattr(torch, dtype)}


def test_the_store_says_where_it_rounds_and_keeps_that_apart(shapes, tmp_path, runs):
    _, said = run(shapes, tmp_path, "features.dtype=float16")
    assert said[0].endswith("computed in float32, kept in float16")
    runs.clear()
    run(shapes, tmp_path)
    assert sum(runs) == 8, "rounded features are not taken for exact ones"
    runs.clear()
    run(shapes, tmp_path, "features.dtype=float16", "segmenter.alpha=2")
    assert runs == [], "and they are found again where they are asked for"


def test_a_backbone_that_announces_less_than_it_gives_is_not_rounded_silently(shapes, tmp_path):
    with pytest.raises(UserError, match=r"gave torch.float32, and announced torch.float16"):
        run(shapes, tmp_path, "backbone=colour", "backbone._target_=test_features.Boast")


def test_a_full_disk_is_said_before_the_first_image(shapes, tmp_path, runs, monkeypatch):
    monkeypatch.setattr(
        "diffcut_bench.store.feature_store.shutil.disk_usage", lambda path: type("Usage", (), {"free": 10})
    )
    with pytest.raises(UserError, match="10 B are free"):
        run(shapes, tmp_path)
    assert runs == []


def test_features_that_do_not_fit_half_precision_are_failures_that_say_so(shapes, tmp_path, monkeypatch):
    forward = EfficientNetLite0.forward
    monkeypatch.setattr(EfficientNetLite0, "forward", lambda self, images: forward(self, images) * 1e9)
    with pytest.raises(UserError, match="features leave the range of float16"):
        run(shapes, tmp_path, "features.dtype=float16")
    cell, _ = run(shapes, tmp_path)
    assert not cell.result.failures, "what was computed fits the precision that it was computed in"


def test_a_backbone_may_want_another_image_size(shapes, tmp_path, monkeypatch):
    sizes = []
    forward = EfficientNetLite0.forward

    def seen(self: EfficientNetLite0, images: torch.Tensor) -> torch.Tensor:
        sizes.append(tuple(images.shape[2:]))
        return forward(self, images)

    monkeypatch.setattr(EfficientNetLite0, "forward", seen)
    run(shapes, tmp_path, "+backbone.image_size=192")
    assert set(sizes) == {(192, 192)}
    sizes.clear()
    run(shapes, tmp_path, "+backbone.image_size=192", "protocol=strict")
    assert all(max(size) == 192 and min(size) % 32 == 0 for size in sizes)


def test_features_command_lists_verifies_and_clears(cli, shapes, tmp_path):
    run(shapes, tmp_path)
    run(shapes, tmp_path, "features.dtype=float16")
    listed = cli("features", "list", f"output_dir={tmp_path}")
    assert listed.code == 0
    assert "2 sets" in listed.out
    assert "image_size 128" in listed.out
    assert "float32, as computed" in listed.out
    assert "float16, computed in float32" in listed.out
    verified = cli("features", "verify", f"output_dir={tmp_path}")
    assert verified.code == 0
    assert verified.out.count("8 images intact") == 2
    shard = next((tmp_path / "features").glob("*/*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    damaged = cli("features", "verify", f"output_dir={tmp_path}")
    assert damaged.code == 1
    assert f"{shard.name} damaged, set aside" in damaged.out
    assert cli("features", "clear", f"output_dir={tmp_path}").code == 2
    assert "did you mean" in cli("features", "clear", shard.parent.name[:-1], f"output_dir={tmp_path}").err
    assert cli("features", "clear", shard.parent.name, f"output_dir={tmp_path}").code == 0
    assert "1 sets" in cli("features", "list", f"output_dir={tmp_path}").out
    assert cli("features", "clear", "all", f"output_dir={tmp_path}").code == 0
    assert list((tmp_path / "features").iterdir()) == []


class Leaky(Colour):
    """A backbone that breaks its contract: an image's features depend on the rest of the batch."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = super().forward(images)
        return features - features.mean(dim=0, keepdim=True)


def test_check_reports_on_a_backbone(cli):
    fine = cli("check")
    assert fine.code == 0
    assert "[2, 320, 8, 4]" in fine.out
    assert "keeps its contract" in fine.out
    assert EfficientNetLite0().fingerprint()["weights_sha256"] in fine.out.replace("\n", "").replace(" ", "")
    leaky = cli("check", "backbone=colour", "backbone._target_=test_features.Leaky")
    assert leaky.code == 1
    assert "breaks its contract: batch of 1 = batch of 2" in leaky.out


def test_doctor_does_not_download(cli, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *a, **k: pytest.fail("doctor downloads"))
    report = cli("doctor", "--all", f"output_dir={tmp_path}")
    assert report.code == 0
    assert "backbone=ssd1b" in report.out
    assert "not downloaded yet" in report.out or "segmind/SSD-1B missing" in report.out
