"""Whole commands on the pretended accelerator: every image is counted as on the CPU, to the pixel."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import shapes_overrides
from PIL import Image
from text_checkpoints import write_checkpoint

import diffcut_bench
from benchmarks.pretended import DEVICE, Pretended
from diffcut_bench.environment import choose_device, device_name, devices_here, is_here, synchronize
from diffcut_bench.store import read_result, read_rows

RUNS = {
    "released": [],
    "strict": ["protocol=strict"],
    "paper, nearest": ["protocol=paper", "upsampler=nearest"],
    "pamr": ["refiner=pamr"],
    "slic": ["segmenter=slic"],
    "kmeans": ["segmenter=kmeans", "segmenter.seeds=2"],
    # At its own tau these small pictures are complete graphs, which any vector divides as well as any other.
    "tokencut": ["segmenter=tokencut", "segmenter.tau=0.6", "backbone=efficientnet_lite0"],
    "diffseg": [
        "segmenter=diffseg",
        "backbone=efficientnet_lite0",
        "segmenter.resolution=32",
        "segmenter.threshold=0.05",
    ],
    "fused": [
        "backbone=efficientnet_lite0_blocks+colour",
        "backbone.parts.efficientnet_lite0_blocks.image_size=64",
        "features=store",
    ],
    "linked": ["linker=kmeans", "linker.seeds=2"],
    "linked by another backbone": ["linker=kmeans", "linker.backbone=colour", "segmenter=slic", "features=store"],
    "workers": ["num_workers=1", "features=store"],
}


def scored(output_dir: Path) -> tuple[object, ...]:
    """Rows and failures of the only cell."""
    (cell,) = output_dir.glob("results/*")
    return read_rows(cell), read_result(cell).failures


@pytest.mark.parametrize("what", [pytest.param(what, marks=[pytest.mark.slow] * (what == "workers")) for what in RUNS])
def test_a_run_counts_what_the_cpu_counts(cli, shapes, tmp_path, what):
    def run(device):
        overrides = shapes_overrides(shapes, tmp_path / device)
        done = cli("run", *overrides, f"device={device}", "limit=5", "batch_size=2", *RUNS[what])
        assert done.code == 0, done.err
        return scored(tmp_path / device)

    expected = run("cpu")
    with Pretended() as accelerator:
        found = run(DEVICE.type)
    assert accelerator.counts.kernels.total() > 0
    assert len(found[0]) == 5 and not found[1]
    assert max(row.segments for row in found[0]) > 1
    assert found == expected


def test_named_segments_are_counted_as_on_the_cpu(cli, shapes, tmp_path):
    write_checkpoint(tmp_path / "clip", "clip")
    options = ["namer=clip_b16", f"namer.model={tmp_path / 'clip'}", "namer.image_size=32"]
    options += ["dataset.class_names=[scene,disc,square]", "limit=3", "batch_size=2"]

    def run(device):
        done = cli("run", *shapes_overrides(shapes, tmp_path / device), f"device={device}", *options)
        assert done.code == 0, done.err
        return scored(tmp_path / device)

    expected = run("cpu")
    with Pretended():
        found = run(DEVICE.type)
    assert not found[1]
    assert found == expected


def test_coherence_is_measured_as_on_the_cpu(cli, shapes, tmp_path):
    def measured(device):
        out = tmp_path / device
        overrides = [*shapes_overrides(shapes, out), f"device={device}", "protocol.image_size=256"]
        done = cli("coherence", *overrides, "backbone=colour", "--background", "keep")
        assert done.code == 0, done.err
        (path,) = out.glob("coherence/*/coherence.json")
        return json.loads(path.read_text())

    expected = measured("cpu")
    with Pretended() as accelerator:
        found = measured(DEVICE.type)
    assert accelerator.counts.kernels.total() > 0
    assert (found["counts"], found["mark"]) == (expected["counts"], expected["mark"])
    for one, other in zip(found["backbones"], expected["backbones"], strict=True):
        assert one["auc"] == pytest.approx(other["auc"], abs=1e-4)


def test_pictures_are_segmented_there(shapes):
    def segments():
        with Image.open(next((shapes / "images").iterdir())) as picture:
            return diffcut_bench.segment(picture, backbone="efficientnet_lite0")

    expected = segments()
    with Pretended() as accelerator:
        found = segments()  # device=auto is the accelerator
    assert accelerator.counts.kernels.total() > 0
    assert np.array_equal(found.labels, expected.labels)


def test_the_device_is_found_and_named(accelerator):
    assert [device.type for device in devices_here()] == ["cpu", DEVICE.type]
    assert choose_device("auto").type == choose_device("pretend").type == DEVICE.type
    assert choose_device("auto", local_rank=3) == DEVICE
    assert is_here("pretend")
    assert device_name(DEVICE) == "pretend:0"
    accelerator.taken()
    synchronize(DEVICE)
    assert [place.partition(":")[0] for place in accelerator.counts.crossings] == ["environment.py"]


@pytest.mark.parametrize(("refiner", "waits"), [("pamr", 3), ("none", 2)])  # the last one is for boundaries
def test_from_label_maps_to_counts_a_batch_is_waited_for_as_often_as_an_image(cli, shapes, tmp_path, refiner, waits):
    def crossings(batch_size):
        overrides = shapes_overrides(shapes, tmp_path / str(batch_size))
        with Pretended() as accelerator:
            batch = [f"limit={batch_size}", f"batch_size={batch_size}", f"refiner={refiner}", "reference=none"]
            assert cli("run", *overrides, "device=pretend", *batch).code == 0
        rooms = ("evaluation", "refinement", "scoring/checks.py")
        return {place: n for place, n in accelerator.counts.crossings.items() if place.startswith(rooms)}

    found = crossings(4)
    assert found == crossings(1)
    assert sum(count for place, count in found.items() if place.startswith("evaluation")) == waits
