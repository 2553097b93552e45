"""The launchers' jobs give what Hydra's own gives, and what went wrong in one of them is said."""

import os
import signal
import sys
from pathlib import Path

import pytest
import ray
from conftest import NONE_LEFT_S, driven, finished_cells, linux
from joblib.externals.loky import get_reusable_executor
from submitit import Job

from diffcut_bench import interruption
from diffcut_bench.config import conf_dir, load_config
from diffcut_bench.scoring.sweep import _shared_work

# Four passes; in each one cell that is fine and one that is not.
CELLS = ("backbone=efficientnet_lite0,colour", "limit=1,2", "segmenter.tau=0.4,2")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "ray"])
def test_jobs_equal_passes_one_after_the_other(cli, place, launcher, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")  # it would report its use; nothing else leaves this machine
    base = [*place("basic"), *CELLS]
    cli("run", "-m", *base)
    place("launched")
    done = cli("run", "-m", *base, f"hydra/launcher={launcher}")
    ray.shutdown()  # in a program of its own, both end with it
    get_reusable_executor().shutdown()
    assert done.code == 2, done.err
    assert finished_cells(Path("out")) == finished_cells(Path("../basic/out"))
    assert len(finished_cells(Path("out"))) == 4
    assert "mIoU" in done.out
    assert done.err.count("tau must lie in [0, 1], not 2") == 4
    assert "Traceback" not in done.err


# Asked to end, or killed: in the middle of the work and as its workers start, each in a folder of its own, so that
# there is work left to be ended. The same command then continues what the last one left.
KILLED = """
import json, random, signal, sys, time
from pathlib import Path
from killing import end, journalled, processes, start, wait_for

arguments, errors, ended = sys.argv[1:], Path("errors.txt"), []
for number in range(6):
    out = Path(f"out{number}")
    child = start([*arguments, f"output_dir={out}"], errors)
    if number % 3 == 1:
        wait_for(lambda: len(processes(child)) >= 3)
    else:
        wait_for(lambda: journalled(out) >= 2)
    time.sleep(random.Random(number).uniform(0, 0.1))
    ended.append(end(child, signal.SIGKILL if number % 2 else signal.SIGTERM))
last = end(start([*arguments, f"output_dir={out}"], errors))
print(json.dumps({"ended": ended, "last": last, "said": errors.read_text()}))
"""


@linux
@pytest.mark.slow
def test_no_job_of_joblib_is_left_when_the_sweep_is_ended(cli, place):
    base = [*place("basic"), "limit=7,8", "batch_size=1"]
    assert cli("run", "-m", *base).code == 0
    place("ended")
    report = driven(KILLED, "run", "-m", *base, "hydra/launcher=joblib")
    assert [code for code, _ in report["ended"]] == [128 + signal.SIGTERM, -signal.SIGKILL] * 3
    assert max(seconds for _, seconds in report["ended"]) < NONE_LEFT_S, report["ended"]
    assert "interrupted (SIGTERM); what is done is kept" in report["said"]
    assert "Traceback" not in report["said"]
    assert report["last"][0] == 0
    assert finished_cells(Path("out5")) == finished_cells(Path("../basic/out"))
    assert len(finished_cells(Path("out5"))) == 2


def test_one_job_at_a_time_is_this_process_and_does_not_end_with_its_parent(cli, place):
    one = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=1")
    assert cli("run", "-m", *place("here"), "backbone=colour", "limit=1,2", *one).code == 0
    assert len(finished_cells(Path("out"))) == 2
    assert not interruption._follows


@pytest.mark.slow
def test_a_job_that_dies_is_said_and_the_others_are_there(cli, place, tmp_path, monkeypatch):
    (tmp_path / "deadly.py").write_text("import os\n\n\ndef backbone(**settings):\n    os._exit(9)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(Job, "_results_timeout_s", 1)  # how long submitit waits for the result of a job that is gone
    base = [*place("here"), "limit=1", "backbone=colour", "hydra/launcher=submitit_local"]
    done = cli("run", "-m", *base, "backbone._target_=diffcut_bench.backbones.Colour,deadly.backbone")
    assert done.code == 2
    assert len(finished_cells(Path("out"))) == 1
    assert "mIoU" in done.out
    (cell,) = [line for line in done.err.splitlines() if line.startswith("cell ")]
    assert "deadly.backbone" in cell
    assert "the job of this cell ended early: UncompletedJobError" in done.err
    assert "the same command goes on" in done.err


def test_slurm_is_asked_for_what_the_yaml_says(cli, place, tmp_path, monkeypatch):
    programs = tmp_path / "programs"
    programs.mkdir()
    script = tmp_path / "script.sh"
    for name, body in {
        "srun": "",
        "sacct": "",
        "sbatch": f'cp "$1" {script}; echo "queue is full" >&2; exit 1',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    base = [*place("here"), "limit=1,2", "hydra/launcher=submitit_slurm", "hydra.launcher.partition=fast"]
    done = cli("run", "-m", *base)
    assert done.code == 2
    assert "error: the sweep ended early: FailedJobError: queue is full" in done.err
    asked = set(script.read_text().splitlines())
    wanted = ("array=0-1%2", "gpus-per-node=1", "cpus-per-task=8", "mem=64GB", "time=1440", "partition=fast")
    assert {f"#SBATCH --{option}" for option in wanted} <= asked
    assert "#SBATCH --job-name=diffcut_bench" in asked


def test_only_a_tree_is_said_to_be_shared():
    for segmenter, told in (
        ("diffcut", "features, cosines, and 1 recursion, from which every tau is read"),
        ("agglomerative", "features, and 1 merging, from which every tau is read"),
        ("tokencut", "reading and features"),
    ):
        configs = [load_config([f"segmenter={segmenter}", f"segmenter.tau={tau}"]) for tau in (0.2, 0.4)]
        assert _shared_work(configs).endswith(told)


def test_an_unknown_launcher_is_guessed_at(cli, place):
    done = cli("run", "-m", *place("here"), "limit=1,2", "hydra/launcher=submitit_slrum")
    assert done.code == 2
    assert len(done.err.strip().splitlines()) == 3
    assert "did you mean submitit_slurm" in done.err
    assert not Path("out").exists()


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "submitit_slurm", "ray"])
def test_a_launcher_that_is_not_installed_says_what_to_install(cli, place, monkeypatch, launcher):
    for name in [name for name in sys.modules if name.startswith("hydra_plugins")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "hydra_plugins", None)
    done = cli("run", "-m", *place("here"), "limit=1,2", f"hydra/launcher={launcher}")
    assert done.code == 2
    assert len(done.err.strip().splitlines()) == 3
    assert "pip install 'diffcut_bench[launchers]'" in done.err
    assert not Path("out").exists()


def test_every_launcher_of_the_docs_is_there():
    there = {path.stem for path in (conf_dir() / "hydra" / "launcher").glob("*.yaml")}
    assert there == {"joblib", "submitit_local", "submitit_slurm", "ray"}
    page = (Path(__file__).parent.parent.parent / "docs" / "scaling.md").read_text()
    assert all(f"hydra/launcher={name}" in page for name in there)
