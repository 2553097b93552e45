"""`make bench`: plain versions give the same, every table has its rows, rivals that are missing are named."""

import json
import re
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from conftest import DATA, SMALL, Finished, blobs, program

from benchmarks.__main__ import main
from benchmarks.ceiling import VectorProducts, read_rate
from benchmarks.cut import compare_tau_path, textbook_within
from benchmarks.material import Material, resized, tiled
from benchmarks.reading import compare_lookup
from benchmarks.report import print_table
from benchmarks.rivals import compare_rivals, missing_rivals
from benchmarks.segmenters import measure_speeds
from benchmarks.stages import STAGES, measure_stages
from benchmarks.timing import peak_bytes, timed
from diffcut_bench.config import conf_dir
from diffcut_bench.ncut.textbook import textbook_recursive_ncut

CPU = torch.device("cpu")


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str]) -> Callable[..., Finished]:
    """Run `python -m benchmarks` in this process."""
    return program(main, capsys)


def material(features, **other):
    """Features [images, nodes, channels] of a square grid with pictures and labels of 24×24."""
    generator = torch.Generator().manual_seed(0)
    side = round(features.shape[1] ** 0.5)
    given = {
        "features": features.transpose(1, 2).unflatten(2, (side, side)),
        "photos": torch.rand(2, 3, 24, 24, generator=generator),
        "labels": torch.randint(-1, 4, (2, 24, 24), generator=generator),
        "num_classes": 4,
        "background": 0,
        "rule": "unmatched",
    }
    return Material(**{**given, **other})


def test_a_textbook_short_of_time_leaves_the_same_images_to_ours():
    features = torch.cat([blobs(groups, 18)[0][:, :36] for groups in (2, 3, 4)])
    textbook = textbook_within(features, 0.5, 8, seconds=0)
    assert len(textbook.partitions) == len(textbook.seconds) == 1
    rows = {row.stage: row for row in measure_stages(material(features), 5, 8, 0.5, textbook, repeats=1)}
    assert (rows["cut"].images, rows["cut"].plain_images, rows["labels"].plain_images) == (5, 1, 3)
    assert rows["cut"].equal == rows["cut"].ari_to_dense == 1.0
    assert rows["cut"].plain_s == textbook.seconds[0]
    assert rows["labels"].ari_to_dense is None


@pytest.mark.slow
def test_the_cut_is_far_faster_than_the_textbook_on_real_features():
    features = torch.from_numpy(np.load(DATA / "recursive_ncut_coffee.npz")["features"])[None].float()
    textbook = textbook_within(features, 0.5, 5)
    rows = {row.stage: row for row in measure_stages(material(features), 1, 5, 0.5, textbook, repeats=1)}
    assert rows["cut"].equal == 1.0
    assert rows["cut"].ratio > 4  # some 40 on an idle machine; a ratio within one run, with room for a busy one


def test_lookup_equals_the_dictionary():
    lookup = np.arange(256) % 7
    row = compare_lookup([np.random.default_rng(0).integers(0, 256, (20, 30))], lookup, repeats=1)
    assert row.agreement == 1.0


@pytest.mark.parametrize("label_codes", ["exact", "float32"])
def test_tau_path_ends_at_the_largest_tau(label_codes):
    row = compare_tau_path(torch.rand(2, 50, 6), [0.2, 0.9, 0.5], 8, repeats=1, label_codes=label_codes)
    assert row.agreement == 1.0
    assert "3 taus" in row.what and label_codes in row.what


@pytest.mark.parametrize("background", [0, None])
def test_every_stage_equals_its_plain_version(background):
    features = torch.rand(2, 36, 8, generator=torch.Generator().manual_seed(0))
    sized = material(features, background=background).of_size(9, 3)
    textbook = textbook_within(sized.nodes, 0.9, 8)
    rows = list(measure_stages(sized, 3, 8, 0.9, textbook, repeats=1))
    assert tuple(row.stage for row in rows) == STAGES
    assert rows[0].segments > 2
    for row in rows:
        assert row.equal == 1.0, row
        assert (row.patches, row.images, row.plain_images) == (9, 3, 2)
        for value in (row.images_per_s, row.plain_s, row.ratio, row.floor_images_per_s, row.floor_share):
            assert value is not None and 0 < value < float("inf")
        assert row.peak_bytes is not None or not sys.platform.startswith("linux")


def test_a_stage_is_measured_without_a_plain_version_where_there_is_none():
    rows = measure_stages(material(torch.rand(1, 36, 8), rule="overlap"), 1, 8, 0.9, None, repeats=1)
    without = {row.stage for row in rows if row.ratio is row.plain_s is row.equal is None and row.plain_images == 0}
    assert without == {"cut", "matching"}  # the plain matching knows the released rule alone


def test_larger_grids_have_no_ties_and_stay_near_the_features():
    features = torch.rand(1, 8, 4, 4)
    larger = resized(features, 8)
    assert larger.shape == (1, 8, 8, 8)
    assert larger.flatten(2).unique(dim=2).shape[2] == 64
    assert torch.allclose(larger, torch.nn.functional.interpolate(features, (8, 8), mode="bilinear"), atol=0.01)
    assert resized(features, 4) is features
    assert tiled(torch.tensor([5, 6, 7]), 5).tolist() == [5, 6, 7, 5, 6]


def test_timing_takes_turns_and_stops_when_enough_is_known():
    calls = []
    first, second = timed([lambda: calls.append("a"), lambda: calls.append("b") or 7], 2)
    assert calls == ["a", "b", "a", "b"]
    assert second.result == 7
    assert 0 <= first.least <= first.median < 1
    calls.clear()
    timed([lambda: calls.append("a")], 3, enough=-1)
    assert calls == ["a"]


def test_a_table_shows_fields_of_rows_and_leaves_what_is_missing_empty(capsys):
    print_table([{"name": "a", "least_s": 0.5}, {"name": None, "least_s": None}, {}], "name least_s:.2f", "a note")
    head, _, *rows, note = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in re.split("[┃│]", row)] for row in (head, *rows)]
    assert cells == [["name", "least s"], ["a", "0.50"], ["", ""], ["", ""]]
    assert note == "a note"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is read from /proc")
def test_peak_memory_counts_what_is_freed_again():
    peak = peak_bytes(lambda: torch.ones(1 << 24).sum(), CPU)
    assert peak is not None
    assert 60 << 20 < peak < 90 << 20  # 64 MiB


def test_vector_products_count_the_matrix_once_each():
    matrix, row = torch.rand(2, 30, 30), torch.rand(2, 1, 30)
    with VectorProducts() as counted:
        row @ matrix
        matrix @ row.mT
        torch.baddbmm(row, row, matrix)
        matrix[0] @ row[0, 0]
        matrix @ matrix
        row + row
    assert counted.read == (3 * 2 + 1) * 900 * 4
    assert 1e6 < read_rate(64, CPU) < 1e14


@pytest.mark.skipif(missing_rivals() != [], reason="the extra `rivals` is not installed")
def test_rivals_find_the_same_vector():
    rows = compare_rivals(blobs(3, 30)[0][0], 9, 8, 0.5)
    assert {row.job for row in rows} == {"second eigenvector", "partition"}
    for row in rows:
        assert 0 < row.ratio < float("inf")
        assert row.same_job == (row.ari is None)
        assert row.ours_exact is None or row.ours_exact > 0.999


def test_speeds_are_multiples_of_the_firsts_and_a_failure_spoils_no_other():
    def slow():
        time.sleep(0.05)
        return torch.tensor([[[0, 1], [2, 2]], [[0, 0], [0, 0]]])

    def broken():
        raise ValueError("of no use")

    rows = measure_speeds({"quick": lambda: [torch.zeros(4, 6)], "broken": broken, "slow": slow})
    assert [(row.segmenter, row.images, row.rows, row.cols) for row in rows] == [
        ("quick", 1, 4, 6),
        ("broken", 0, 0, 0),
        ("slow", 2, 2, 2),
    ]
    quick, failed, late = rows
    assert (quick.ratio, quick.segments, late.segments) == (1, 1, 2)
    assert 2 / late.images_per_s >= 0.05
    assert late.ratio == late.images_per_s / quick.images_per_s < 1
    assert (failed.error, failed.images_per_s, failed.ratio) == ("ValueError: of no use", None, None)


@pytest.mark.slow
def test_the_command_writes_every_table_and_the_figure(bench, tmp_path, monkeypatch):
    names = {"sklearn", "ncut_pytorch"}
    monkeypatch.setattr("benchmarks.rivals.find_spec", lambda name: None if name in names else find_spec(name))
    features = tmp_path / "some.npz"
    np.savez(features, features=torch.rand(2, 64, 8, generator=torch.Generator().manual_seed(0)).numpy())
    flags = ("--images", 2, "--patches", "8,12", "--alphas", "5", "--batches", "2", "--features", features)
    done = bench(*flags, *SMALL, f"output_dir={tmp_path}", "segmenter.tau=0.9")
    assert done.code == 0, done.err
    record = json.loads((tmp_path / "bench" / "bench.json").read_text())
    assert record["machine"]["date"][:2] == "20" and record["machine"]["device"]
    assert [row["agreement"] for row in record["comparisons"]] == [1.0, 1.0, None, 1.0]
    assert {row["ari_to_dense"] for row in record["stages"] if row["stage"] == "cut"} == {1.0}
    sizes = {(row["patches"], row["images"]) for row in record["stages"]}
    assert sizes == {(8, 2), (12, 2)}
    assert all(row["equal"] == 1.0 for row in record["stages"])
    for row in record["end_to_end"]:
        assert sum(row["shares"].values()) == pytest.approx(1)
        assert row["images_per_s"] > 0
    computed, stored = record["end_to_end"]
    assert computed["shares"]["features"] > stored["shares"]["features"]
    assert record["rivals"] == {"compared": [], "missing": ["scikit-learn", "ncut-pytorch"]}
    assert "not installed" in done.out and "ncut-pytorch" in done.out
    speeds = {row["segmenter"]: row for row in record["segmenters"]["measured"]}
    known = {path.stem for path in (conf_dir() / "segmenter").glob("*.yaml")}
    known -= {"precomputed", "ucm", "maskclip", "oracle", "cluster_probe"}
    assert set(speeds) | set(record["segmenters"]["missing"]) == known
    assert next(iter(speeds)) == "diffcut" and speeds["diffcut"]["ratio"] == 1
    for name in ("diffseg", "slic", "felzenszwalb", "grid", "one_segment"):
        assert speeds[name]["images_per_s"] > 0 and speeds[name]["images"] == 2
        side = 512 if name == "diffseg" else 32
        assert (speeds[name]["rows"], speeds[name]["cols"]) == (side, side)
    assert (speeds["one_segment"]["segments"], speeds["grid"]["segments"]) == (1, 16)
    assert [row["error"] for row in speeds.values() if row["error"]] == []
    assert (tmp_path / "bench" / "cost.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--patches", "0"), "--patches: '0' is no whole number of at least 2"),
        (("--images", "0"), "--images: '0' is no whole number of at least 1"),
        (("--alphas", "5,x"), "'x' is no exponent"),
        (("--batches", "none"), "'none' is no whole number"),
        (("--features", "nowhere.npz"), "can't read features"),
    ],
)
def test_mistakes_are_said(bench, tmp_path, arguments, message):
    done = bench(*arguments, f"output_dir={tmp_path}")
    assert done.code == 2
    assert message in done.err


def test_features_of_no_square_grid_are_refused(bench, tmp_path):
    np.savez(tmp_path / "odd.npz", features=np.zeros((1, 5, 3)))
    done = bench("--features", tmp_path / "odd.npz", f"output_dir={tmp_path}")
    assert done.code == 2
    assert "square grid" in done.err


def test_textbook_runs_where_its_features_are():
    features, truth = blobs(3, 10)
    assert len(textbook_recursive_ncut(features[0], 0.5, 8).unique()) == len(truth.unique())
