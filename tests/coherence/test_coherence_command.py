import argparse
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import shapes_overrides
from PIL import Image

from diffcut_bench.coherence import measure as room
from diffcut_bench.commands.arguments import COMMANDS
from diffcut_bench.commands.coherence import coherence
from diffcut_bench.config import RunConfig
from diffcut_bench.datasets import SegmentationDataset
from diffcut_bench.errors import UserError
from diffcut_bench.scoring.passes import open_dataset

Measure = Callable[..., dict[str, Any]]


@pytest.fixture
def measure(tmp_path: Path, shapes: Path) -> Measure:
    """Run the command on the shapes, or on the data that overrides name; gives the record, its folder under
    ``folder``.
    """

    def run(*arguments: str, data: list[str] | None = None) -> dict[str, Any]:
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        parser = argparse.ArgumentParser()
        COMMANDS["coherence"].add_arguments(parser)
        parser.add_argument("overrides", nargs="*")
        given = [*(data or shapes_overrides(shapes, out)), f"output_dir={out}", "device=cpu"]
        assert coherence(parser.parse_intermixed_args([*given, "protocol.image_size=256", *arguments])) == 0
        (path,) = out.glob("coherence/*/coherence.json")
        return {**json.loads(path.read_text()), "folder": path.parent}

    return run


def comparable(record: dict[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in ("options", "counts", "mark", "backbones")}


def test_several_backbones_on_the_same_pairs(measure, capsys):
    record = measure("backbone=efficientnet_lite0,colour", "--background", "keep")
    printed = capsys.readouterr().out
    assert [row["name"] for row in record["backbones"]] == ["efficientnet_lite0", "colour"]
    for row in record["backbones"]:
        assert f"{row['auc']:.3f}" in printed
        assert row["auc_ci95"][0] <= row["auc"] <= row["auc_ci95"][1]
        assert len(row["roc"]) <= 200
        assert row["fingerprint"]
    for name, value in record["options"].items():
        assert f"{name}={value}" in printed
    assert record["counts"]["pairs"] == 28
    for name, kind in (("roc.png", "PNG"), ("heatmaps.png", "PNG")):
        assert Image.open(record["folder"] / name).format == kind
    assert "efficientnet_lite0" in (record["folder"] / "roc.svg").read_text()
    # A backbone's figure does not depend on its company.
    assert measure("--background", "keep")["backbones"] == record["backbones"][:1]


def test_neither_batch_size_nor_order_changes_the_result(measure, monkeypatch):
    record = measure("batch_size=1", "--patches", "16")
    assert comparable(measure("batch_size=3", "--patches", "16")) == comparable(record)
    assert measure("seed=7", "--patches", "16")["backbones"] != record["backbones"]

    def reversed_dataset(config: RunConfig) -> SegmentationDataset:
        dataset = open_dataset(config)
        return replace(dataset, records=dataset.records.select(range(len(dataset))[::-1]))

    monkeypatch.setattr(room, "open_dataset", reversed_dataset)
    assert comparable(measure("--patches", "16")) == comparable(record)


def test_images_are_drawn_at_random_with_a_seed(measure):
    first, drawn = (measure("limit=3", *words)["dataset"] for words in ((), ("limit_seed=1",)))
    assert first["n_images"] == drawn["n_images"] == 3
    assert first["fingerprint"] != drawn["fingerprint"]


def test_whole_images_of_any_aspect_ratio(measure, shapes):
    """151×92: the aspect ratio in pixels of the network's input and of the scored label differ by a row of patches."""
    for folder in ("images", "labels"):
        for path in (shapes / folder).iterdir():
            Image.open(path).resize((151, 92), Image.Resampling.NEAREST).save(path)
    record = measure("backbone=efficientnet_lite0,colour", "protocol.crop=none", "--mixed", "majority")
    assert record["counts"]["images"] == 8
    assert record["protocol"]["crop"] == "none"


def test_an_unreadable_image_is_left_out_and_named(measure, shapes, capsys):
    (shapes / "images" / "picture3.png").write_bytes(b"nothing")
    record = measure()
    assert [failure["id"] for failure in record["failures"]] == ["picture3"]
    assert record["counts"]["images"] == 7
    assert "left out picture3" in capsys.readouterr().out
    with pytest.raises(UserError, match="max_failures"):
        measure("max_failures=0")
    with pytest.raises(UserError, match="picture3"):
        measure("--mark-images", "picture3,picture4")


def test_the_users_patch(measure):
    record = measure("--mark", "10,12", "--mark-images", "picture1,picture5")
    mark = record["mark"]
    assert (mark["first"], mark["second"], mark["row"], mark["col"]) == ("picture1", "picture5", 10, 12)
    assert mark["class"] in ("class 0", "class 1", "class 2", "void")
    assert measure()["key"] != record["key"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["limit=1"], "two images, not 1"),
        (["--patches", "1"], "patches must be at least 2"),
        (["--purity", "1.5"], "purity must be"),
        (["--mark", "3,3"], "not in which image"),
        (["--mark", "3", "--mark-images", "picture1,picture2"], "is no patch"),
        (["--mark", "32,0", "--mark-images", "picture1,picture2"], "outside the grid of 32×32"),
        (["--mark-images", "picture1,pictur2"], "no image 'pictur2'"),
        (["--mark-images", "picture1"], "no image ''"),
        (["backbone=efficientnet_lite0,color"], "unknown option backbone=color"),
    ],
)
def test_mistakes_are_explained(measure, arguments, message):
    with pytest.raises(UserError, match=message):
        measure(*arguments)


def test_without_a_class_in_two_images_there_is_no_heat_map(measure, capsys):
    record = measure("limit=1", "--pairs", "within")
    assert record["mark"] is None
    assert not (record["folder"] / "heatmaps.png").exists()
    assert "no heat maps" in capsys.readouterr().out


@pytest.mark.shared
def test_a_learned_feature_beats_raw_colour_on_voc(measure, shared):
    data = ["dataset=voc", f"dataset.root={shared / 'samples' / 'VOCdevkit'}", "prepared=never"]
    record = measure("backbone=efficientnet_lite0,colour", "protocol.image_size=512", data=data)
    learned, colour = (row["auc"] for row in record["backbones"])
    assert learned > 0.6
    assert learned > colour + 0.1
