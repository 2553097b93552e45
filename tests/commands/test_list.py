"""``diffcut-bench list``: what is finished, how far the rest is; at once, and whatever lies in the folder."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from diffcut_bench.cli import main
from diffcut_bench.commands.terminal import console
from diffcut_bench.store import CellLock


@pytest.fixture
def out(kept_cells, tmp_path) -> Path:
    return shutil.copytree(kept_cells / "out", tmp_path / "out", ignore=shutil.ignore_patterns("features"))


def listed(cli, *words: object) -> list[dict[str, object]]:
    done = cli("list", *words, "--json")
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


def test_each_cell_has_a_line_with_what_tells_it_apart(out, cli):
    done = cli("list", out, "--sort", "name")
    assert (done.code, done.err) == (0, "")
    heading, *lines, hidden = done.out.splitlines()
    assert heading.split() == ["when", "mIoU", "images", "key", "cell"]
    assert hidden == "2 shards of merged cells not shown (--all shows them)"
    told = {
        tau: [line for line in lines if f"tau={tau}" in line.split()] for tau in ("0.3", "0.4", "0.45", "0.5", "0.6")
    }
    assert all(len(found) == 1 for found in told.values()) and len(lines) == 5
    assert "  4/12  " in told["0.5"][0] and "–" in told["0.5"][0] and "interrupted" in told["0.5"][0]
    assert "shard 2/2" in told["0.45"][0] and "shard" not in told["0.4"][0]
    for path in out.glob("results/*/result.json"):
        record = json.loads(path.read_text())
        if not record["config"]["shard"]:
            (line,) = told[str(record["config"]["segmenter"]["tau"])]
            assert f" {100 * record['metrics']['miou']:.1f} " in line and record["key"][:8] in line
    assert len(cli("list", out, "--all").out.splitlines()) == 1 + 7
    by_accuracy = cli("list", out, "score=pixel_accuracy").out
    records = [json.loads(path.read_text()) for path in out.glob("results/*/result.json")]
    accuracies = [record["metrics"]["pixel_accuracy"] for record in records]
    assert sum(f" {100 * value:.1f} " in by_accuracy for value in accuracies) >= 4, "a fraction is in percent"


def test_it_tells_cells_apart_as_a_report_does(out, cli):
    cells = [
        path
        for path in sorted(out.glob("results/*/result.json"))
        if not json.loads(path.read_text())["config"]["shard"]
    ]
    for path, own in zip(cells, ({"name": "strict", "criterion": "iou"}, {}), strict=False):
        record = json.loads(path.read_text())
        record["config"]["protocol"] |= own
        record["config"]["segmenter"] |= {
            "weights": f"/home/alice/deep/{path.parent.name}.pt",
            "api_key": path.parent.name,
        }
        path.write_text(json.dumps(record))
        (path.parent / "SHA256SUMS").unlink(missing_ok=True)
    said = cli("list", out).out
    assert said.count("protocol=strict") == 1 and "criterion" not in said, "what the name stands for is told once"
    assert "api_key=*** (2)" in said and "weights=…/" in said and "deep" not in said


def test_it_fits_eighty_columns_and_keeps_what_differs(out, cli, monkeypatch):
    monkeypatch.setattr(console, "width", 80)
    _, *lines, _ = cli("list", out).out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert sum("tau=" in line for line in lines) == 5


def test_lines_for_scripts_are_sorted_as_asked(out, cli):
    for number, path in enumerate(sorted(out.glob("results/*/result.json"))):
        os.utime(path, (1_000_000 + number, 1_000_000 + number))
    by_date = listed(cli, out)
    assert [line["when"] for line in by_date] == sorted((line["when"] for line in by_date), reverse=True)
    assert by_date[0]["state"] == "interrupted"
    by_score = [line["scores"]["miou"]["value"] for line in listed(cli, out, "--sort", "score") if line["scores"]]
    assert by_score == sorted(by_score, reverse=True) and len(set(by_score)) > 1
    by_voi = [each["scores"]["voi"]["value"] for each in listed(cli, out, "--sort", "score", "score=voi")[:-1]]
    assert by_voi == sorted(by_voi), "less is better"
    (line,) = listed(cli, f"output_dir={out}", "--unfinished")
    assert (line["images"], line["of"], line["state"], line["choices"]["backbone"]) == (4, 12, "interrupted", "colour")
    assert {"low", "high"} < set(listed(cli, out, "--sort", "score")[0]["scores"]["miou"])


def test_a_cell_that_a_process_is_at_runs(out, cli):
    (line,) = listed(cli, out, "--unfinished")
    lock = CellLock(out / ".locks" / f"{line['key'][:12]}.lock")
    assert lock.acquire()
    assert [line["state"] for line in listed(cli, out, "--unfinished")] == ["running"]
    lock.release()
    assert [line["state"] for line in listed(cli, out, "--unfinished")] == ["interrupted"]


def test_what_is_no_cell_is_named_and_left_out(out, cli, tmp_path):
    first, second, *_ = sorted(out.glob("results/*/result.json"))
    first.write_text("{")
    (out / "results" / "mine").mkdir()
    (out / "results" / "notes.txt").write_text("mine")
    (journal,) = out.glob("unfinished/*/journal.jsonl")
    (journal.parent / "cell.json").write_text('{"key": 3}')
    other = out / "unfinished" / "older"
    other.mkdir()
    (other / "journal.jsonl").write_text("nonsense")
    done = cli("list", out, "--all")
    assert done.code == 0
    assert done.err.count("left out (") == 3
    assert "holds no result.json" in done.err and str(first) in done.err and "cell.json" in done.err
    assert "  0/?  older" in done.out, "an older version did not say what it is of"
    record = json.loads(second.read_text())
    record["config"].update(choices="none", segmenter="x\nevil", shard=["1/2"])
    second.write_text(json.dumps(record))
    (second.parent / "SHA256SUMS").unlink()
    assert cli("list", out).code == 0
    missing = cli("list", tmp_path / "nowhere")
    assert missing.code == 2
    assert "no such folder" in missing.err
    assert "no cells in" in cli("list", tmp_path).out


def test_it_waits_for_no_heavy_library(out):
    program = (
        "import sys; from diffcut_bench import cli; code = cli.main(sys.argv[1:])\n"
        "print(code, [name for name in ('torch', 'datasets', 'matplotlib', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program, "list", out], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])  # the latter is that of the locale C
def test_a_terminal_without_unicode_shows_what_it_can(errors, out, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", errors=errors, write_through=True))
    assert main(["list", str(out)]) == 0
    assert "folder-colour-diffcut" in written.getvalue().decode("ascii")
