import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import miniatures
import numpy as np
import pytest
import torch
from conftest import SMALL, interrupting_after, shapes_overrides
from PIL import Image

from diffcut_bench.config import instantiate, load_config, searching
from diffcut_bench.datasets import SegmentationDataset, prepared_folder
from diffcut_bench.datasets.manifest import Manifest
from diffcut_bench.environment import choose_device, environment
from diffcut_bench.errors import UserError
from diffcut_bench.scoring import passes, pipeline
from diffcut_bench.scoring.events import Observer
from diffcut_bench.scoring.features import open_features
from diffcut_bench.scoring.reading import Wanted, example_loader
from diffcut_bench.store import SCHEMA_VERSION, Failure, Result, Timings, read_rows


def run(root: Path, output_dir: Path, *overrides: str) -> passes.FinishedCell:
    return passes.run_cell(load_config([*shapes_overrides(root, output_dir), *overrides]))


def numbers(cell: passes.FinishedCell) -> Result:
    """A result without what may differ between two runs of one cell."""
    config = {
        name: value
        for name, value in cell.result.config.items()
        if name not in ("output_dir", "data_dir", "features", "batch_size")
    }
    return replace(cell.result, timings=Timings(), config={**config, "num_workers": 0, "if_exists": ""})


def test_scores_are_written_and_read_back(shapes, tmp_path):
    cell = run(shapes, tmp_path / "out")
    assert not cell.skipped
    assert 0.2 < cell.result.metrics.miou <= 1
    assert cell.result.metrics.miou_ci95[0] <= cell.result.metrics.miou <= cell.result.metrics.miou_ci95[1]
    assert json.loads((cell.folder / "result.json").read_text())["schema_version"] == SCHEMA_VERSION
    rows = read_rows(cell.folder)
    assert [row.id for row in rows] == [f"picture{i}" for i in range(8)]
    tp, fp, fn = (np.sum([getattr(row, name) for row in rows], axis=0) for name in ("tp", "fp", "fn"))
    assert cell.result.metrics.miou == pytest.approx(np.mean(tp / (tp + fp + fn)))
    assert list(cell.folder.glob("../../unfinished")) == []


def test_the_same_cell_again_is_found(shapes, tmp_path):
    first = run(shapes, tmp_path / "out")
    again = run(shapes, tmp_path / "out", "batch_size=2")
    assert again.skipped
    assert again.folder == first.folder
    assert again.result == first.result


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["released", "paper", "strict"])
def test_numbers_do_not_depend_on_batch_size_or_workers(shapes, tmp_path, protocol):
    # Sizes differ between the pictures, so that under strict a batch holds several shapes.
    extra = [] if protocol != "strict" else ["protocol.eval_size=original"]
    cells = [
        run(shapes, tmp_path / f"out{batch}", f"protocol={protocol}", f"batch_size={batch}", *extra)
        for batch in (1, 3, 8)
    ]
    cells.append(run(shapes, tmp_path / "workers", f"protocol={protocol}", "num_workers=2", *extra))
    assert all(numbers(cell) == numbers(cells[0]) for cell in cells[1:])
    assert len({(cell.folder / "per_image.parquet").read_bytes() for cell in cells}) == 1


@pytest.mark.parametrize(
    "override",
    [
        "segmenter.tau=0.4",
        "segmenter.solver=eigh",
        "upsampler=nearest",
        "refiner=none",
        "protocol.void=ignore",
        "+backbone.image_size=192",
        "smallest_segment=0.01",
        "limit=5",
    ],
)
def test_whatever_changes_numbers_changes_the_key(shapes, tmp_path, override):
    assert run(shapes, tmp_path / "out", override).result.key != run(shapes, tmp_path / "out").result.key


def test_a_size_that_an_option_inherits_is_its_own(shapes, tmp_path):
    (tmp_path / "own" / "backbone").mkdir(parents=True)
    (tmp_path / "own" / "backbone" / "small.yaml").write_text(
        "defaults: [efficientnet_lite0, _self_]\nimage_size: 192\n"
    )
    (tmp_path / "own" / "backbone" / "heir.yaml").write_text("defaults: [small, _self_]\n")
    asked = (["backbone=small"], ["backbone=heir"], ["backbone=heir", "backbone.image_size=128"])
    with searching([f"hydra.searchpath=[{tmp_path / 'own'}]"]):
        results = [run(shapes, tmp_path / "out", *words).result for words in asked]
    told = [result.identity["backbone"].get("image_size") for result in results]
    assert told == [None, None, 128]


def test_limit_is_marked(shapes, tmp_path):
    assert run(shapes, tmp_path / "out", "limit=3").result.limited
    assert not run(shapes, tmp_path / "out").result.limited


def test_a_shard_without_images_is_said(shapes, tmp_path):
    with pytest.raises(UserError, match="shard 9/9 holds no image"):
        run(shapes, tmp_path / "out", "shard=9/9")


def test_an_unreadable_original_is_named(tmp_path):
    miniatures.write_context(tmp_path, miniatures.values(2))
    (tmp_path / "trainval" / "2008_000002.mat").write_bytes(b"not a mat file")
    overrides = ["dataset=context", f"dataset.root={tmp_path}", "prepared=never", f"output_dir={tmp_path / 'out'}"]
    with pytest.raises(UserError, match="no MATLAB 5 file"):
        passes.run_cell(load_config([*overrides, *SMALL]))


def test_a_benchmark_is_prepared_by_its_first_run_and_read_from_there_afterwards(tmp_path):
    miniatures.write_voc(tmp_path / "original", miniatures.values(0, 1, 20, 255))
    overrides = ["dataset=voc", f"output_dir={tmp_path / 'out'}", *SMALL]
    first = passes.run_cell(load_config([*overrides, f"dataset.root={tmp_path / 'original'}"]))
    shutil.rmtree(tmp_path / "original")
    again = passes.run_cell(load_config(overrides))
    assert again.skipped
    assert again.result == first.result
    assert first.result.limited


def test_the_protocol_in_the_result_is_the_one_in_force(shapes, tmp_path):
    cell = run(shapes, tmp_path / "out", "segmenter.label_codes=exact", "upsampler.similarity=cosine")
    assert cell.result.protocol["label_codes"] == "exact"
    assert cell.result.protocol["similarity"] == "cosine"


def test_a_truncated_image_is_a_failure_and_the_run_goes_on(shapes, tmp_path):
    broken = shapes / "images" / "picture3.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    cell = run(shapes, tmp_path / "out")
    assert [failure.id for failure in cell.result.failures] == ["picture3"]
    assert "picture3.png" in cell.result.failures[0].error
    assert len(read_rows(cell.folder)) == 7


def test_resume_tries_failed_images_again(shapes, tmp_path, monkeypatch):
    original = passes.score_together
    seen: list[list[int]] = []

    def flaky(pipelines, dataset, wanted, *settings):
        seen.append(sorted(wanted[0]))
        for (batch,) in original(pipelines, dataset, wanted, *settings):
            if len(seen) == 1:
                lost = {
                    o.example.index: Failure(o.example.id, "passing trouble")
                    for o in batch.outcomes
                    if o.example.index == 2
                }
                batch = replace(batch, outcomes=[o for o in batch.outcomes if o.example.index != 2], failures=lost)
            yield [batch]

    monkeypatch.setattr(passes, "score_together", flaky)
    first = run(shapes, tmp_path / "out")
    assert [failure.id for failure in first.result.failures] == ["picture2"]
    second = run(shapes, tmp_path / "out", "if_exists=resume")
    assert second.result.failures == []
    assert seen == [list(range(8)), [2]]
    assert len(read_rows(second.folder)) == 8


def test_max_failures_stops_and_keeps_what_is_done(shapes, tmp_path):
    broken = shapes / "images" / "picture5.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:100])
    with pytest.raises(UserError, match="max_failures=0"):
        run(shapes, tmp_path / "out", "max_failures=0", "batch_size=1")
    journal = next((tmp_path / "out" / "unfinished").glob("*/journal.jsonl")).read_text()
    assert sum(len(json.loads(line)["rows"]) for line in journal.split("\n") if line) == 5


def test_no_image_scored_is_an_error(shapes, tmp_path):
    for image in (shapes / "images").iterdir():
        image.write_bytes(b"not a picture")
    with pytest.raises(UserError, match="no image could be scored"):
        run(shapes, tmp_path / "out")


def test_overwrite_computes_again(shapes, tmp_path):
    first = run(shapes, tmp_path / "out")
    again = run(shapes, tmp_path / "out", "if_exists=overwrite")
    assert not again.skipped
    assert numbers(again) == numbers(first)


def test_a_segmenter_that_fails_on_one_image_loses_only_that_one(shapes, tmp_path, monkeypatch):
    from diffcut_bench.segmenters import DiffCut

    original = DiffCut.together.__func__

    def picky(cls, segmenters: list[DiffCut], features: torch.Tensor) -> list[torch.Tensor]:
        if torch.isclose(features[:, 0, 0, 0], poisoned, rtol=1e-4).any():  # a batch of another size rounds otherwise
            raise ValueError("can't take this one")
        return original(cls, segmenters, features)

    config = load_config(shapes_overrides(shapes, tmp_path / "out"))
    dataset, source = passes.open_dataset(config), open_features(replace(config, features={}), torch.device("cpu"))
    wanted = [Wanted(index, features=True) for index in range(8)]
    examples = [batch[0] for batch in example_loader(dataset, wanted, source, batch_size=1)]
    poisoned = source.compute(examples[6:7])[0, 0, 0, 0]
    monkeypatch.setattr(DiffCut, "together", classmethod(picky))
    cell = run(shapes, tmp_path / "out")
    assert [(f.id, f.error) for f in cell.result.failures] == [("picture6", "ValueError: can't take this one")]
    assert len(read_rows(cell.folder)) == 7


@pytest.mark.slow
def test_killed_and_started_again_ends_with_the_same_numbers(shapes, tmp_path):
    undisturbed = run(shapes, tmp_path / "whole", "batch_size=1")
    command = [
        sys.executable,
        "-m",
        "diffcut_bench",
        "run",
        *shapes_overrides(shapes, tmp_path / "killed"),
        "batch_size=1",
    ]
    journal: list[Path] = []
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    lines = 0
    while lines < 4 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
        journal = list((tmp_path / "killed" / "unfinished").glob("*/journal.jsonl"))
        lines = sum(1 for line in journal[0].read_text().split("\n") if line) if journal else 0
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert journal
    assert journal[0].is_file(), "the run had finished before it was killed"
    done = sum(len(json.loads(line)["rows"]) for line in journal[0].read_text().split("\n") if line)
    assert 0 < done < 8
    resumed = run(shapes, tmp_path / "killed", "batch_size=1")
    assert not resumed.skipped
    assert numbers(resumed) == numbers(undisturbed)
    assert (resumed.folder / "per_image.parquet").read_bytes() == (
        undisturbed.folder / "per_image.parquet"
    ).read_bytes()


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize(("refiner", "miou", "accuracy"), [("none", 0.370, 0.753), ("pamr", 0.347, 0.762)])
def test_voc_samples_score_as_the_released_implementation(shared, tmp_path, refiner, miou, accuracy):
    voc = f"dataset.root={shared / 'samples' / 'VOCdevkit'}"
    settings = ["dataset=voc", voc, "segmenter.tau=0.5", "segmenter.alpha=5", "protocol=released", f"refiner={refiner}"]
    metrics = passes.run_cell(load_config([*settings, f"output_dir={tmp_path}"])).result.metrics
    assert metrics.miou == pytest.approx(miou, abs=0.005)
    assert metrics.pixel_accuracy == pytest.approx(accuracy, abs=0.005)


def test_environment_names_this_commit():
    recorded = environment(torch.device("cpu"), 42, "cpu")
    assert recorded.packages["torch"] == torch.__version__
    if (Path(passes.__file__).parent.parent / ".git").exists():
        head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
        assert recorded.git["commit"] == head.stdout.strip()


def test_unwritable_output_costs_no_work(shapes, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(passes, "score_together", lambda *_, **__: pytest.fail("worked before writing"))
    with pytest.raises(UserError, match="can't write"):
        run(shapes, tmp_path / "file" / "out")


def test_device_auto_is_a_device_that_works():
    assert torch.zeros(1, device=choose_device("auto")).item() == 0


def flaky_once(monkeypatch, error: Exception) -> list[int]:
    """Let the second batch that the pipeline runs fail once; gives the indices of the images that were run."""
    original = pipeline._Run._run
    runs: list[int] = []

    def run_group(self, takers, group):
        runs.extend(example.index for example in group)
        if len(runs) == 2:
            raise error
        return original(self, takers, group)

    monkeypatch.setattr(pipeline._Run, "_run", run_group)
    return runs


def test_failures_of_an_interrupted_run_are_tried_again(shapes, tmp_path, monkeypatch):
    runs = flaky_once(monkeypatch, RuntimeError("a passing fault"))
    with pytest.raises(UserError, match="passing fault"):
        run(shapes, tmp_path / "out", "batch_size=1", "max_failures=0")
    cell = run(shapes, tmp_path / "out", "batch_size=1", "max_failures=0", "reference=none")
    assert runs == [0, 1, 1, 2, 3, 4, 5, 6, 7]
    assert cell.result.failures == []


def test_max_failures_holds_for_the_last_image_and_for_finished_cells(shapes, tmp_path):
    broken = shapes / "images" / "picture7.png"
    broken.write_bytes(broken.read_bytes()[:100])
    for _ in range(2):
        with pytest.raises(UserError, match="max_failures=0"):
            run(shapes, tmp_path / "out", "max_failures=0")
    assert len(run(shapes, tmp_path / "out").result.failures) == 1
    with pytest.raises(UserError, match="max_failures=0"):
        run(shapes, tmp_path / "out", "max_failures=0")


@pytest.mark.parametrize(
    "words",
    ["CUDA error: out of memory", "MPS backend out of memory", "CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"],
)
def test_memory_that_ran_out_is_known_by_its_words(words):
    assert pipeline.is_out_of_memory(RuntimeError(words))
    assert not pipeline.is_out_of_memory(ValueError(words))


def test_out_of_memory_on_the_host_is_the_users_to_mend(shapes, tmp_path, monkeypatch):
    error = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
    flaky_once(monkeypatch, error)
    with pytest.raises(UserError, match="memory is too small"):
        run(shapes, tmp_path / "out", "batch_size=1")


@pytest.fixture
def cramped(monkeypatch) -> list[int]:
    """Memory that holds two images at once; the sizes of what was tried."""
    original, sizes = pipeline._Run._run, []

    def run_if_it_fits(self, takers, group):
        sizes.append(len(group))
        if len(group) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return original(self, takers, group)

    monkeypatch.setattr(pipeline._Run, "_run", run_if_it_fits)
    return sizes


def test_a_batch_that_memory_does_not_hold_goes_on_in_halves(shapes, tmp_path, cramped):
    expected = run(shapes, tmp_path / "free", "batch_size=2", "reference=none")
    cramped.clear()
    with pytest.warns(RuntimeWarning, match="too small for 8 images at once; this goes on with 4"):
        found = run(shapes, tmp_path / "cramped", "batch_size=8", "reference=none")
    assert cramped == [8, 4, 2, 2, 4, 2, 2]
    assert numbers(found) == numbers(expected)
    assert not found.result.failures


def test_what_memory_does_not_hold_is_tried_once_and_said_once(shapes, tmp_path, cramped, cli):
    done = cli("run", *shapes_overrides(shapes, tmp_path / "out"), "batch_size=4", "reference=none")
    assert done.code == 0
    assert cramped == [4, 2, 2, 2, 2]
    assert done.err.count("warning: memory on cpu is too small for 4 images at once; this goes on with 2\n") == 1
    assert "RuntimeWarning" not in done.err


def test_an_interrupted_overwrite_goes_on(shapes, tmp_path, monkeypatch):
    first = run(shapes, tmp_path / "out", "batch_size=1")
    runs = flaky_once(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run(shapes, tmp_path / "out", "batch_size=1", "if_exists=overwrite")
    second = run(shapes, tmp_path / "out", "batch_size=1", "if_exists=overwrite")
    assert runs == [0, 1, 1, 2, 3, 4, 5, 6, 7]
    assert numbers(second) == numbers(first)
    assert sorted(path.name for path in second.folder.iterdir()) == [
        "SHA256SUMS",
        "config.yaml",
        "per_image.parquet",
        "result.json",
    ]


def test_labels_that_are_void_everywhere_are_said(shapes, tmp_path):
    for path in (shapes / "labels").iterdir():
        Image.fromarray(np.full_like(np.asarray(Image.open(path)), 255)).save(path)
    with pytest.raises(UserError, match="every label is void"):
        run(shapes, tmp_path / "out", "protocol.void=ignore")


def test_pictures_asked_for_after_an_interruption_are_all_drawn(shapes, tmp_path, monkeypatch):
    drawn: list[str] = []

    class Drawing(Observer):
        draws = True

        def draw(self, outcome, dataset, path):
            drawn.append(outcome.example.id)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")

    flaky_once(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run(shapes, tmp_path / "out", "batch_size=1")
    overrides = [*shapes_overrides(shapes, tmp_path / "out"), "batch_size=1", "visualise=3"]
    cell = passes.run_cell(load_config(overrides), Drawing())
    assert sorted(drawn) == ["picture0", "picture1", "picture2"]
    assert len(list((cell.folder / "pictures").iterdir())) == 3


def test_integral_numbers_are_one_cell_however_written(shapes, tmp_path):
    assert run(shapes, tmp_path / "out", "segmenter.alpha=5").result.key == (
        run(shapes, tmp_path / "out", "segmenter.alpha=5.0").result.key
    )


@pytest.mark.slow
def test_cells_of_one_pass_equal_cells_alone(shapes, tmp_path, monkeypatch):
    singles = ("segmenter.tau=0.3", "segmenter.tau=0.6", "segmenter.alpha=2", "refiner=none", "upsampler=nearest")
    singles += ("smallest_segment=0.1",)
    choices = [*([word] for word in singles), ["protocol=paper"], ["segmenter.label_codes=exact", "segmenter.tau=0.8"]]
    configs = [load_config([*shapes_overrides(shapes, tmp_path / "pass"), *own]) for own in choices]
    assert len({passes.pass_key(config) for config in configs}) == 1
    read = []
    original = SegmentationDataset.pair
    monkeypatch.setattr(SegmentationDataset, "pair", lambda self, i: read.append(i) or original(self, i))
    together = passes.run_cells(configs)
    assert read == list(range(8)) * 2, "each image is read once, and its label once more for all floors and ceilings"
    for own, cell in zip(choices, together, strict=True):
        alone = run(shapes, tmp_path / "alone", *own)
        assert numbers(cell) == numbers(alone)
        assert read_rows(cell.folder) == read_rows(alone.folder)
    assert len({cell.result.key for cell in together}) == len(choices)
    assert all(cell.skipped for cell in passes.run_cells(configs))


def test_speckles_are_merged_in_cells_that_ask_for_it(shapes, tmp_path):
    """Before names and scores; the identity of other cells has no word of it."""
    found = {}
    for smallest in (0, 0.2, 0.99):
        cell = run(shapes, tmp_path / "out", f"smallest_segment={smallest}", "protocol.background_rule=one_to_one")
        found[smallest] = cell.result
        assert cell.result.identity.get("smallest_segment", 0) == smallest
    assert "smallest_segment" not in found[0].identity
    assert found[0].segments_per_image == found[0.99].segments_per_image  # of the cut, before any merging
    assert len({result.metrics.miou for result in found.values()}) == 3
    assert found[0.99].metrics.miou == pytest.approx(
        run(
            shapes, tmp_path / "out", "segmenter=one_segment", "protocol.background_rule=one_to_one"
        ).result.metrics.miou
    )


@pytest.mark.parametrize("value", ["-0.1", "1", "nan"])
def test_the_smallest_segment_is_a_fraction(value):
    with pytest.raises(UserError, match="smallest_segment must be a fraction"):
        load_config([f"smallest_segment={value}"])


def test_what_cannot_share_a_pass_has_another_key(shapes, tmp_path):
    base = shapes_overrides(shapes, tmp_path)
    for other in ("limit=3", "protocol=strict", "backbone=colour", "shard=1/2", "features=memory", "batch_size=2"):
        assert passes.pass_key(load_config(base)) != passes.pass_key(load_config([*base, other])), other


def test_the_score_that_is_told_changes_no_cell(shapes, tmp_path):
    base = shapes_overrides(shapes, tmp_path)
    assert passes.pass_key(load_config(base)) == passes.pass_key(load_config([*base, "score=pixel_accuracy"]))
    first, again = run(shapes, tmp_path / "out"), run(shapes, tmp_path / "out", "score=pixel_accuracy")
    assert again.skipped and again.result == first.result


def test_a_cell_that_fails_leaves_the_others_of_its_pass_alone(shapes, tmp_path, monkeypatch):
    from diffcut_bench.refinement import PamrRefiner

    def refuse(self, image, labels):
        raise RuntimeError("no refinement today")

    monkeypatch.setattr(PamrRefiner, "__call__", refuse)
    base = [*shapes_overrides(shapes, tmp_path), "batch_size=3"]
    own = (["refiner=none"], [], ["segmenter.tau=2", "refiner=none"], ["refiner=none", "segmenter.tau=0.3"])
    fine, broken, wrong, other = passes.run_cells([load_config([*base, *extra]) for extra in own])
    assert isinstance(broken, UserError)
    assert "no refinement today" in str(broken)
    assert "tau must lie in" in str(wrong)
    assert fine.result.failures == other.result.failures == []
    assert fine.result.metrics.miou != other.result.metrics.miou


def test_a_pass_goes_on_where_each_cell_was(shapes, tmp_path):
    base = shapes_overrides(shapes, tmp_path)
    configs = [load_config([*base, f"segmenter.tau={tau}", "batch_size=2"]) for tau in (0.3, 0.6)]

    with pytest.raises(KeyboardInterrupt):
        passes.run_cells(configs[:1], interrupting_after(4))
    whole = passes.run_cells(configs)
    for config, cell in zip(configs, whole, strict=True):
        alone = run(shapes, tmp_path / "alone", f"segmenter.tau={config.segmenter['tau']}")
        assert read_rows(cell.folder) == read_rows(alone.folder)


def test_a_look_takes_prepared_data_as_they_are_and_prepares_none(tmp_path):
    config = load_config(["dataset=voc", f"data_dir={tmp_path}", f"dataset.root={tmp_path}"])
    assert passes.without_preparing(config).prepared == "never", "the originals, unprepared"
    folder = prepared_folder(instantiate("dataset", config.dataset), tmp_path)
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps(asdict(Manifest("voc-val", "digest", "/root", 2))))
    assert passes.without_preparing(config).prepared == str(folder), "also where the originals are newer"
    own = load_config(["dataset=voc", "prepared=s3://bucket/voc"])
    assert passes.without_preparing(own) == own
    drawn = load_config(["dataset=sample"])
    assert passes.without_preparing(drawn) == drawn


def test_an_observer_is_told_what_each_stage_took(shapes, tmp_path):
    told: list[dict[str, float]] = []

    class Stages(Observer):
        def stages(self, seconds):
            told.append(dict(seconds))

    overrides = [*shapes_overrides(shapes, tmp_path / "out"), "batch_size=1", "refiner=pamr"]
    result = passes.run_cell(load_config(overrides), Stages()).result
    assert len(told) == result.dataset.n_images
    assert told[-1] == {stage: pytest.approx(getattr(result.timings, stage), abs=1e-3) for stage in told[-1]}
    assert {"read_s", "segment_s", "refine_s"} <= set(told[-1]) <= set(Timings.__dataclass_fields__) - {"wall_s"}
    assert all(after[stage] >= seconds for before, after in pairwise(told) for stage, seconds in before.items())
