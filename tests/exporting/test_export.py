"""``diffcut-bench export``: tables, leaderboard and card say what result.json says, and nothing that is private."""

import csv
import hashlib
import json
import re
import shutil
from pathlib import Path

import jsonschema
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import DATA

from diffcut_bench.redaction import HIDDEN
from diffcut_bench.store import Result, finished_cells

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "leaderboard.schema.json").read_text())


@pytest.fixture
def out(kept_cells, tmp_path) -> Path:
    """The finished cells: four that are shown, and two shards of a merged one."""
    left = shutil.ignore_patterns("features", "unfinished", "SHA256SUMS")
    return shutil.copytree(kept_cells / "out", tmp_path / "out", ignore=left)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows_of(folder: Path, name: str = "cells") -> list[dict[str, object]]:
    return pq.read_table(folder / f"{name}.parquet").to_pylist()


def results_of(out: Path) -> dict[str, Result]:
    return {result.key: result for _, result in results_by_folder(out)}


def results_by_folder(out: Path) -> list[tuple[Path, Result]]:
    return finished_cells(out, lambda path, why: pytest.fail(why))


def leaderboard_of(folder: Path) -> dict[str, object]:
    board = json.loads((folder / "leaderboard.json").read_text())
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator(SCHEMA).validate(board)
    return board


def test_a_row_a_cell_has_every_setting_and_score(out, cli, tmp_path):
    target = tmp_path / "export"
    done = cli("export", target, f"output_dir={out}")
    assert done.code == 0, done.err
    rows, results = {row["key"]: row for row in rows_of(target)}, results_of(out)
    shards = {key for key, result in results.items() if result.shard and result.config["segmenter"]["tau"] == 0.4}
    assert rows.keys() == results.keys() - shards and len(rows) == 4
    for key, row in rows.items():
        result = results[key]
        assert row["segmenter.tau"] == result.config["segmenter"]["tau"]
        assert (row["dataset.num_classes"], row["refiner.dilations"]) == (3, "[1, 2, 4, 8]")
        assert (row["segmenter"], row["limit"], row["protocol.image_size"]) == ("diffcut", None, 128)
        for name, score in result.scores.items():
            assert [row[name], row[f"{name}_low"], row[f"{name}_high"]] == [score.value, *score.ci95]
        assert (row["images"], row["segments_mean"]) == (result.dataset.n_images, result.segments_per_image.mean)
        assert (row["limited"], row["shard"]) == (result.limited, result.config["shard"])
        assert row["version_torch"] == result.environment.packages["torch"]
        assert row["wall_s"] == result.timings.wall_s
    with (target / "cells.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [*lines[0]] == pq.read_schema(target / "cells.parquet").names
    for line, row in zip(lines, rows_of(target), strict=True):
        assert (line["key"], float(line["miou"]), line["limit"]) == (row["key"], row["miou"], "")
        assert line["limited"] == str(row["limited"]).lower()
    classes = rows_of(target, "classes")
    for row in classes:
        assert row["score"] == results[row["key"]].scores[row["metric"]].per_class[row["class"]]
    assert {row["class"] for row in classes} == set(next(iter(results.values())).class_names)


def test_the_leaderboard_ranks_whole_cells_of_the_same_images(out, cli, tmp_path):
    target = tmp_path / "export"
    assert cli("export", target, f"output_dir={out}").code == 0
    (board,) = leaderboard_of(target)["boards"]
    assert (board["dataset"]["name"], board["dataset"]["images"], board["metric"]["name"]) == ("folder", 12, "miou")
    assert [cell["rank"] for cell in board["cells"]] == [1, 2, 3]
    scores = [cell["score"] for cell in board["cells"]]
    assert scores == sorted(scores, reverse=True)
    assert all(cell["settings"]["shard"] is None for cell in board["cells"]), "a shard is of fewer images"
    assert cli("export", target, f"output_dir={out}", "score=voi").code == 0
    (board,) = leaderboard_of(target)["boards"]
    scores = [cell["score"] for cell in board["cells"]]
    assert scores == sorted(scores), "less is better"
    broken = json.loads((target / "leaderboard.json").read_text())
    del broken["boards"][0]["cells"][0]["low"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(SCHEMA).validate(broken)


def test_the_hub_reads_it(out, cli, tmp_path):
    datasets = pytest.importorskip("datasets")
    target = tmp_path / "my export"
    done = cli("export", target, f"output_dir={out}", "--license", "cc-by-4.0")
    assert f"hf upload OWNER/NAME '{target}' --repo-type dataset" in done.out
    front = yaml.safe_load((target / "README.md").read_text().split("---\n")[1])
    assert front["license"] == "cc-by-4.0" and "image-segmentation" in front["task_categories"]
    assert [config["config_name"] for config in front["configs"]] == ["cells", "classes", "per_image"]
    cells = datasets.load_dataset(str(target), split="train", cache_dir=str(tmp_path / "cache"))
    assert cells["key"][:] == [row["key"] for row in rows_of(target)]
    assert cells.features["miou"].dtype == cells.features["segmenter.tau"].dtype == "float64"
    images = datasets.load_dataset(str(target), "per_image", split="train", cache_dir=str(tmp_path / "cache"))
    best = next(row for row in rows_of(target) if row["segmenter.tau"] == 0.6)
    own = images.filter(lambda row: row["key"] == best["key"])
    assert len(own) == 12 and len(own["tp"][0]) == 3
    of_classes = zip(*(map(sum, zip(*own[name], strict=True)) for name in ("tp", "fp", "fn")), strict=True)
    ious = [tp / (tp + fp + fn) for tp, fp, fn in of_classes]
    assert sum(ious) / 3 == pytest.approx(best["miou"], abs=1e-9), "scores follow from the rows of images"


def test_equal_results_give_equal_bytes_and_others_join(out, cli, tmp_path):
    other, first, second = tmp_path / "other", tmp_path / "first", tmp_path / "second"
    (other / "results").mkdir(parents=True)
    moved, again, *_ = (path for path, result in results_by_folder(out) if not result.shard)
    shutil.move(moved, other / "results")
    shutil.copytree(again, other / "results" / again.name)
    assert cli("export", first, f"output_dir={out}", "--from", other).code == 0
    assert cli("export", second, f"output_dir={other}", "--from", out).code == 0
    assert files_of(first) == files_of(second)
    assert len(rows_of(first)) == 4
    lines = (first / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    written = files_of(first)
    del written["SHA256SUMS"]
    assert sums == {name: hashlib.sha256(content).hexdigest() for name, content in written.items()}


def test_an_export_replaces_an_earlier_one_and_nothing_else(out, cli, tmp_path):
    target = tmp_path / "export"
    assert cli("export", target, f"output_dir={out}").code == 0
    (target / "notes.txt").write_text("mine")
    (target / "per_image" / "mine.csv").write_text("mine")
    before = files_of(target)
    gone = next(path for path, result in results_by_folder(out) if result.config["segmenter"]["tau"] == 0.3)
    shutil.rmtree(gone)
    (target / "README.md").write_text("a card of my own")
    refused = cli("export", target, f"output_dir={out}")
    assert refused.code == 2
    assert "README.md" in refused.err and "would be lost" in refused.err
    assert files_of(target) == {**before, "README.md": b"a card of my own"}
    (target / "README.md").write_bytes(before["README.md"])
    assert cli("export", target, f"output_dir={out}").code == 0
    after = files_of(target)
    assert len(before.keys() - after.keys()) == 1 and not after.keys() - before.keys()
    assert after["notes.txt"] == after["per_image/mine.csv"] == b"mine"


def test_mistakes_say_what_to_type(out, cli, tmp_path):
    for words, said in (
        ((tmp_path / "a", tmp_path / "b", f"output_dir={out}"), "one folder"),
        ((tmp_path / "a", f"output_dir={tmp_path / 'none'}"), "no results to export"),
        ((tmp_path / "a", f"output_dir={out}", "--from", tmp_path / "none"), "no results here"),
        ((tmp_path / "a", f"output_dir={out}", "--license", "x: y"), "no licence of the hub"),
    ):
        done = cli("export", *words)
        assert done.code == 2
        assert said in done.err and "next:" in done.err
    assert not (tmp_path / "a").exists()


def test_what_is_hostile_stays_text_and_in_its_place(out, cli, tmp_path):
    cell = next(path for path, result in results_by_folder(out) if not result.shard)
    record = json.loads((cell / "result.json").read_text())
    record["key"] = "../../../evil/key"
    record["config"]["choices"]["segmenter"] = '=HYPERLINK("https://x.example","a")'
    record["config"]["segmenter"].update({"a.b": "x\ny", "a": {"b": 1}, "much": "z" * 5000, "big": 10**40})
    record["config"]["miou"], record["config"]["\u001b[31m"] = "@SUM(1)", -1
    record["dataset"]["name"] = "a|b\n---\nlicense: evil\n<script>"
    shutil.copytree(cell, out / "results" / "crafted")
    (out / "results" / "crafted" / "result.json").write_text(json.dumps(record))
    before = {str(path) for path in tmp_path.parent.rglob("*evil*")}
    target = tmp_path / "export"
    done = cli("export", target, f"output_dir={out}")
    assert done.code == 0, done.err
    assert {str(path) for path in tmp_path.parent.rglob("*evil*")} - before == {
        str(path) for path in (target / "per_image").glob("*evil*")
    }
    with (target / "cells.csv").open(newline="") as file:
        (line,) = [line for line in csv.DictReader(file) if line["key"] == "…/key" or "evil" in line["key"]]
    assert line["segmenter"].startswith("'=HYPERLINK") and line["miou"] == "'@SUM(1)"
    assert line['segmenter."a.b"'] == "x\\ny" and line["segmenter.a.b"] == "1"
    assert float(line["score.miou"]) == record["metrics"]["miou"]
    assert float(line["segmenter.big"]) == 1e40 and len(line["segmenter.much"]) == 5000
    assert all(text.isprintable() for name, text in line.items() for text in (name, text))
    card = (target / "README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "unknown" and "<script>" not in card
    leaderboard_of(target)


PRIVATE = ("alice", "hunter2", "secret_project", "corp.example", str(Path.home()) + "/", "deep/er")


def with_private_settings(out: Path) -> tuple[Path, dict[str, object]]:
    """A result whose settings tell of folders, hosts, accounts and secrets, and its folder."""
    cell = next(path for path, result in results_by_folder(out) if not result.shard)
    record = json.loads((cell / "result.json").read_text())
    config = record["config"]
    config["dataset"]["root"] = "/home/alice/secret_project/voc"
    config["output_dir"] = config["data_dir"] = "/home/alice/runs"
    config["prepared"] = "s3://alice:hunter2@nas.corp.example/bucket/voc?token=hunter2"
    config["segmenter"] |= {"note": "see /home/alice/notes/plan.txt", "api_key": "hunter2", "my_file": "~/deep/er/x.pt"}
    config["tracker"] = {"_target_": "diffcut_bench.reporting.WandbTracker", "entity": "alice", "host": "nas"}
    record["environment"]["device"] = "cuda /home/alice/x"
    record["environment"]["packages"]["mine"] = "1.0 @ file:///home/alice/mine"
    config["segmenter"]["parts"] = [{"password": "hunter2", "file": "/home/alice/x"}]
    record["protocol"]["note"] = "alice@corp.example"
    (cell / "result.json").write_text(json.dumps(record))
    return cell, record


def test_nothing_private_leaves(out, cli, tmp_path):
    _, record = with_private_settings(out)
    shutil.copytree(out, tmp_path / "deep" / "hunter2" / "alice")
    target = tmp_path / "export"
    assert cli("export", target, f"output_dir={tmp_path / 'deep' / 'hunter2' / 'alice'}").code == 0
    written = b"".join(files_of(target).values()) + "".join(map(str, rows_of(target))).encode()
    for private in (*PRIVATE, str(tmp_path)):
        assert private.encode() not in written, private
    (row,) = [row for row in rows_of(target) if row["key"] == record["key"]]
    assert (row["dataset.root"], row["segmenter.note"]) == ("…/voc", "see …/plan.txt")
    assert row["segmenter.api_key"] == row["tracker.entity"] == HIDDEN
    assert not re.search(r"[{]output_dir[}]", str(rows_of(target)))


def test_a_report_hides_what_an_export_hides(out, cli, tmp_path):
    cell, record = with_private_settings(out)
    other = shutil.copytree(cell, out / "results" / "other-aaaa")
    record["config"]["segmenter"] |= {"api_key": "hunter2 of alice", "my_file": "/home/bob/er/y.pt"}
    record["key"] = "a" * 64
    record["dataset"]["name"] = "/home/alice/shapes"
    (other / "result.json").write_text(json.dumps(record))
    for folder in (cell, other):  # changed, so that nothing is known of their images
        (folder / "SHA256SUMS").unlink(missing_ok=True)
    done = cli("report", out, "--gallery", "0")
    assert done.code == 0, done.err
    written = b"".join(content for name, content in files_of(out / "reports").items() if not name.endswith(".png"))
    for private in (*PRIVATE, str(tmp_path), "bob"):
        assert private.encode() not in written, private
    table = (out / "reports" / "tables" / "results.csv").read_text()
    assert f"{HIDDEN} (1)" in table and f"{HIDDEN} (2)" in table, "what may not be seen is told apart all the same"


def test_a_result_that_lies_in_the_folder_of_another_stands_for_none(out, cli, tmp_path):
    (first, _), (second, other), *_ = [cell for cell in results_by_folder(out) if not cell[1].shard]
    record = json.loads((first / "result.json").read_text())
    (first / "result.json").write_text(json.dumps({**record, "key": other.key}))
    done = cli("export", tmp_path / "export", f"output_dir={out}")
    assert done.code == 0 and "the result of another cell" in done.err
    assert [row["cell"] for row in rows_of(tmp_path / "export") if row["key"] == other.key] == [second.name]


def test_whatever_a_protocol_is_named_the_schema_holds(out, cli, tmp_path):
    for (folder, _), name in zip(results_by_folder(out), (None, 3, ["a"], "own"), strict=False):
        record = json.loads((folder / "result.json").read_text())
        record["protocol"]["name"] = name
        (folder / "result.json").write_text(json.dumps(record))
    assert cli("export", tmp_path / "export", f"output_dir={out}").code == 0
    leaderboard_of(tmp_path / "export")


def test_results_of_older_versions_are_exported_too(tmp_path, cli):
    (tmp_path / "out" / "results" / "old").mkdir(parents=True)
    shutil.copy(DATA / "result_v1_before_identity.json", tmp_path / "out" / "results" / "old" / "result.json")
    done = cli("export", tmp_path / "export", f"output_dir={tmp_path / 'out'}")
    assert done.code == 0
    assert "its images: " in done.err
    (row,) = rows_of(tmp_path / "export")
    assert row["schema_version"] == 1 and 0 < row["miou"] < 1 and row["miou_images"] is None
    assert not (tmp_path / "export" / "per_image").exists()
    assert "per_image" not in (tmp_path / "export" / "README.md").read_text()
    leaderboard_of(tmp_path / "export")
