"""``doctor``: one screen, details when asked for, and versions at once."""

import platform
import re
import subprocess
import sys
from importlib.metadata import version

import torch

from diffcut_bench.commands import doctor
from diffcut_bench.config import known_options


def test_doctor_says_what_is_there_and_what_is_missing_on_one_screen(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.console, "width", 80)
    done = cli("doctor", "--all", f"output_dir={tmp_path}")
    assert done.code == 0
    details, screen = done.out[: done.out.index("python  ")], done.out[done.out.index("python  ") :]
    assert "backbone=efficientnet_lite0" in details
    assert "there, 11 images" in details
    assert "diffcut-bench data prepare voc dataset.root=DIR" in " ".join(details.replace("│", " ").split())

    lines = screen.splitlines()
    assert len(lines) <= 40, "what is printed without --all"
    assert max(len(line) for line in lines if str(tmp_path) not in line and sys.executable not in line) <= 80
    told = " ".join(screen.split())
    assert torch.__version__ in told and f"{tmp_path}: 0 finished cells, 0 interrupted" in told
    names = re.search(r"backbones (\d+) there: (.*?) (\d+) lack something: (.*?) data sets", told)
    there, lacking = (re.split(", *", names[n]) for n in (2, 4))
    assert {"colour", "efficientnet_lite0"} <= set(there)
    assert (len(there), len(lacking)) == (int(names[1]), int(names[3]))
    assert sorted(there + lacking) == sorted(known_options("backbone"))


def test_details_of_one_group(cli, tmp_path, monkeypatch):
    monkeypatch.setattr("diffcut_bench.config.known_options", lambda group: ["sample", "folder"])
    of_group = cli("doctor", "dataset", f"output_dir={tmp_path}").out
    assert "there, 11 images" in of_group and "python" not in of_group
    assert "available: backbone, dataset" in cli("doctor", "nothing").err


def test_an_option_whose_code_raises_costs_no_other_its_line(cli, tmp_path, monkeypatch):
    monkeypatch.setattr("diffcut_bench.config.known_options", lambda group: ["colour", "none"])
    monkeypatch.setattr("diffcut_bench.backbones.Colour.fingerprint", lambda self: self.no_such_thing)
    done = cli("doctor", "backbone", f"output_dir={tmp_path}")
    assert done.code == 0, done.err
    line = next(each for each in done.out.splitlines() if each.startswith("backbone=colour "))
    assert "missing: AttributeError" in line
    assert "there, model none" in done.out


def test_an_extra_lacks_what_the_extras_in_it_lack(monkeypatch):
    of_extras = ["pytest; extra == 'outer'", "diffcut-bench[inner]; extra == 'outer'", "no-such-one; extra == 'inner'"]
    wanted = ["pytest>=8", *of_extras, "diffcut-bench[outer]; extra == 'all'", "no-such-two; extra == 'docs'"]
    monkeypatch.setattr(doctor, "requires", lambda package: wanted)
    installed, missing = doctor._extras()
    assert installed == {"pytest": version("pytest")}
    assert missing == {"outer": ["no-such-one"], "inner": ["no-such-one"]}


def test_doctor_short_loads_nothing():
    code = "import sys; from diffcut_bench.cli import main; main(['doctor', '--short']); print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *told, modules = done.stdout.splitlines()
    assert not {"torch", "hydra", "omegaconf", "numpy", "diffcut_bench.config"} & set(modules.split())
    assert told[0].startswith(f"python     {platform.python_version()}")
    assert any(line.startswith("GPU driver ") for line in told)
