"""What hangs in a segmenter ends as a failure of its image."""

import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from conftest import shapes_overrides
from PIL import Image

from diffcut_bench.config import load_config
from diffcut_bench.errors import UserError
from diffcut_bench.scoring.passes import run_cell
from diffcut_bench.scoring.time_limit import TookTooLongError, time_limit
from diffcut_bench.segmentation import PictureSegmenter
from diffcut_bench.store import read_rows


class Hanging:
    """One segment for each picture, in a millisecond; a white one takes for ever."""

    def __init__(self, **settings: object) -> None: ...

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        while image.min() > 0.99:
            time.sleep(0.01)
        return torch.zeros(image.shape[1:], dtype=torch.long)


HANGING = ("segmenter=slic", "segmenter._target_=test_time_limit.Hanging", "refiner=none")


def test_work_that_takes_too_long_is_interrupted():
    with pytest.raises(TookTooLongError, match=r"took longer than max_seconds=0\.05"), time_limit(0.05, ["a"]):
        threading.Event().wait(60)


@pytest.mark.parametrize("limit", [None, 60.0])
def test_work_in_time_is_left_alone(limit):
    before = signal.getsignal(signal.SIGALRM)
    with time_limit(limit, ["a"]):
        pass
    assert signal.getsignal(signal.SIGALRM) is before


def test_a_timer_of_others_goes_on():
    rung = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: rung.append(number))
    left, interval = signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with time_limit(60.0, ["a"]):
            threading.Event().wait(0.3)
        latest = time.monotonic() + 60
        while not rung and time.monotonic() < latest:
            time.sleep(0.01)
        assert rung == [signal.SIGALRM]
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, left, interval)


HANGS = """
import hashlib
from diffcut_bench.scoring.time_limit import time_limit

with time_limit(0.05, ["picture7"]):
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # one call that no signal interrupts
"""


def test_a_call_that_cannot_be_interrupted_ends_the_process_with_its_traceback():
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    *traceback, what, where, hint = done.stderr.splitlines()
    assert any('"<string>", line 6 in <module>' in line for line in traceback)
    assert "max_seconds=0.05" in what
    assert "picture7" in where
    assert "leave this image out" in hint


@pytest.mark.slow
def test_an_image_that_hangs_is_a_failure_and_the_others_are_scored(shapes, tmp_path):
    base = [*shapes_overrides(shapes, tmp_path / "out"), *HANGING, "limit=4", "batch_size=2"]
    picture = shapes / "images" / "picture2.png"
    whole = run_cell(load_config(base))
    Image.new("RGB", Image.open(picture).size, "white").save(picture)
    cell = run_cell(load_config([*base, "max_seconds=1"]))
    (failure,) = cell.result.failures
    assert failure.id == "picture2"
    assert failure.error == "TookTooLongError: took longer than max_seconds=1"
    rows = {row.id: row for row in read_rows(whole.folder)}
    del rows["picture2"]
    assert {row.id: row for row in read_rows(cell.folder)} == rows
    assert run_cell(load_config(base)).skipped, "a limit makes no other cell"


def test_a_picture_of_the_users_that_hangs_is_said():
    segmenter = PictureSegmenter(load_config(["protocol=strict", *HANGING, "max_seconds=0.5"]))
    white = Image.new("RGB", (40, 30), "white")
    white.putpixel((0, 0), (254, 255, 255))  # a picture of one colour is one segment, and segmented by nobody
    with pytest.raises(UserError, match=r"segmenting took longer than max_seconds=0\.5"):
        segmenter(white)
    assert segmenter(Image.new("RGB", (40, 30))).num_segments == 1


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf"])
def test_a_limit_is_above_zero(value):
    with pytest.raises(UserError, match="max_seconds must lie above 0"):
        load_config([f"max_seconds={value}"])
