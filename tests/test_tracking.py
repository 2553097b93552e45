"""Trackers beside whole commands: they are told of every cell and sweep, and can't harm either."""

import json
import re
import sys
from pathlib import Path

import pytest
from conftest import shapes_overrides

from diffcut_bench.store import Result

TRACKER = """
import json
from pathlib import Path


class Notes:
    def __init__(self, folder, broken=False):
        self.folder, self.broken = Path(folder), broken

    def log_cell(self, folder, result, dataset, outcomes, group=None):
        if self.broken:
            raise RuntimeError("no network\\nno luck")
        shown = [outcome.example.id for outcome in outcomes(2)]
        self.folder.mkdir(exist_ok=True)
        (self.folder / f"{result.key}.json").write_text(json.dumps([shown, dataset.name, group]))
        return [f"noted {result.key[:8]}"]

    def log_sweep(self, name, results):
        if self.broken:
            raise RuntimeError("no network\\nno luck")
        (self.folder / "sweep.json").write_text(json.dumps([name, [result.key for result in results]]))
        return ["noted the sweep"]
"""


@pytest.fixture
def own(tmp_path, monkeypatch) -> list[str]:
    """Overrides that make a tracker of one's own the tracker."""
    (tmp_path / "notes_tracker.py").write_text(TRACKER)
    monkeypatch.syspath_prepend(tmp_path)
    option = tmp_path / "options" / "tracker" / "notes.yaml"
    option.parent.mkdir(parents=True)
    option.write_text(f"_target_: notes_tracker.Notes\nfolder: {tmp_path / 'notes'}\nbroken: false\n")
    yield [f"hydra.searchpath=[file://{tmp_path / 'options'}]", "tracker=notes"]
    sys.modules.pop("notes_tracker", None)


def results(out: Path) -> dict[str, Result]:
    found = [Result.from_json(path.read_text()) for path in out.glob("results/*/result.json")]
    return {result.key: result for result in found}


def test_a_tracker_is_told_of_cells_and_sweep(cli, shapes, tmp_path, own):
    done = cli("run", "-m", *own, *shapes_overrides(shapes, tmp_path / "out"), "segmenter.tau=0.3,0.7", "limit=3")
    assert done.code == 0, done.err
    keys = set(results(tmp_path / "out"))
    (sweep,) = (tmp_path / "out" / "sweeps").iterdir()
    for key in keys:
        noted = json.loads((tmp_path / "notes" / f"{key}.json").read_text())
        assert noted == [["picture0", "picture1"], "folder", sweep.name]
        assert f"noted {key[:8]}" in done.out
    name, logged = json.loads((tmp_path / "notes" / "sweep.json").read_text())
    assert (name, set(logged)) == (sweep.name, keys)


def test_a_broken_tracker_costs_a_line_and_nothing_else(cli, shapes, tmp_path, own):
    base = [*shapes_overrides(shapes, tmp_path / "out"), "segmenter.tau=0.3,0.7", "limit=3"]
    done = cli("run", "-m", *own, "tracker.broken=true", *base)
    assert done.code == 0
    told = r"^tracker: [-\w]+ is not logged \(RuntimeError: no network no luck\); its results on disk are complete$"
    assert len(re.findall(told, done.out, re.MULTILINE)) == 3
    plain = cli("run", "-m", *(o.replace(str(tmp_path / "out"), str(tmp_path / "plain")) for o in base))
    assert plain.code == 0
    tracked, untracked = results(tmp_path / "out"), results(tmp_path / "plain")
    assert tracked.keys() == untracked.keys(), "a tracker is no part of the key"
    assert all(tracked[key].metrics == untracked[key].metrics for key in tracked)


def test_a_finished_cell_is_logged_afterwards(cli, shapes, tmp_path, own):
    base = [*shapes_overrides(shapes, tmp_path / "out"), "limit=2"]
    cli("run", *base)
    assert not (tmp_path / "notes").exists()
    done = cli("run", *own, *base)
    assert "skipped" in done.out
    assert len(list((tmp_path / "notes").iterdir())) == 1


def test_options_of_a_tracker_are_checked_before_any_work(cli, shapes, tmp_path):
    done = cli("run", *shapes_overrides(shapes, tmp_path / "out"), "tracker=wandb", "tracker.mode=onlin")
    assert done.code == 2
    assert "mode must be auto, online or offline" in done.err
    assert not (tmp_path / "out" / "results").exists()


def test_a_run_of_wandb_beside_a_run(cli, shapes, tmp_path, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no login from there
    done = cli("run", *shapes_overrides(shapes, tmp_path / "out"), "tracker=wandb", "limit=2", "tracker.examples=1")
    assert done.code == 0, done.err
    (folder,) = (tmp_path / "out" / "results").iterdir()
    record = json.loads((folder / "wandb.json").read_text())
    assert f"wandb sync {record['directory']}" in done.out
    assert list(Path(record["directory"]).glob("*.wandb"))
