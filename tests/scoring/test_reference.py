"""Floors, ceilings and lift: against cells of grid and oracle, plain computations, and whatever disturbs them."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import finished_cells, shapes_overrides
from PIL import Image

from diffcut_bench.config import load_config
from diffcut_bench.datasets import SegmentationDataset
from diffcut_bench.evaluation import contingency_table, count_matches_together, match_image
from diffcut_bench.scoring import passes, reference
from diffcut_bench.scoring.events import Observer
from diffcut_bench.segmenters import Oracle, grid_of
from diffcut_bench.store import (
    ImageRow,
    Result,
    Score,
    check_published,
    check_sums,
    keep_rows,
    kept_rows,
    published,
    read_result,
    read_rows,
    republish,
)

GRID = ("segmenter=grid",)
CUT = ("segmenter=diffcut", "backbone=colour", "features=memory")


class Lines(Observer):
    """Remembers what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    @property
    def told(self) -> list[str]:
        return [line for line in self.lines if line.startswith("reference")]


@pytest.fixture
def config(shapes, tmp_path):
    def load(*words):
        return load_config([*shapes_overrides(shapes, tmp_path / "out"), "refiner=none", "batch_size=3", *words])

    return load


@pytest.fixture
def run(config):
    return lambda *words, observer=None: passes.run_cell(config(*words), observer)


def strip(cell: passes.FinishedCell) -> str:
    """Make a finished cell one without reference, as older versions wrote them; gives the text that it had."""
    text = (cell.folder / "result.json").read_text()
    republish(cell.folder, replace(Result.from_json(text), reference=None))
    assert read_result(cell.folder).reference is None
    return text


def equal(score: Score, other: Score) -> bool:
    return (score.value, score.ci95, score.n) == (other.value, other.ci95, other.n)


@pytest.mark.parametrize("protocol", ["released", "paper", "strict"])
def test_floor_and_ceiling_are_cells_of_grid_and_oracle(run, protocol):
    words = (f"protocol={protocol}", "protocol.image_size=128", "protocol.crop=center")
    cut, grid = run(*CUT, *words).result, run(*GRID, *words).result
    oracle = run("segmenter=oracle", "backbone=colour", *words).result
    for metric in ("miou", "pixel_accuracy"):
        assert equal(cut.reference.of(metric).ceiling, oracle.scores[metric])
        assert equal(oracle.reference.of(metric).ceiling, oracle.scores[metric])
        assert equal(grid.reference.of(metric).floor, grid.scores[metric]), "16 segments of a square"
        assert grid.reference.of(metric).ceiling.value == 1, "a grid is of pixels, and of no network's patches"
        lifts = [result.reference.of(metric).lift for result in (oracle, grid)]
        assert [(lift.value, lift.ci95, lift.n) for lift in lifts] == [(1, (1, 1), 8), (0, (0, 0), 8)]
    assert cut.reference.score == "miou" and cut.reference.of("segments") is None
    assert cut.reference.floor.value < cut.scores["miou"].value


@pytest.mark.parametrize("protocol", ["paper", "strict"])
def test_each_image_has_a_grid_of_as_many_segments_as_it_was_given(run, config, protocol):
    """By hand, from the labels as the pass sees them."""
    words = (*CUT, f"protocol={protocol}", "protocol.image_size=128")
    cell, own = run(*words), config(*words)
    rows = read_rows(cell.folder)
    assert len({row.segments for row in rows}) > 1
    choices = {"background": 0, "criterion": own.protocol["criterion"], "surplus": own.protocol["surplus"]}
    sums = np.zeros((2, 3, 3))
    for row, outcome in zip(rows, passes.open_pass(own).cell(own).outcomes(range(8)), strict=True):
        label = outcome.example.label
        low, high = grid_of(tuple(label.shape), row.segments), Oracle()(label[None], [outcome.example.grid])[0]
        for number, prediction in enumerate((low, high)):
            sums[number] += np.stack(match_image(prediction, label, 3, "overlap", **choices))
    found = [cell.result.reference.floor.value, cell.result.reference.ceiling.value]
    assert found == pytest.approx([(tp / (tp + fp + fn)).mean() for tp, fp, fn in sums], abs=1e-12)


def test_renumbered_segments_have_the_same_place(shapes, run, tmp_path):
    generator = np.random.default_rng(1)
    for path in (shapes / "images").iterdir():
        ids = np.asarray(Image.open(path).convert("L")) // 40
        for name, order in (("plain", np.arange(7)), ("renumbered", generator.permutation(7))):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(order.astype(np.uint8)[ids]).save(tmp_path / name / path.name)
    words = ("segmenter=precomputed", "backbone=none", "protocol=strict", "protocol.image_size=128")
    plain, other = (run(*words, f"segmenter.folder={tmp_path / name}").result for name in ("plain", "renumbered"))
    assert plain.key != other.key and plain.reference == other.reference


def test_one_matching_for_the_data_set(shapes, run, config, tmp_path):
    (tmp_path / "given").mkdir()
    for path in (shapes / "labels").iterdir():
        ids = np.arange(140 * 1)[:, None] * 6 // 140 + 0 * np.asarray(Image.open(path))
        Image.fromarray(ids.astype(np.uint8)).save(tmp_path / "given" / path.name)
    words = ["segmenter=precomputed", "backbone=none", f"segmenter.folder={tmp_path / 'given'}"]
    words += ["protocol.matching=dataset", "protocol.background_rule=one_to_one"]
    cell, own = run(*words), config(*words)
    tables = [
        contingency_table(grid_of(tuple(outcome.example.label.shape), outcome.segments), outcome.example.label, 3)
        for outcome in passes.open_pass(own).cell(own).outcomes(range(8))
    ]
    tp, fp, fn = (sum(parts) for parts in zip(*count_matches_together(tables), strict=True))
    assert cell.result.reference.floor.value == pytest.approx((tp / (tp + fp + fn)).mean().item())
    assert cell.result.reference.ceiling.value == 1


def test_named_segments_have_a_floor_that_is_matched_and_a_ceiling_of_names(run, shapes, tmp_path):
    (tmp_path / "options" / "namer").mkdir(parents=True)
    target = "_target_: text_checkpoints.colour_namer\nbackground_words: [red, crimson]\n"
    (tmp_path / "options" / "namer" / "colours.yaml").write_text(target)
    words = (f"hydra.searchpath=[file://{tmp_path / 'options'}]", "dataset.class_names=[red,green,blue]")
    cell = run(*CUT, *words, "namer=colours", "protocol.surplus=unmatched")
    plain = run(*CUT, *words, "protocol.surplus=unmatched", "protocol.background_rule=one_to_one")
    assert cell.result.protocol["matching"] == "named"
    assert cell.result.reference.of("miou").floor == plain.result.reference.of("miou").floor
    oracle = run("segmenter=oracle", "backbone=colour", "protocol.background_rule=one_to_one")
    assert cell.result.reference.ceiling.value == oracle.result.metrics.miou > 0.5
    assert cell.result.reference.of("jaccard").ceiling.value > cell.result.reference.of("jaccard").floor.value


def made_rows(correct: list[int], wrong: list[int]) -> list[ImageRow]:
    both = enumerate(zip(correct, wrong, strict=True))
    return [ImageRow(i, f"image{i}", 3, 100, [right, right], [left, left], [0, 0]) for i, (right, left) in both]


def test_the_interval_of_lift_draws_the_same_images_for_all_three(config):
    generator = np.random.default_rng(3)
    sides = [generator.integers(1, most, (2, 30)) + [[least], [0]] for least, most in ((5, 40), (9, 40), (60, 20))]
    protocol = passes.open_pass(config()).cell(config()).pipeline.protocol
    low, own, high = (made_rows(*side.tolist()) for side in sides)
    bracket = reference.place(own, low, high, protocol, seed=5).of("miou")

    def miou(times, side):
        correct, wrong = (times @ counts for counts in side)
        return correct / (correct + wrong)

    draws = np.random.default_rng(5).multinomial(30, np.full(30, 1 / 30), size=2000)
    told = []
    for times in (np.ones((1, 30)), draws):
        floor, score, ceiling = (miou(times, side) for side in sides)
        told.append((score - floor) / (ceiling - floor))
    assert bracket.lift.value == pytest.approx(told[0].item())
    assert bracket.lift.ci95 == pytest.approx(np.quantile(told[1], (0.025, 0.975)))


LOWER = (
    "from diffcut_bench.evaluation import Metric\n"
    "METRIC = Metric(name='misses', heading='misses', statistic=lambda images: images.fn[:, :1],\n"
    "    reduce=lambda sums: sums[..., 0], higher_is_better=False)\n"
)


def of_misses(numbers: list[int]) -> list[ImageRow]:
    return [ImageRow(i, f"{i}", 3, 100, [10, 10], [0, 0], [number, 0]) for i, number in enumerate(numbers)]


def test_lift_where_low_is_better_and_where_there_is_no_room(config, add_metric):
    add_metric("misses", LOWER)
    protocol = passes.open_pass(config()).cell(config()).pipeline.protocol
    place = reference.place(of_misses([4] * 12), of_misses([10] * 12), of_misses([2] * 12), protocol, 42)
    bracket = place.of("misses")
    assert [part.value for part in (bracket.floor, bracket.ceiling, bracket.lift)] == [120, 24, 0.75]
    assert bracket.lift.ci95 == (0.75, 0.75)
    for ceiling in ([10] * 12, [11] * 12):
        lift = reference.place(of_misses([4] * 12), of_misses([10] * 12), of_misses(ceiling), protocol, 42)
        assert (lift.of("misses").lift.value, lift.of("misses").lift.ci95) == (None, None)
        assert lift.of("misses").floor.value == 120


def test_labels_are_read_once_for_all_cells_and_never_again(config, monkeypatch):
    read: list[int] = []
    original = SegmentationDataset.pair
    monkeypatch.setattr(SegmentationDataset, "pair", lambda self, i: read.append(i) or original(self, i))
    taus = [config(*CUT, f"segmenter.tau={tau}") for tau in (0.2, 0.4, 0.6)]
    first = passes.run_cells(taus)
    assert sorted(read) == sorted([*range(8)] * 2)
    texts = [strip(cell) for cell in first]
    read.clear()
    again = passes.run_cells(taus)
    assert read == [] and all(cell.skipped for cell in again)
    assert [(cell.folder / "result.json").read_text() for cell in first] == texts
    assert [cell.result for cell in again] == [cell.result for cell in first]


def test_a_result_without_is_filled_in_and_nothing_else_of_it_changes(run):
    cell = run(*CUT)
    text, files = strip(cell), {path.name: path.read_bytes() for path in cell.folder.iterdir()}
    assert run(*CUT, "reference=none").result.reference is None
    assert {path.name: path.read_bytes() for path in cell.folder.iterdir()} == files
    filled = run(*CUT)
    assert filled.skipped and filled.result.reference is not None
    assert (cell.folder / "result.json").read_text() == text
    check_sums(cell.folder)
    changed = {path.name for path in cell.folder.iterdir() if path.read_bytes() != files[path.name]}
    assert changed == {"result.json", "SHA256SUMS"}
    (cell.folder / "SHA256SUMS").unlink()  # of a version that wrote none
    republish(cell.folder, replace(filled.result, reference=None))
    assert run(*CUT).result.reference == filled.result.reference
    assert not (cell.folder / "SHA256SUMS").exists()


def test_nothing_is_computed_where_nobody_wants_it(run, tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "score_together", lambda *_: pytest.fail("labels were scored"))
    cell = run(*GRID, "reference=none")
    assert cell.result.reference is None and not (tmp_path / "out" / "references").exists()


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "renamed"])
def test_what_is_damaged_on_disk_is_made_again(run, tmp_path, damage):
    cell = run(*CUT)
    text = strip(cell)
    files = sorted((tmp_path / "out" / "references").rglob("*.parquet"))
    assert {path.parent.name for path in files} == {"floor", "ceiling_of_patches"}
    for path in files:
        content = path.read_bytes()
        if damage == "renamed":
            path.rename(path.with_stem("0" * 64))
        else:
            path.write_bytes(
                {"cut": content[:-9], "changed": content[:99] + b"?" + content[100:], "empty": b""}[damage]
            )
    assert run(*CUT).result.reference is not None
    assert (cell.folder / "result.json").read_text() == text


def test_rows_of_others_on_disk_are_passed_over(run, tmp_path):
    cell = run(*CUT)
    text = strip(cell)
    for folder in {path.parent for path in (tmp_path / "out" / "references").rglob("*.parquet")}:
        rows = kept_rows(folder, lambda *_: True)
        keep_rows(folder, [replace(row, tp=[1], fp=[1], fn=[1]) for row in rows])
        keep_rows(folder, [replace(row, id="another", tp=[9, 9, 9]) for row in rows])
    assert run(*CUT).result.reference is not None
    assert (cell.folder / "result.json").read_text() == text


def test_threads_that_keep_rows_at_once_lose_none(tmp_path):
    def keep(first: int) -> None:
        keep_rows(tmp_path, [ImageRow(i, f"{i}", 1, 4, [2], [1], [1]) for i in range(first, first + 4)])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(keep, [*range(0, 40, 2)] * 3))
    assert {row.index for row in kept_rows(tmp_path, lambda *_: True)} == set(range(42))
    assert {row.index for row in kept_rows(tmp_path, lambda index, segments: index < 5)} == set(range(5))


@pytest.mark.slow
def test_two_processes_fill_in_one_result(run, shapes, tmp_path):
    cell = run(*CUT)
    text = strip(cell)
    words = [*shapes_overrides(shapes, tmp_path / "out"), "refiner=none", "batch_size=3", *CUT]
    command = [sys.executable, "-m", "diffcut_bench", "run", *words]
    children = [subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ}) for _ in range(2)]
    assert [child.wait(timeout=120) for child in children] == [0, 0]
    assert (cell.folder / "result.json").read_text() == text
    check_sums(cell.folder)


@pytest.mark.parametrize("write", [1, 2, 3])
def test_killed_while_a_result_is_filled_in(run, monkeypatch, write):
    cell = run(*CUT)
    text, original, calls = strip(cell), published.write_atomically, []

    def killed(path, content):
        calls.append(path.name)
        if len(calls) == write:
            raise KeyboardInterrupt
        original(path, content)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(published, "write_atomically", killed)
        run(*CUT)
    result, _ = check_published(cell.folder)
    assert replace(result, reference=None) == replace(cell.result, reference=None)
    assert run(*CUT).skipped
    assert (cell.folder / "result.json").read_text() == text


def test_a_reader_between_two_writes_sees_a_whole_cell(run, monkeypatch):
    cell = run(*CUT)
    strip(cell)
    before, original = cell.folder / "result.json", Path.read_text

    def late(self, *arguments):
        """The result is replaced after its content was read and before its checksum is."""
        if self.name == "SHA256SUMS" and read_once:
            read_once.clear()
            republish(cell.folder, cell.result)
        return original(self, *arguments)

    read_once = [before]
    monkeypatch.setattr(Path, "read_text", late)
    assert read_result(cell.folder) == cell.result and not read_once


def test_interrupted_while_labels_are_scored_the_cell_goes_on(run, monkeypatch, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(reference, "score_together", interrupted)
        run(*CUT)
    assert not (tmp_path / "out" / "results").exists()
    monkeypatch.setattr(
        passes, "score_together", lambda pipelines, dataset, wanted, *_: iter(()) if not any(wanted) else 0
    )
    assert run(*CUT).result.reference is not None


def test_what_goes_wrong_costs_no_cell(run, monkeypatch):
    def gone(*_):
        raise OSError("the disk is gone")

    with monkeypatch.context() as patched:
        patched.setattr(reference, "score_together", gone)
        observer = Lines()
        cell = run(*CUT, observer=observer)
    assert cell.result.reference is None and cell.result.metrics.miou > 0
    assert observer.told == ["reference  no floor and ceiling: OSError: the disk is gone"]
    assert run(*CUT).result.reference is not None


def test_an_image_that_has_no_floor_costs_no_cell(run, monkeypatch):
    cell, original, observer = run(*CUT, "reference=none"), reference.grid_of, Lines()
    numbers = [row.segments for row in read_rows(cell.folder)]
    odd = max(numbers)

    def sometimes(size, segments):
        if segments == odd:
            raise ValueError("not this one")
        return original(size, segments)

    with monkeypatch.context() as patched:
        patched.setattr(reference, "grid_of", sometimes)
        assert run(*CUT, observer=observer).result.reference is None
    first = (
        f"{numbers.count(odd)} labels can't be scored, the first: picture{numbers.index(odd)}: ValueError: not this one"
    )
    assert observer.told == [f"reference  no floor and ceiling: {first}"]
    assert run(*CUT).result.reference is not None


def test_images_that_failed_are_in_neither(shapes, run):
    broken = shapes / "images" / "picture3.png"
    broken.write_bytes(broken.read_bytes()[:100])
    result = run(*CUT).result
    assert len(result.failures) == 1
    assert [result.reference.of("pixel_accuracy").floor.n, result.reference.of("pixel_accuracy").ceiling.n] == [7, 7]


def test_cells_with_references_are_the_same_whoever_wrote_them(run, tmp_path):
    run(*CUT)
    (first,) = finished_cells(tmp_path / "out").values()
    run(*CUT, "if_exists=overwrite", "reference=stored")
    (second,) = finished_cells(tmp_path / "out").values()
    assert first[0]["reference"] == second[0]["reference"]
    assert torch.isfinite(torch.tensor(first[0]["reference"]["lift"]["value"]))


def test_an_edited_metric_is_measured_again(run, add_metric, tmp_path):
    metric = (
        "from diffcut_bench.evaluation import Metric\n"
        "METRIC = Metric(name='most', heading='most', measure=lambda image: [{}], reduce=lambda sums: sums[..., 0])\n"
    )
    add_metric("most", metric.format("float(image.prediction.max())"))
    first = run(*CUT).result.reference.of("most").floor.value
    for path in tmp_path.glob("metrics/__pycache__/*"):
        path.unlink()
    sys.modules.pop("diffcut_bench.evaluation.metrics.most")
    add_metric("most", metric.format("1.0 + float(image.prediction.max())"))
    again = run(*CUT, "if_exists=overwrite").result.reference.of("most").floor.value
    assert again == first + 8
