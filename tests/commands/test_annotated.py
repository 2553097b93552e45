"""Commands on a data set of annotators' segments: a run, shards, tables of the best settings, refusals."""

import csv
import json

import miniatures
import numpy as np
import pytest
import scipy.io

from diffcut_bench.reproduction import load_reproduction
from diffcut_bench.store import read_result, read_rows

IMAGES = 12
TABLE = """
title: Best of several
source: nobody
measure: column
columns: {covering_ods: [], covering_ois: [], voi_ods: [], voi_ois: [], boundary_f_ods: [], boundary_f_ois: []}
common: [dataset=bsds500, protocol=bsds, refiner=none]
rows:
  - {name: people, published: {covering_ods: 0.72}, not_run: they are people}
  - name: hierarchy
    overrides: [segmenter=ucm]
    sweep: ["segmenter.threshold=range(0.1,1,0.2)"]
    published: {covering_ods: 0.59}
  - {name: grid, overrides: [segmenter=grid], sweep: ["segmenter.rows=1,2", "segmenter.cols=1,2,3"]}
  - {name: one, overrides: [segmenter=one_segment]}
"""


@pytest.fixture
def berkeley(tmp_path):
    """Pictures of rectangles with two to four annotators, a hierarchy of each, and a table; overrides of both."""
    generator = np.random.default_rng(0)
    maps, folder = {}, tmp_path / "ucm"
    folder.mkdir()
    for number in range(IMAGES):
        ucm = np.zeros((2 * 40 + 1, 2 * 60 + 1))
        cuts = sorted(generator.choice(np.arange(4, 56, 4), 3, replace=False))
        ucm[:, 2 * cuts[0]], ucm[:, 2 * cuts[1]], ucm[:, 2 * cuts[2]] = generator.permutation([0.2, 0.45, 0.7])
        columns = np.arange(60)
        of_each = [1 + sum(columns >= cut for cut in cuts[: 1 + each % 3]) for each in range(2 + number % 3)]
        maps[f"{number}"] = [np.repeat(each[None], 40, axis=0) for each in of_each]
        scipy.io.savemat(folder / f"{number}.mat", {"ucm2": ucm})
    miniatures.write_bsds(tmp_path, maps)
    (tmp_path / "reproduction").mkdir()
    (tmp_path / "reproduction" / "best.yaml").write_text(TABLE)
    return [f"dataset.root={tmp_path}", f"output_dir={tmp_path / 'out'}"], [
        "--for",
        "hierarchy",
        f"segmenter.folder={folder}",
    ]


def read_cells(out):
    with (out / "reproductions" / "best" / "best_cells.csv").open(encoding="utf-8-sig") as file:
        return {(line["method"], line["column"]): line for line in csv.DictReader(file)}


@pytest.mark.slow
def test_a_table_of_best_settings(cli, berkeley, tmp_path):
    base, own = berkeley
    words = ["reproduce", "best", f"hydra.searchpath=[{tmp_path}]", *base, *own]
    planned = cli(*words, "--dry-run")
    assert planned.code == 0, planned.err
    assert "3 cells to run: 0 finished, 0 lack something, 1 not run" in planned.out
    assert f"images     {IMAGES * (5 + 6 + 1)} to score, features of 0 to compute" in planned.out
    done = cli(*words)
    assert done.code == 0, done.err
    assert len(list((tmp_path / "out" / "results").iterdir())) == 5 + 6 + 1, "each cell once for all columns"
    assert "3 finished" in cli(*words, "--status").out

    rows = {}
    for folder in (tmp_path / "out" / "results").iterdir():
        result = read_result(folder)
        assert result.metrics.miou is None and result.class_names == ()
        rows.setdefault(result.config["choices"]["segmenter"], []).append(read_rows(folder))
    cells = read_cells(tmp_path / "out")
    for method, segmenter in (("hierarchy", "ucm"), ("grid", "grid"), ("one", "one_segment")):
        for name, best in (("covering", np.max), ("voi", np.min)):
            scores = np.array([[row.measured[name][0] for row in each] for each in rows[segmenter]])
            ods, ois = (cells[method, f"{name}_{how}"] for how in ("ods", "ois"))
            assert float(ods["ours"]) == pytest.approx(best(scores.mean(axis=1)), abs=5e-5)
            assert float(ois["ours"]) == pytest.approx(best(scores, axis=0).mean(), abs=5e-5)
            assert float(ods["low"]) <= float(ods["ours"]) <= float(ods["high"])
    assert cells["hierarchy", "covering_ods"]["verdict"].startswith("limited: 12 of 200 images")
    assert cells["hierarchy", "covering_ois"]["verdict"].startswith("not stated")
    assert cells["people", "covering_ods"]["verdict"] == "not run: they are people"
    assert cells["hierarchy", "covering_ods"]["best at"] in done.out and "best at" in done.out
    assert cells["hierarchy", "covering_ois"]["best at"] == ""
    assert "covering ODS" in done.out and "VoI OIS" in done.out
    again = cli(*words)
    assert again.code == 0 and read_cells(tmp_path / "out") == cells


def test_other_commands_do_without_classes(cli, berkeley, tmp_path):
    base, (_, _, folder) = berkeley
    base = ["dataset=bsds500", "protocol=bsds", "refiner=none", *base]
    done = cli("run", *base, "segmenter=ucm", folder, "visualise=2")
    assert done.code == cli("run", *base, "segmenter=grid").code == 0, done.err
    cells = {path.name.split("-")[2]: path for path in (tmp_path / "out" / "results").iterdir()}
    assert len(list((cells["ucm"] / "pictures").glob("*.png"))) == 2
    written = json.loads((cells["ucm"] / "result.json").read_text())
    assert written["metrics"] == {"miou": None, "pixel_accuracy": None, "miou_ci95": None, "iou_per_class": {}}
    assert written["scores"]["covering"]["n"] == IMAGES and written["protocol"]["matching"] == "regions"
    assert all(row.tp == row.fp == row.fn == [] and row.pixels == 2400 for row in read_rows(cells["ucm"]))
    assert cli("verify", tmp_path / "out").code == 0
    listed = cli("data", "verify", "bsds500", *base[3:])
    assert "segments" in listed.out and "12 of 200" in listed.out

    shards = [word.replace("/out", "/shards") for word in base]
    for shard in ("1/2", "2/2"):
        assert cli("run", *shards, "segmenter=ucm", folder, f"shard={shard}").code == 0
    assert cli("merge", "--from", tmp_path / "shards", f"output_dir={tmp_path / 'merged'}").code == 0
    (merged,) = (tmp_path / "merged" / "results").iterdir()
    assert read_result(merged).scores == read_result(cells["ucm"]).scores


@pytest.mark.parametrize(
    ("overrides", "what", "hint"),
    [
        (["protocol=strict"], "segments of annotators", "use protocol=bsds"),
        (["protocol=bsds", "dataset=sample", "~dataset.root"], "segments that annotators drew", "use protocol=strict"),
        (["protocol=bsds", "segmenter=kmeans"], "knows no classes", "a number of its own"),
    ],
)
def test_what_does_not_go_together_is_refused(cli, berkeley, overrides, what, hint):
    base, _ = berkeley
    words = ["dataset=bsds500", "segmenter=grid", *base, *overrides]
    if "~dataset.root" in words:
        words = [word for word in words if "root" not in word]
    done = cli("run", *words)
    assert done.code == 2
    assert what in done.err and hint in done.err


def test_coherence_is_of_classes(cli, berkeley):
    done = cli("coherence", "dataset=bsds500", *berkeley[0])
    assert done.code == 2 and "coherence is of classes" in done.err


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (("measure: column", "measure: covering"), "hierarchy: sweep takes measures of the best"),
        (("covering_ods: [], ", "covering_odd: [], "), "not 'covering_odd'"),
        (("rows:", "sweep: [segmenter.rows=1,2]\nrows:"), "measure: column is of tables of scores"),
        (("segmenter=grid], ", "segmenter=grid], tune: {images: 2, grid: [1, 2]}, "), "grid: sweep takes measures"),
    ],
)
def test_a_table_that_can_not_be(tmp_path, change, what):
    (tmp_path / "reproduction").mkdir()
    (tmp_path / "reproduction" / "best.yaml").write_text(TABLE.replace(*change))
    with pytest.raises(Exception, match=what):
        load_reproduction("best", [f"hydra.searchpath=[{tmp_path}]"])
