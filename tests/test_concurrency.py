"""Identical runs at once give one complete result, the undisturbed one, whoever of them is killed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SMALL, finished_cells, shapes_overrides

# Imports the program once; each run is a fork, so that all of a round begin together. In every second round one of them
# is killed at a random moment.
DRIVER = """
import json, os, random, shutil, signal, sys, time
from pathlib import Path
from diffcut_bench.cli import main

rounds, sizes, arguments = int(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:]
moments = random.Random(3)
report = []
longest = 0.0
for turn in range(rounds):
    for size in sizes:
        out = Path(f"out-{turn}-{size}")
        began = time.monotonic()
        children = []
        for number in range(size):
            child = os.fork()
            if child == 0:
                log = os.open(f"{out}-{number}.log", os.O_WRONLY | os.O_CREAT)
                os.dup2(log, 1)
                os.dup2(log, 2)
                os._exit(main([*arguments, f"output_dir={out}"]))
            children.append(child)
        killed = None
        if turn % 2:
            time.sleep(moments.uniform(0, longest))
            killed = moments.randrange(size)
            os.kill(children[killed], signal.SIGKILL)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        longest = max(longest, time.monotonic() - began)
        report.append([str(out), killed, codes])
print(json.dumps(report))
"""


def run_at_once(rounds: int, sizes: list[int], arguments: list[str]) -> list[tuple[Path, int | None, list[int]]]:
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(rounds), json.dumps(sizes), "run", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return [(Path(out), killed, codes) for out, killed, codes in json.loads(done.stdout)]


def check_rounds(report: list[tuple[Path, int | None, list[int]]], undisturbed: Path) -> None:
    (expected,) = finished_cells(undisturbed).values()
    for out, killed, codes in report:
        logs = "".join(path.read_text() for path in sorted(Path().glob(f"{out}-*.log")))
        assert all(code == 0 for number, code in enumerate(codes) if number != killed), logs
        (found,) = finished_cells(out).values()
        assert found[0]["metrics"] == expected[0]["metrics"], logs
        assert found[2] == expected[2], logs  # the rows of all images
        assert not (out / "unfinished").exists(), logs


@pytest.mark.slow
def test_three_identical_runs_at_once(cli, shapes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = [*shapes_overrides(shapes, Path("alone"))[:-3], *SMALL, "backbone=colour", "batch_size=1"]
    assert cli("run", *base, "output_dir=alone").code == 0
    check_rounds(run_at_once(2, [3], base), Path("alone"))  # in the second round one is killed
    said = "".join(path.read_text() for path in Path().glob("out-*.log"))
    assert "is being computed by process" in said


@pytest.mark.slow
@pytest.mark.shared
def test_runs_at_once_on_real_images(cli, shared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = ["dataset=voc", f"dataset.root={shared / 'samples' / 'VOCdevkit'}", "backbone=colour", "batch_size=2"]
    base += [*SMALL, "prepared=never", "refiner=none"]
    assert cli("run", *base, "output_dir=alone").code == 0
    check_rounds(run_at_once(4, [2, 3, 4], base), Path("alone"))
