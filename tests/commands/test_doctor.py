"""``doctor``: one screen, details when asked for, and versions at once."""

import platform
import re
import subprocess
import sys

import torch

from diffcut_bench.commands import doctor
from diffcut_bench.config import known_options


def test_doctor_says_what_is_there_and_what_is_missing(cli, tmp_path):
    done = cli("doctor", "--all", f"output_dir={tmp_path}")
    assert done.code == 0
    assert torch.__version__ in done.out
    assert "backbone=efficientnet_lite0" in done.out
    assert "there, 11 images" in done.out
    assert "diffcut-bench data prepare voc dataset.root=DIR" in done.out
    of_group = cli("doctor", "dataset", f"output_dir={tmp_path}").out
    assert "there, 11 images" in of_group and "backbone=" not in of_group
    assert "available: backbone, dataset" in cli("doctor", "nothing").err


def test_doctor_is_one_screen(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.console, "width", 80)
    lines = cli("doctor", f"output_dir={tmp_path}").out.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80 or len(str(tmp_path)) > 40
    told = " ".join(" ".join(lines).split())
    assert f"{tmp_path}: 0 finished cells, 0 interrupted" in told
    names = re.search(r"backbones (\d+) there: (.*?) (\d+) lack something: (.*?) data sets", told)
    there, lacking = (re.split(", *", names[n]) for n in (2, 4))
    assert {"colour", "efficientnet_lite0"} <= set(there)
    assert (len(there), len(lacking)) == (int(names[1]), int(names[3]))
    assert sorted(there + lacking) == sorted(known_options("backbone"))


def test_doctor_short_loads_nothing():
    code = "import sys; from diffcut_bench.cli import main; main(['doctor', '--short']); print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *told, modules = done.stdout.splitlines()
    assert not {"torch", "hydra", "omegaconf", "numpy", "diffcut_bench.config"} & set(modules.split())
    assert told[0].startswith(f"python     {platform.python_version()}")
    assert any(line.startswith("GPU driver ") for line in told)
