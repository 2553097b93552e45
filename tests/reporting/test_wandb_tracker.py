"""What the tracker writes is read back from wandb's own files, record by record, and compared with result.json."""

import ast
import contextlib
import inspect
import io
import json
import os
import shlex
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import wandb
from conftest import DATA, shapes_overrides, write_shapes
from PIL import Image
from wandb.errors import CommError
from wandb.proto.wandb_internal_pb2 import Record

from diffcut_bench.commands.passes import tell
from diffcut_bench.config import instantiate, load_config
from diffcut_bench.datasets import SegmentationDataset
from diffcut_bench.errors import UserError
from diffcut_bench.evaluation import FEWEST_IMAGES
from diffcut_bench.reporting import WandbTracker, encode_figure, sweep_figures, wandb_tracker
from diffcut_bench.scoring.passes import open_pass, run_cell
from diffcut_bench.scoring.pipeline import Outcome
from diffcut_bench.store import Result, Score

RESULT = Result.from_json((DATA / "result_v1.json").read_text())
_CHOICES = ["folder", "efficientnet_lite0", "diffcut"]
_MASKS = ("prediction", "ground_truth")
_KEY = "a" * 40  # as long as one


@dataclass(frozen=True)
class FinishedCell:
    """A cell on disk, and what the tracker is told of it."""

    folder: Path
    result: Result
    dataset: SegmentationDataset
    outcomes: Callable[[int], Iterable[Outcome]]

    def log(self, tracker: WandbTracker, **arguments: Any) -> list[str]:
        given = {"folder": self.folder, "outcomes": self.outcomes, **arguments}
        return tracker.log_cell(result=self.result, dataset=self.dataset, **given)

    def copied(self, into: Path) -> "FinishedCell":
        """The same cell where nothing was logged yet."""
        ignored = shutil.ignore_patterns("wandb.json")
        return replace(self, folder=shutil.copytree(self.folder, into / self.folder.name, ignore=ignored))


def finish(overrides: list[str]) -> FinishedCell:
    config = load_config(overrides)
    finished, opened = run_cell(config), open_pass(config)
    cell, dataset = opened.cell(config), opened.dataset
    return FinishedCell(
        finished.folder, finished.result, dataset, lambda count: cell.outcomes(range(min(count, len(dataset))))
    )


class Run:
    """A run as its ``.wandb`` file holds it."""

    def __init__(self, directory: Path) -> None:
        self.files = directory / "files"
        (path,) = directory.glob("*.wandb")
        self.config: dict[str, Any] = {}
        self.history: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        for record in _finished_records(path):
            if record.HasField("run"):
                self.run = record.run
            for items, into in (
                (record.run.config.update, self.config),
                (record.config.update, self.config),
                (record.history.item, self.history),
                (record.summary.update, self.summary),
            ):
                for item in items:
                    _put(into, list(item.nested_key) or [item.key], json.loads(item.value_json))

    def table(self, key: str) -> list[dict[str, Any]]:
        """Rows of a table from the file that the summary names."""
        content = json.loads((self.files / self.summary[key]["path"]).read_text())
        return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]


def _finished_records(path: Path) -> list[Record]:
    """wandb's service puts the last records on disk shortly after a run's end, at the latest when the process ends."""
    for _ in range(600):
        records = list(_records(path.read_bytes()))
        if records and records[-1].HasField("exit"):
            return records
        time.sleep(0.05)
    raise AssertionError(f"{path} is not complete")


def _records(data: bytes) -> Iterator[Record]:
    """wandb 0.31 has a reader in its Go core only: blocks of 32 KiB, parts of a record under headers of 7 bytes."""
    assert data[:4] == b":W&B"
    position, parts = 7, b""
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        _, size, kind = struct.unpack("<IHB", data[position : position + 7])
        parts += data[position + 7 : position + 7 + size]
        position += 7 + size
        if position > len(data):
            return  # half written
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def _put(into: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        into = into.setdefault(key, {})
    into[keys[-1]] = value


def directory_of(line: str) -> Path:
    words = shlex.split(line)
    assert words[:2] == ["wandb", "sync"]
    return Path(words[2])


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextlib.contextmanager
def own_environment(home: Path) -> Iterator[socket.socket]:
    """wandb without a login, its server a socket that takes connections and never answers."""
    stop()
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as server:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        patch.setenv("HOME", str(home))
        patch.setenv("NETRC", str(home / "netrc"))
        patch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield server
        stop()


def stop() -> None:
    """End wandb's service, and forget where it was."""
    wandb.teardown()
    os.environ.pop("WANDB_SERVICE", None)


def was_called(server: socket.socket) -> bool:
    server.setblocking(False)
    try:
        server.accept()[0].close()
    except BlockingIOError:
        return False
    return True


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No login. The current directory and the home must stay as they are, and the network must not be touched."""
    home, current = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("current")
    with own_environment(home) as server, contextlib.chdir(current):
        yield
        stop()
        assert list(current.iterdir()) == []
        assert not [path for path in home.rglob("*") if "wandb" in path.name]
        assert not was_called(server)


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> FinishedCell:
    """With void pixels, and with segments that match no class."""
    root = tmp_path_factory.mktemp("cell")
    choices = ["protocol.void=ignore", "protocol.background_rule=one_to_one", "segmenter.tau=0.8"]
    made = finish([*shapes_overrides(write_shapes(root / "shapes", FEWEST_IMAGES), root / "out"), *choices])
    # A commit of its own, which no look at a checkout could give.
    environment = replace(made.result.environment, git={"commit": "c0ffee" + "0" * 34, "dirty": False})
    result = replace(made.result, environment=environment)
    (made.folder / "result.json").write_text(result.to_json())
    return replace(made, result=result)


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> WandbTracker:
    return WandbTracker(str(tmp_path_factory.mktemp("tracked") / "it's here"), tags=["mine"], examples=3)


@pytest.fixture(scope="module")
def lines(offline: None, cell: FinishedCell, tracker: WandbTracker) -> list[str]:
    before = everything_in(cell.folder)
    said = cell.log(tracker, group="sweep one")
    after = everything_in(cell.folder)
    assert {path: after[path] for path in before} == before
    assert set(after) - set(before) == {str(cell.folder / "wandb.json")}
    return said


@pytest.fixture(scope="module")
def logged(lines: list[str]) -> Run:
    (line,) = lines
    return Run(directory_of(line))


def test_without_a_login_the_line_syncs_what_was_logged(lines, cell, tracker):
    directory = directory_of(lines[0])
    assert directory.parent.parent == Path(tracker.folder)
    record = json.loads((cell.folder / "wandb.json").read_text())
    assert record == {"id": cell.result.key[:12], "mode": "offline", "directory": str(directory), "url": None}
    command = [Path(sys.executable).parent / "wandb", *shlex.split(lines[0])[1:], "--dry-run"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "Would sync 1 run(s)" in said.stdout + said.stderr


def test_a_run_is_of_its_cell(logged, cell):
    run = logged.run
    assert (run.run_id, run.display_name, run.project) == (cell.result.key[:12], cell.folder.name, "diffcut_bench")
    assert (run.run_group, run.job_type, list(run.tags)) == ("sweep one", "cell", ["mine", *_CHOICES])
    assert run.git.commit == json.loads((cell.folder / "result.json").read_text())["environment"]["git"]["commit"]
    assert run.host == ""
    assert [path.name for path in logged.files.iterdir()] == ["media"], "neither code nor machine"


def test_config_is_the_results_with_the_protocol_in_force(logged, cell):
    raw = json.loads((cell.folder / "result.json").read_text())
    config = {name: value for name, value in logged.config.items() if name != "_wandb"}
    assert config.pop("protocol") == raw["protocol"]
    assert config.pop("key") == raw["key"]
    assert config.pop("environment") == raw["environment"]
    assert config.pop("limited") is raw["limited"]
    assert config == {name: value for name, value in raw["config"].items() if name != "protocol"}


def test_metrics_are_the_numbers_of_result_json(logged, cell):
    raw = json.loads((cell.folder / "result.json").read_text())
    scores = raw["scores"]
    assert {"miou", "pixel_accuracy", "segments", "ari", "majority_miou"} < set(scores)
    expected = {name: score["value"] for name, score in scores.items()}
    for name, score in scores.items():
        expected[f"{name}_low"], expected[f"{name}_high"] = score["ci95"]
        own = "iou" if name == "miou" else name
        expected |= {f"{own}/{of}": iou for of, iou in score["per_class"].items()}
        for of, (low, high) in score["per_class_ci95"].items():
            expected |= {f"{own}_low/{of}": low, f"{own}_high/{of}": high}
    for group, short in (("segments_per_image", "segments"), ("timings", "timings")):
        expected |= {f"{short}/{name}": value for name, value in raw[group].items()}
    expected |= {"images": FEWEST_IMAGES, "failures": 0}
    for found in (logged.summary, logged.history):
        assert {name: value for name, value in found.items() if isinstance(value, (int, float)) and name[0] != "_"} == (
            pytest.approx(expected, rel=1e-12)
        )


def test_the_table_of_classes_holds_scores_and_pixels(logged, cell):
    raw = json.loads((cell.folder / "result.json").read_text())["metrics"]
    counts = pq.read_table(cell.folder / "per_image.parquet").to_pydict()
    rows = logged.table("classes")
    assert "artifact_path" not in logged.summary["classes"], "the table lies in the run's own files"
    assert {row["class"]: row["iou"] for row in rows} == raw["iou_per_class"]
    assert {row["class"]: [row["iou_low"], row["iou_high"]] for row in rows} == raw["iou_per_class_ci95"]
    for name in ("tp", "fp", "fn"):
        assert [row[name] for row in rows] == np.array(counts[name]).sum(axis=0).tolist()
    assert rows[0]["iou"] == pytest.approx(rows[0]["tp"] / (rows[0]["tp"] + rows[0]["fp"] + rows[0]["fn"]))


def test_a_metric_that_is_seldom_there_is_logged_where_it_is(offline, cell, tmp_path):
    scores = {**cell.result.scores, "jaccard": Score(0.4, (0.3, 0.5), {"disc": 0.25})}
    scored = replace(cell.copied(tmp_path), result=replace(cell.result, scores=scores))
    (line,) = scored.log(WandbTracker(str(tmp_path / "tracked"), examples=0))
    summary = Run(directory_of(line)).summary
    assert [summary[f"jaccard{end}"] for end in ("", "_low", "_high", "/disc")] == [0.4, 0.3, 0.5, 0.25]


def masks_of(run: Run) -> list[dict[str, np.ndarray]]:
    """Masks of each example by name."""
    return [
        {name: np.asarray(Image.open(run.files / masks[name]["path"])) for name in _MASKS}
        for masks in run.history["examples"]["all_masks"]
    ]


def assert_masks_score_as_the_cell(run: Run, cell: FinishedCell, present: set[int] | None = None) -> None:
    """Pixels of the two masks give the TP, FP and FN that the cell was scored with."""
    counts = pq.read_table(cell.folder / "per_image.parquet").to_pydict()
    for index, masks in enumerate(masks_of(run)):
        prediction, label = masks["prediction"], masks["ground_truth"]
        annotated = label < cell.dataset.num_classes
        for class_id in present or set(label[annotated].tolist()):
            predicted, true = (mask[annotated] == class_id for mask in (prediction, label))
            found = [int(pixels.sum()) for pixels in (predicted & true, predicted & ~true, ~predicted & true)]
            assert found == [counts[name][index][class_id] for name in ("tp", "fp", "fn")]


def test_masks_carry_the_classes_that_segments_matched(logged, cell):
    masks = masks_of(logged)
    assert len(masks) == 3
    assert_masks_score_as_the_cell(logged, cell)
    unmatched, void = 3, 4
    labels = [outcome.example.label for outcome in cell.outcomes(3)]
    assert any((one["prediction"] == unmatched).any() for one in masks)
    for index, one in enumerate(masks):
        assert np.array_equal(one["ground_truth"] == void, labels[index].numpy() < 0)
    names = {str(index): name for index, name in enumerate([*cell.dataset.class_names, "unmatched", "void"])}
    legends = logged.config["_wandb"]["mask/class_labels"]
    assert [legends[f"examples_wandb_delimeter_{mask}"]["value"] for mask in _MASKS] == [names, names]


def test_images_are_the_scored_ones(logged, cell):
    files = logged.history["examples"]["filenames"]
    for outcome, name, caption in zip(cell.outcomes(3), files, logged.history["examples"]["captions"], strict=True):
        pixels = np.asarray(Image.open(logged.files / name)).astype(float) / 255
        assert np.abs(pixels - outcome.example.eval_image.permute(1, 2, 0).numpy()).max() < 1 / 255
        assert caption.startswith(f"{outcome.example.id}, ")


def test_clusters_matched_once_for_the_data_set_keep_that_class_in_the_masks(offline, tmp_path):
    root = write_shapes(tmp_path / "shapes", 3)
    for path in (root / "labels").iterdir():
        label = np.asarray(Image.open(path))
        # In one image, cluster 0 covers most of class 1, which is cluster 7 over all images.
        flipped = path.stem == "picture0"
        prediction = np.select([label == 1, label == 2], [0 if flipped else 7, 5], 3).astype(np.uint8)
        (tmp_path / "made").mkdir(exist_ok=True)
        Image.fromarray(prediction).save(tmp_path / "made" / path.name)
    made = finish(
        [
            *shapes_overrides(root, tmp_path / "out"),
            "segmenter=precomputed",
            f"segmenter.folder={tmp_path / 'made'}",
            "refiner=none",
            "protocol.matching=dataset",
            "protocol.background_rule=one_to_one",
        ]
    )
    (line,) = made.log(WandbTracker(str(tmp_path / "tracked")))
    run = Run(directory_of(line))
    assert_masks_score_as_the_cell(run, made, {0, 1, 2})
    assert 1 not in masks_of(run)[0]["prediction"]
    assert 1 in masks_of(run)[1]["prediction"]


def test_a_logged_cell_is_left_alone_until_its_files_are_gone(lines, cell, tracker, tmp_path):
    before = everything_in(Path(tracker.folder))
    assert cell.log(tracker, outcomes=lambda count: pytest.fail("nothing has to be scored")) == []
    assert everything_in(Path(tracker.folder)) == before
    again = cell.copied(tmp_path)
    record = json.loads((cell.folder / "wandb.json").read_text())
    (again.folder / "wandb.json").write_text(json.dumps({**record, "directory": str(tmp_path / "gone")}))
    (line,) = again.log(WandbTracker(str(tmp_path / "other"), group="mine"))
    assert (Run(directory_of(line)).run.run_id, Run(directory_of(line)).run.run_group) == (record["id"], "mine")


def test_without_outcomes_the_metrics_are_logged(offline, cell, tmp_path):
    def fails(count: int) -> Iterator[Outcome]:
        yield from cell.outcomes(1)
        raise ValueError("the second image is gone")

    own = cell.copied(tmp_path)
    missing, sync = own.log(WandbTracker(str(tmp_path / "tracked")), outcomes=fails)
    assert "the second image is gone" in missing
    run = Run(directory_of(sync))
    assert run.summary["miou"] == pytest.approx(cell.result.metrics.miou)
    assert len(masks_of(run)) == 1
    assert own.log(WandbTracker(str(tmp_path / "tracked"))) == []


def test_without_pictures_the_metrics_are_logged(offline, cell, tmp_path, monkeypatch):
    def fail(*arguments: object, **named: object) -> None:
        sys.stdout.write("the terminal is not W&B's\n")
        raise CommError("no pictures today")

    monkeypatch.setattr(wandb, "Image", fail)
    missing, sync = cell.copied(tmp_path).log(WandbTracker(str(tmp_path / "tracked")))
    assert "no pictures today" in missing
    run = Run(directory_of(sync))
    assert "examples" not in run.summary
    assert not (run.files / "output.log").exists()


def raises(error: BaseException) -> Callable[..., None]:
    def fail(*arguments: object, **named: object) -> None:
        raise error

    return fail


_USED = ("setup", "Settings", "init", "login", "Table", "Image", "Run.log", "Run.__exit__")


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        (_USED, SystemExit(1)),
        (["setup"], SystemExit("login refused\nby the server")),
        (["Settings"], ValueError("x_disable_meta: extra fields not permitted")),
        (["init"], CommError("no connection")),
        (["Table"], TypeError("no such column")),
        (["Run.log"], wandb.Error("the service died")),
        (["Run.__exit__"], TimeoutError("still uploading")),
    ],
    ids=str,
)
def test_whatever_fails_is_one_line_and_the_result_stays(offline, cell, tmp_path, monkeypatch, capsys, broken, error):
    own = cell.copied(tmp_path)
    before = everything_in(own.folder)
    for name in broken:
        holder, _, attribute = f"wandb.{name}".rpartition(".")
        monkeypatch.setattr(f"{holder}.{attribute}", raises(error))
    broken_tracker = WandbTracker(str(tmp_path / "tracked"))
    for log in (partial(own.log, broken_tracker), partial(broken_tracker.log_sweep, "a sweep", [cell.result])):
        tell("it", log)
        line, *places = capsys.readouterr().out.splitlines()
        assert line.startswith(f"tracker: it is not logged ({type(error).__name__}: ")
        assert all(place.startswith("  ") for place in places), "of this file, which raises it: code of the user's"
    assert everything_in(own.folder) == before


def test_without_the_package_nothing_is_written(cell, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    own = cell.copied(tmp_path)
    before = everything_in(own.folder)
    with pytest.raises(UserError, match="not installed: wandb"):
        own.log(WandbTracker(str(tmp_path / "tracked")))
    assert everything_in(own.folder) == before
    assert not (tmp_path / "tracked").exists()


def test_an_interrupt_is_the_users(cell, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        cell.copied(tmp_path).log(WandbTracker(str(tmp_path / "tracked")), outcomes=raises(KeyboardInterrupt()))


def swept(tau: float, alpha: float, miou: float) -> Result:
    config = {**RESULT.config, "segmenter": {**RESULT.config["segmenter"], "tau": tau, "alpha": alpha}}
    scores = {**RESULT.scores, "miou": replace(RESULT.scores["miou"], value=miou)}
    return replace(RESULT, config=config, scores=scores, key=f"{tau}-{alpha}")


def test_a_sweep_has_its_figures_and_a_table(offline, tmp_path, capfd):
    scores = {(0.3, 10): 0.31, (0.3, 5): 0.25, (0.7, 5): 0.42, (0.7, 1): 0.5, (0.3, 1): 0.125, (0.7, 10): 0.4}
    results = [swept(tau, alpha, miou) for (tau, alpha), miou in scores.items()]
    (line,) = WandbTracker(str(tmp_path / "tracked"), tags=["mine"]).log_sweep("2026-01-01", results)
    assert capfd.readouterr() == ("", "")
    run = Run(directory_of(line))
    assert (run.run.run_group, run.run.job_type, run.run.display_name) == ("2026-01-01", "sweep", "2026-01-01")
    assert list(run.run.tags) == ["mine"]
    assert run.run.git.commit == RESULT.environment.git["commit"]
    captions = {"miou_curves": "mIoU by alpha, for each tau", "miou_heatmap": "mIoU by alpha and tau"}
    assert {name: run.history[name]["caption"] for name in captions} == captions
    for name, drawn in zip(captions, sweep_figures(results), strict=True):
        pixels = np.asarray(Image.open(run.files / run.history[name]["path"]))
        assert np.array_equal(pixels, np.asarray(Image.open(io.BytesIO(encode_figure(drawn.figure, "png")))))
    rows = run.table("cells")
    assert {(row["tau"], row["alpha"]): row["miou"] for row in rows} == scores
    assert [row["key"] for row in rows] == [result.key for result in results]


def test_a_sweep_over_names_alone_has_its_table(offline, tmp_path):
    others = replace(RESULT, config={**RESULT.config, "choices": {**RESULT.config["choices"], "refiner": "none"}})
    tracker = WandbTracker(str(tmp_path / "tracked"), group="all of them")
    assert tracker.log_sweep("empty", []) == []
    (line,) = tracker.log_sweep("names", [RESULT, others])
    run = Run(directory_of(line))
    assert run.run.run_group == "all of them"
    assert [row["refiner"] for row in run.table("cells")] == [RESULT.config["choices"]["refiner"], "none"]
    assert not any("curves" in name for name in run.summary)


def logs_in_by_key(patch: pytest.MonkeyPatch, home: Path) -> None:
    patch.setenv("WANDB_API_KEY", _KEY)


def logs_in_by_netrc(patch: pytest.MonkeyPatch, home: Path) -> None:
    machine = os.environ["WANDB_BASE_URL"].removeprefix("http://")
    (home / "netrc").write_text(f"machine {machine}\n  login user\n  password {_KEY}\n")


def logs_in_by_settings(patch: pytest.MonkeyPatch, home: Path) -> None:
    (home / "settings").write_text(f"[default]\napi_key = {_KEY}\n")
    patch.setenv("WANDB_CONFIG_DIR", str(home))


@pytest.mark.parametrize("log_in", [logs_in_by_key, logs_in_by_netrc, logs_in_by_settings])
def test_with_a_login_a_server_that_never_answers_ends_in_an_error(cell, tmp_path, monkeypatch, log_in):
    own = cell.copied(tmp_path)
    before = everything_in(own.folder)
    with own_environment(tmp_path) as server:
        monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
        log_in(monkeypatch, tmp_path)
        with pytest.raises(CommError):
            own.log(WandbTracker(str(tmp_path / "tracked"), examples=0))
        assert was_called(server)
        monkeypatch.undo()
    assert everything_in(own.folder) == before


def test_the_environment_can_ask_for_offline_in_spite_of_a_login(cell, tmp_path, monkeypatch):
    with own_environment(tmp_path) as server:
        monkeypatch.setenv("WANDB_MODE", "offline")
        monkeypatch.setenv("WANDB_API_KEY", _KEY)
        (line,) = cell.copied(tmp_path / "copy").log(WandbTracker(str(tmp_path / "tracked"), examples=0))
        assert not was_called(server)
        monkeypatch.undo()
    assert directory_of(line).is_dir()
    (log,) = (tmp_path / "tracked").rglob("core-debug-*.log")
    assert '"disable-analytics":true' in log.read_text()  # which would go to W&B whatever the mode


def test_online_without_a_login_asks_nobody(cell, offline, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", raises(AssertionError("asked the user")))
    with pytest.raises(ValueError, match="no login; use `wandb login`"):
        cell.copied(tmp_path).log(WandbTracker(str(tmp_path / "tracked"), mode="online"))


def test_a_run_that_the_caller_has_open_is_left_alone(offline, tmp_path, monkeypatch, capfd):
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    with wandb.init(mode="offline", dir=str(tmp_path)) as own:
        capfd.readouterr()
        (line,) = WandbTracker(str(tmp_path / "tracked")).log_sweep("beside it", [RESULT])
        assert wandb.run is own
        assert capfd.readouterr() == ("", "")
    assert Run(directory_of(line)).run.run_id != own.id


def test_the_option_builds_the_tracker(tmp_path):
    config = load_config(["tracker=wandb", f"output_dir={tmp_path}", "tracker.tags=[a,b]"])
    assert instantiate("tracker", config.tracker) == WandbTracker(f"{tmp_path}/wandb", tags=["a", "b"])
    for wrong, where in (("mode=sometimes", "auto, online or offline"), ("examples=-1", "at least 0")):
        config = load_config(["tracker=wandb", f"tracker.{wrong}"])
        with pytest.raises(UserError, match=where):
            instantiate("tracker", config.tracker)


def test_the_package_is_imported_where_it_is_used_and_no_module_within_it():
    tree = ast.parse(inspect.getsource(wandb_tracker))
    names = {node: ast.unparse(node) for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))}
    assert {name for name in names.values() if "wandb" in name} == {"import wandb"}
    assert "import wandb" not in {names.get(node) for node in tree.body}
