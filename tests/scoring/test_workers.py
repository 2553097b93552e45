"""Processes that torchrun starts share a cell, and end with what one process ends with."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import finished_cells, interrupting_after

from diffcut_bench.config import load_config
from diffcut_bench.scoring.passes import run_cells
from diffcut_bench.scoring.workers import Workers, workers
from diffcut_bench.store import Cell, ImageRow, Timings, join_progress


def torchrun(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*launcher, *command], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            out, err = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            process.terminate()  # torchrun ends its processes then
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], ["linker=kmeans"]], ids=["plain", "linked"])
def test_two_processes_equal_one(cli, place, words):
    base = [*place("alone"), "batch_size=2", *words]
    assert cli("run", *base).code == 0
    place("together")
    done = torchrun(Path(), "-m", "diffcut_bench", "run", *base)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("result   ") == 1, "one process speaks"
    assert "4/4" in done.stdout, "half of the images are the leader's"
    assert finished_cells(Path("out")) == finished_cells(Path("../alone/out")) != {}
    assert not Path("out/unfinished").exists()


@pytest.mark.slow
def test_a_sweep_goes_on_from_what_one_process_had_done(cli, place):
    base = [*place("alone"), "batch_size=2"]
    cells = ["limit=1,8", "segmenter.tau=0.4,2"]  # fewer images than processes; no such tau
    assert cli("run", "-m", *base, *cells).code == 2
    place("together")

    with pytest.raises(KeyboardInterrupt):
        run_cells([load_config([*base, "limit=8", "segmenter.tau=0.4"])], interrupting_after(4))
    done = torchrun(Path(), "-m", "diffcut_bench", "run", "-m", *base, *cells)
    assert done.returncode != 0
    assert "2 of 2 images to compute" in done.stdout, "half of the four that are left"
    assert done.stderr.count("tau must lie in [0, 1], not 2") == 2, "each cell's error once"
    assert finished_cells(Path("out")) == finished_cells(Path("../alone/out"))
    assert len(finished_cells(Path("out"))) == 2


@pytest.mark.slow
def test_trouble_of_one_process_ends_the_pass_for_all_and_the_next_begins(cli, place, tmp_path):
    base = place("alone")
    cells = ["backbone=colour,efficientnet_lite0", "limit=5"]
    assert cli("run", "-m", *base, *cells).code == 0
    (features,) = Path("out/features").glob("colour-*")
    for machine in ("0", "1"):  # no common disk; on the second machine features of the first pass can't be written
        place(machine)
    Path("out/features").mkdir(parents=True)
    (Path("out/features") / features.name).write_text("in the way")
    enter = f"cd $RANK && exec {sys.executable} -m diffcut_bench run -m {' '.join([*base, *cells])}"
    done = torchrun(tmp_path, "--no-python", "bash", "-c", enter)
    assert done.returncode != 0
    assert done.stderr.count("error: can't write") == 1, done.stderr
    (name,) = finished_cells(tmp_path / "0" / "out")
    assert "efficientnet_lite0" in name
    assert finished_cells(tmp_path / "0" / "out")[name] == finished_cells(tmp_path / "alone" / "out")[name]
    assert finished_cells(Path("out")) == {}


def test_alone_without_torchrun(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")  # as SLURM's or MPI's environment may have it
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert workers() == Workers(rank=0, count=1)


def test_journals_that_several_processes_bring_count_once(tmp_path):
    for rank in (0, 1):
        row = ImageRow(rank, f"{rank}", 2, 10, [1], [2], [3])
        Cell(tmp_path, "cell", "k", rank).append([row], {}, Timings(segment_s=2.0, wall_s=3.0 + rank))
    parts = Cell(tmp_path, "cell", "k").parts()
    together = join_progress([*parts, *parts])  # both processes see one disk
    assert [row.index for row in together.rows] == [0, 1]
    assert (together.timings.segment_s, together.timings.wall_s) == (4.0, 4.0)
