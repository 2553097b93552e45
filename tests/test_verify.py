"""``verify`` finds what is not what was written, and the next run mends it."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import DATA, finished_cells, shapes_overrides

from diffcut_bench.config import load_config
from diffcut_bench.scoring.events import FinishedCell
from diffcut_bench.scoring.passes import run_cells


@pytest.fixture
def done(cli, shapes, tmp_path):
    """A finished cell's overrides and folder."""
    base = [*shapes_overrides(shapes, tmp_path / "out"), "backbone=colour"]
    assert cli("run", *base).code == 0
    (folder,) = (tmp_path / "out").glob("results/*")
    return base, folder


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_an_intact_folder_is_fine(cli, done, tmp_path):
    found = cli("verify", tmp_path / "out")
    assert found.code == 0, found.out
    assert "results: 1" in found.out
    assert "8 images intact" in found.out
    assert cli("verify", f"output_dir={tmp_path / 'out'}").out == found.out
    assert cli("verify", tmp_path / "nowhere").code == 2


@pytest.mark.parametrize("name", ["result.json", "per_image.parquet", "SHA256SUMS"])
def test_a_damaged_file_is_named_and_computed_again(cli, done, tmp_path, name):
    base, folder = done
    before = finished_cells(tmp_path / "out")
    flip(folder / name, 40)
    found = cli("verify", tmp_path / "out")
    assert found.code == 1
    assert f"result   {folder}" in found.out
    again = cli("run", *base)
    assert again.code == 0
    assert f"damaged  {folder}" in again.out
    assert "computed again" in again.out
    assert finished_cells(tmp_path / "out") == before
    assert cli("verify", tmp_path / "out").code == 0


def test_a_changed_config_is_found_and_costs_no_result(cli, done, tmp_path):
    base, folder = done
    flip(folder / "config.yaml", 40)
    found = cli("verify", tmp_path / "out")
    assert found.code == 1
    assert "config.yaml is not what was written" in found.out
    assert "skipped" in cli("run", *base).out


def test_a_missing_file_is_no_finished_cell(cli, done, tmp_path):
    base, folder = done
    (folder / "per_image.parquet").unlink()
    assert cli("verify", tmp_path / "out").code == 1
    assert "skipped" not in cli("run", *base).out
    assert "skipped" in cli("run", *base).out


def test_scores_that_are_not_those_of_the_rows_are_found(cli, done, tmp_path):
    _, folder = done
    rows = pq.read_table(folder / "per_image.parquet").to_pylist()
    rows[0]["tp"][0] += 9
    pq.write_table(pa.Table.from_pylist(rows), folder / "per_image.parquet")
    (folder / "SHA256SUMS").unlink()
    found = cli("verify", tmp_path / "out")
    assert found.code == 1
    assert "its mIoU (" in found.out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda scores: scores["miou"]["ci95"].reverse(), "its mIoU (ci95.0) is"),
        (
            lambda scores: scores["miou"]["per_class"].update(dict.fromkeys(scores["miou"]["per_class"], 0.99)),
            "is 0.99",
        ),
        (lambda scores: scores["segments"].update(value=1.5), "its segments (value) is 1.5"),
        (lambda scores: scores.update(jaccard={"value": 0.5}), "it has the score image Jaccard"),
        (lambda scores: scores.update(unknown={"value": 0.5}), "fine"),
    ],
    ids=["interval", "class", "segments", "invented", "of another version"],
)
def test_every_score_is_that_of_the_rows(cli, done, tmp_path, change, said):
    _, folder = done
    raw = json.loads((folder / "result.json").read_text())
    change(raw["scores"])
    raw["metrics"]["miou_ci95"] = raw["scores"]["miou"]["ci95"]
    raw["metrics"]["iou_per_class"] = raw["scores"]["miou"]["per_class"]
    (folder / "result.json").write_text(json.dumps(raw))
    (folder / "SHA256SUMS").unlink()
    assert said in cli("verify", tmp_path / "out").out


def test_another_cells_result_is_found(cli, done, tmp_path):
    base, folder = done
    assert cli("run", *base, "segmenter.tau=0.7").code == 0
    other = next(path for path in (tmp_path / "out").glob("results/*") if path != folder)
    shutil.rmtree(folder)
    shutil.copytree(other, folder)
    assert "the result of another cell" in cli("verify", tmp_path / "out").out
    assert "the result of another cell" in cli("run", *base).out


@pytest.mark.usefixtures("done")
def test_journals_records_and_older_results_are_looked_at(cli, tmp_path):
    work = tmp_path / "out" / "unfinished" / "0123456789ab"
    work.mkdir(parents=True)
    (work / "journal.jsonl").write_text('{"rows": []}\n')
    (tmp_path / "out" / "sweeps" / "one").mkdir(parents=True)
    (tmp_path / "out" / "sweeps" / "one" / "cells.json").write_text("[" * 10_000)
    old = tmp_path / "out" / "results" / "old"
    old.mkdir()
    shutil.copy(DATA / "result_v1.json", old / "result.json")
    found = cli("verify", tmp_path / "out")
    assert found.code == 1
    assert "1 lines cut off or changed" in found.out
    assert "cells.json: can't be read" in found.out
    assert f"{old / 'per_image.parquet'}: rows of this cell can't be read (No such file" in found.out


def test_a_killed_resume_is_resumed(cli, shapes, tmp_path, monkeypatch):
    """A kill between the pictures' copy and the journal once left a folder in the way."""
    broken = shapes / "images" / "picture3.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:100])
    base = [*shapes_overrides(shapes, tmp_path / "out"), "backbone=colour", "visualise=2"]
    assert cli("run", *base).code == 0
    copied = shutil.copytree

    def killed(*arguments: object, **options: object) -> None:
        copied(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.copytree", killed)
    assert cli("run", *base, "if_exists=resume").code == 130
    monkeypatch.undo()
    again = cli("run", *base, "if_exists=resume")
    assert again.code == 0, again.err
    assert len(list((tmp_path / "out").glob("results/*/pictures/*.png"))) == 2


def test_other_versions_of_packages_are_said(cli, done):
    base, folder = done
    record = json.loads((folder / "result.json").read_text())
    packages = record["environment"]["packages"]
    # A result of old may name torch without its build.
    packages |= {"pillow": "1.0", "torch": packages["torch"].partition("+")[0]}
    (folder / "result.json").write_text(json.dumps(record))
    (folder / "SHA256SUMS").unlink()
    said = cli("run", *base).out
    assert "made with pillow 1.0 (now " in said
    assert "torch" not in said.partition("made with")[2].splitlines()[0]


def test_cells_of_one_key_are_scored_once(shapes, tmp_path):
    base = [*shapes_overrides(shapes, tmp_path / "out"), "backbone=colour"]
    configs = [load_config([*base, f"segmenter.max_memory_gib={n}"]) for n in (4, 5)]
    first, second = run_cells(configs)
    assert isinstance(first, FinishedCell)
    assert isinstance(second, FinishedCell)
    assert first.folder == second.folder
    assert len(list((tmp_path / "out").glob("results/*"))) == 1
