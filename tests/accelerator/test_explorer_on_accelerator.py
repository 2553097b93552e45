"""The explorer of a scored image where features, cuts and pixels are on the device."""

import re

import numpy as np
import pytest
from conftest import shapes_overrides

from benchmarks.pretended import DEVICE, Pretended
from diffcut_bench.cli import main


@pytest.mark.parametrize("method", ["segmenter=diffcut", "segmenter=agglomerative segmenter.min_patches=1"])
def test_a_run_on_the_device_writes_the_pages_of_the_host(method, shapes, tmp_path):
    words = [*method.split(), "visualise=2", "explore=true", "reference=none", "backbone=colour", "refiner=none"]
    pages = {}
    for device in ("cpu", DEVICE.type):
        place = tmp_path / device
        with Pretended():
            assert main(["run", *shapes_overrides(shapes, place), f"device={device}", *words]) == 0
        made = sorted(place.glob("results/*/pictures/*.html"))
        pages[device] = [re.search(r'id="data">(.*?)</script>', path.read_text())[1] for path in made]
    host, there = pages.values()
    assert len(host) == 2
    for ours, theirs in zip(there, host, strict=True):
        numbers = [re.search(r'"reached": \[(.*?)\]', page)[1].split(",") for page in (ours, theirs)]
        np.testing.assert_allclose(*(np.array(each, dtype=float) for each in numbers), atol=1e-4)
        names = [re.search(r'"names": \[(.*?)\]', page)[1] for page in (ours, theirs)]
        assert names[0] == names[1]
