"""What a picture of fifty megapixels takes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

ROOT = Path(__file__).parents[2]
SCRIPT = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", "diffcut_bench", "segment", *sys.argv[1:]], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak is counted in other units")
def test_fifty_megapixels_take_less_than_two_gigabytes(tmp_path):
    picture = Image.fromarray(skimage.data.chelsea()).resize((8660, 5773), Image.Resampling.BICUBIC)
    noise = np.random.default_rng(0).integers(-8, 9, (5773, 8660, 1), dtype=np.int16)
    np.clip(noise + np.asarray(picture), 0, 255, out=(pixels := np.empty((5773, 8660, 3), np.int16)))
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "big.jpg")
    call = [sys.executable, "-c", SCRIPT, str(tmp_path / "big.jpg"), "-o", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(call, capture_output=True, text=True, env=environment, check=True)
    peak = 1024 * int(done.stdout.split()[-1])
    assert Image.open(tmp_path / "out" / "big_labels.png").size == (8660, 5773)
    assert peak < 2e9, f"{peak / 1e9:.2f} GB"
