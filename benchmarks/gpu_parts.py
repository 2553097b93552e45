"""What `gpu_check` measures itself, each part in a process of its own: ``python -m benchmarks.gpu_parts NAME PLAN``.

A part writes NAME.json anew after each row, so that one that is cut short loses little.
"""

import json
import os
import shutil
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cut import textbook_within
from benchmarks.random_weights import ARCHITECTURES, write_random_checkpoint
from benchmarks.report import write_record
from benchmarks.run_method import open_subject
from benchmarks.stages import Stage, measure_stages
from diffcut_bench.config import load_config
from diffcut_bench.datasets.sample import sample
from diffcut_bench.heap import keep_freed_memory
from diffcut_bench.ncut import recursive_ncut
from diffcut_bench.scoring.events import Observer
from diffcut_bench.scoring.passes import run_cell

_TAU, _ALPHAS = 0.5, (5.0, 10.0)
_PHOTOGRAPHS = 8  # different ones; batches hold copies
# Aims for an H100 or H200.
_LARGE, _CUT_RATIO, _CUT_IMAGES_PER_S, _CUT_ALONE_MS, _WHOLE_IMAGES_PER_S = 64, 300.0, 500.0, 30.0, 50.0
_NOT_RUN = "not run: "
_WHOLE_S = 20.0  # of encoding, so that the start counts little


@dataclass(frozen=True)
class Plan:
    """What is run, and where.

    Attributes:
        device: ``cuda``, or ``cpu``.
        folder: that parts write to.
        small: tiny shapes and a tiny encoder, to see that everything runs; no figure of it means anything.
        overrides: Hydra's, of the user.
        encoder: the fastest sound row of the encoder's record (see `run_encoder`); empty: none was found.
    """

    device: str
    folder: str
    small: bool
    overrides: list[str]
    encoder: dict[str, Any] = field(default_factory=dict)

    @property
    def patches(self) -> int:
        """A side."""
        return 8 if self.small else 32

    @property
    def batches(self) -> tuple[int, ...]:
        """Images at a time of the cut, in ascending order."""
        return (1, 2) if self.small else (1, 8, _LARGE)

    @property
    def textbook_s(self) -> float:
        """Seconds after which the textbook version begins no further image."""
        return 0.0 if self.small else 10.0

    @property
    def model(self) -> str:
        """Of `random_weights.ARCHITECTURES`."""
        return "tiny" if self.small else "ssd1b"

    @property
    def encoder_batch(self) -> int:
        return 1 if self.small else 16

    @property
    def sizes(self) -> list[str]:
        """Overrides that make a small run small."""
        return ["protocol.image_size=128", "protocol.eval_size=32"] if self.small else []

    @property
    def all_overrides(self) -> list[str]:
        """The user's, with device and sizes."""
        return [*self.overrides, f"device={self.device}", *self.sizes]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        part: that it is of.
        what: was measured or checked.
        value: in ``unit``; None: there is none, and ``note`` says why.
        aim: at least so much, or with ``at_most`` no more.
        is_check: the command fails where the aim is missed; other aims are for an H100 or H200, and for real sizes.
        failed: it should have run, and did not.
        note: what a reader needs beside the figure.
    """

    part: str
    what: str
    value: float | None = None
    unit: str = ""
    aim: float | None = None
    at_most: bool = False
    is_check: bool = False
    failed: bool = False
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the aim is; None without an aim or a figure."""
        if self.aim is None or self.value is None:
            return None
        return self.value <= self.aim if self.at_most else self.value >= self.aim

    @property
    def is_wrong(self) -> bool:
        """Whether the command fails for it."""
        return self.failed or (self.is_check and self.reached is False)


def cut(plan: Plan) -> Iterator[Row]:
    """The cut at each alpha and batch against the textbook version on the same device; at the largest batch also the
    stages around it, against their plain versions. Golden features if DIFFCUT_SHARED has them, else the backbone's."""
    shared = os.environ.get("DIFFCUT_SHARED")
    golden = None if shared is None else str(Path(shared) / "golden" / "recursive_ncut.npz")
    options = Namespace(images=min(_PHOTOGRAPHS, max(plan.batches)), features=golden, overrides=plan.all_overrides)
    material = open_subject(options).material.of_size(plan.patches, max(plan.batches))
    recursive_ncut(material.nodes[:1], _TAU)
    textbook_within(material.nodes[:1, :64], _TAU, _ALPHAS[0])  # libraries are loaded by the first call
    for alpha in _ALPHAS:
        textbook = textbook_within(material.nodes, _TAU, alpha, plan.textbook_s)
        for images in plan.batches:
            stages = measure_stages(material, images, alpha, _TAU, textbook)
            # Of smaller batches the cut alone, which is the second stage.
            for stage in stages if images == max(plan.batches) else islice(stages, 1, 2):
                yield from _cut_rows(stage) if stage.stage == "cut" else [_stage_row(stage)]


def _cut_rows(stage: Stage) -> Iterator[Row]:
    name, rate = f"cut, alpha {stage.alpha:g}, batch {stage.images}", stage.images_per_s
    segments = f"{stage.segments:.0f} segments an image"
    if stage.images == 1:
        yield Row("cut", name, 1000 / rate, "ms", _CUT_ALONE_MS, at_most=True, note=segments)
    else:
        aimed = (stage.images, stage.alpha) == (_LARGE, _ALPHAS[0])
        yield Row("cut", name, rate, "images/s", _CUT_IMAGES_PER_S if aimed else None, note=segments)
    if stage.plain_s is not None and stage.equal is not None:
        theirs = f"{stage.plain_s:.3g} s an image ({stage.plain_images} timed), same device"
        aim = _CUT_RATIO if stage.images == _LARGE else None
        yield Row("cut", f"{name}: times the textbook", stage.ratio, "×", aim, note=theirs)
        dense = f"ARI to the dense solver {stage.ari_to_dense:.4f}"
        yield Row("cut", f"{name}: equal to the textbook", 100 * stage.equal, "%", 100.0, is_check=True, note=dense)


def _stage_row(stage: Stage) -> Row:
    told = [f"{stage.floor_share:.1%} of its floor"]
    if stage.ratio is not None and stage.equal is not None:
        told.append(f"{stage.ratio:.3g} × its plain version, {stage.equal:.2%} equal")
    name = f"{stage.stage}, alpha {stage.alpha:g}, batch {stage.images}"
    return Row("cut", name, stage.images_per_s, "images/s", note=", ".join(told))


def end_to_end(plan: Plan) -> Iterator[Row]:
    """The whole program: photographs read, encoded with random weights in the fastest sound precision, cut, refined,
    scored and written."""
    batch = plan.encoder_batch
    encoder = plan.encoder or {"unet_dtype": "bfloat16", "vae_dtype": "bfloat16", "precision": "bfloat16"}
    workers = 0 if plan.small else min(os.cpu_count() or 1, 16) - 1
    batches = 2 if plan.small else max(round(_WHOLE_S * encoder.get("images_per_s", 0.0) / batch), 4)
    folder = Path(plan.folder)
    weights = folder / "bench" / f"weights-{plan.model}"  # those of the encoder's part, which may have failed
    write_random_checkpoint(weights, ARCHITECTURES[plan.model])
    choices = ("unet_dtype", "vae_dtype", "autocast", "channels_last", "compile")
    clock = _Clock()
    cell = run_cell(
        load_config(
            [
                *("backbone=ssd1b", f"backbone.model={weights}"),
                *(f"backbone.{name}={str(encoder[name]).lower()}" for name in choices if name in encoder),
                *(f"segmenter.tau={_TAU}", f"batch_size={batch}", f"num_workers={workers}"),
                *("features=memory", "visualise=0", "if_exists=overwrite", *plan.all_overrides),
                *_photographs(folder / "photographs", batches * batch),
                f"output_dir={folder / 'run'}",
            ]
        ),
        clock,
    )
    result = cell.result
    timings = asdict(result.timings)
    wall_s = timings.pop("wall_s")
    whole = timings.pop("images_per_s")
    shares = ", ".join(f"{name.removesuffix('_s')} {seconds / wall_s:.0%}" for name, seconds in timings.items())
    layout = ", channels last" if encoder.get("channels_last") else ""
    compiled = ", compiled" if encoder.get("compile") else ""
    how = f"{encoder['precision']}{layout}, after the first batch"
    name, aim = f"{plan.model}, random weights, batch {batch}{compiled}", _WHOLE_IMAGES_PER_S
    yield Row("end to end", name, clock.images_per_s, "images/s", aim, note=how)
    yield Row("end to end", "with the start", whole, "images/s", note=f"weights are read; {shares}")
    yield Row("end to end", "segments an image", result.segments_per_image.mean)
    failed = len(result.failures)
    first = result.failures[0].error if failed else ""
    yield Row("end to end", "images that failed", failed, "", 0.0, at_most=True, is_check=True, note=first)


class _Clock(Observer):
    """Times of the first and of the last batch: what comes before the first one's end is the start."""

    def __init__(self) -> None:
        self.times: list[tuple[float, int]] = []

    def scored(self, done: int, total: int) -> None:
        if done:
            self.times.append((time.perf_counter(), done))

    @property
    def images_per_s(self) -> float | None:
        """After the first batch; None where there was no other."""
        (first_s, first), (last_s, last) = self.times[0], self.times[-1]
        return (last - first) / (last_s - first_s) if last > first else None


def _photographs(root: Path, count: int) -> list[str]:
    """A folder data set of so many copies of the sample photographs, and the overrides that open it."""
    shutil.rmtree(root, ignore_errors=True)
    for name in ("images", "labels"):
        (root / name).mkdir(parents=True)
    dataset = sample()
    records = dataset.records
    for number in range(count):
        record = records[number % len(records)]
        path = Path(record["image"]["path"])
        (root / "images" / f"{number:05}{path.suffix}").symlink_to(path)
        (root / "labels" / f"{number:05}.png").write_bytes(record["label"]["bytes"])
    words = (f"root={root}", f"num_classes={dataset.num_classes}", f"background={dataset.background}")
    return ["dataset=folder", *(f"dataset.{word}" for word in words)]


def record_tests(place: str, record: Path) -> int:
    """Run the tests of a GPU in a folder, and write after each what is known so far: a row for each test function, and
    one for each figure that a test recorded (``record_property``).

    Returns:
        Exit code of pytest.
    """
    # Without pyproject's checks of shapes, which have to be there before the package is imported.
    options = ["-o", "addopts=", "-p", "no:cacheprovider", "-v", "-m", "gpu", "--timeout=60"]
    return int(pytest.main([*options, place], plugins=[_Recorder(record)]))


class _Recorder:
    """What pytest calls."""

    def __init__(self, record: Path) -> None:
        self.record = record
        # By function and its parameters: nothing, why it was not run, or why it failed.
        self.told: dict[str, dict[str, str]] = {}
        self.figures: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        name, _, parameters = report.nodeid.rpartition("::")[2].partition("[")
        of_function = self.told.setdefault(name.removeprefix("test_").replace("_", " "), {})
        if report.skipped:
            told = _NOT_RUN + str(report.longrepr[2] if isinstance(report.longrepr, tuple) else "")
            of_function[parameters] = told.replace("Skipped: ", "")
        else:
            of_function[parameters] = report.longreprtext.strip().rpartition("\n")[2] if report.failed else ""
        self.figures |= {name: float(str(value)) for name, value in report.user_properties}
        write_record(self.record, {"rows": [asdict(row) for row in self.rows()]})

    def rows(self) -> Iterator[Row]:
        for name, by_parameters in self.told.items():
            told = list(by_parameters.values())
            ran = [each for each in told if not each.startswith(_NOT_RUN)]
            if ran:
                wrong, all_of_them = next(filter(None, ran), ""), float(len(ran))
                yield Row("tests", name, float(ran.count("")), f"of {len(ran)}", all_of_them, is_check=True, note=wrong)
            else:
                yield Row("tests", name, note=told[0])
        yield from (Row("tests", name, value) for name, value in self.figures.items())


PARTS: Mapping[str, Callable[[Plan], Iterator[Row]]] = {"cut": cut, "end_to_end": end_to_end}


def main(name: str, plan_json: str) -> None:
    """Measure a part of a plan (`Plan` as JSON)."""
    keep_freed_memory()  # as the command line does
    plan = Plan(**json.loads(plan_json))
    record = Path(plan.folder) / f"{name}.json"
    if name == "tests":
        code = record_tests("tests/gpu", record)
        sys.exit(0 if code == pytest.ExitCode.TESTS_FAILED else code)  # rows tell of those
    rows: list[dict[str, Any]] = []
    for row in PARTS[name](plan):
        rows.append(asdict(row))
        write_record(record, {"rows": rows})


if __name__ == "__main__":
    main(*sys.argv[1:])
