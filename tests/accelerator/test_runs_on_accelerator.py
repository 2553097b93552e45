"""Whole commands on the pretended accelerator: every image is counted as on the CPU, to the pixel."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import finished_cells, shapes_overrides
from text_checkpoints import write_checkpoint

import diffcut_bench
from benchmarks.pretended import DEVICE, Pretended
from diffcut_bench.environment import choose_device, device_name, devices_here, is_here
from diffcut_bench.store import read_rows


def rows(output_dir: Path) -> dict[str, object]:
    """Rows of the only cell."""
    (cell,) = output_dir.glob("results/*")
    return {"rows": read_rows(cell), "failures": json.loads((cell / "result.json").read_text())["failures"]}


RUNS = {
    "released": [],
    "strict": ["protocol=strict"],
    "pamr, stored features": ["refiner=pamr", "features=store"],
    "nearest": ["upsampler=nearest", "protocol=paper"],
    "matching of the data set": ["protocol.matching=dataset", "segmenter=precomputed_like"],
    "grid": ["segmenter=grid"],
    "kmeans": ["segmenter=kmeans", "segmenter.seeds=2"],
    "tokencut": ["segmenter=tokencut", "backbone=efficientnet_lite0"],
    "diffseg": ["segmenter=diffseg", "backbone=efficientnet_lite0", "segmenter.resolution=32"],
}


@pytest.mark.parametrize("what", [what for what in RUNS if "data set" not in what])
def test_a_run_counts_what_the_cpu_counts(cli, shapes, tmp_path, what):
    found = {}
    for device in ("cpu", DEVICE.type):
        base = [*shapes_overrides(shapes, tmp_path / device), f"device={device}", "limit=5", "batch_size=2"]
        if device == "cpu":
            assert cli("run", *base, *RUNS[what]).code == 0
        else:
            with Pretended() as accelerator:
                done = cli("run", *base, *RUNS[what])
            assert done.code == 0, done.err
            assert accelerator.counts.kernels.total() > 0
        found[device] = rows(tmp_path / device)
    assert not found["cpu"]["failures"]
    assert found["cpu"] == found[DEVICE.type]
