"""What a shell is told of commands, groups, options and flags, quickly and by the shell itself."""

import argparse
import importlib
import os
import shutil
import subprocess
import sys

import pytest

from diffcut_bench.cli import _COMMANDS
from diffcut_bench.commands.completion import candidates
from diffcut_bench.config import GROUPS, known_options, load_config


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("diffcut-bench r", ["report", "reproduce", "run"]),
        ("X=1 /usr/bin/diffcut-bench merg", ["merge"]),
        ("diffcut-bench run seg", ["segmenter="]),
        ("diffcut-bench run segmenter=k", ["segmenter=kmeans", "segmenter=kway_ncut"]),
        ("diffcut-bench run -m segmenter=ucm,k", ["segmenter=ucm,kmeans", "segmenter=ucm,kway_ncut"]),
        ("diffcut-bench run segmenter.ta", ["segmenter.tau="]),
        ("diffcut-bench run segmenter=kmeans segmenter.clu", ["segmenter.clusters="]),
        ("diffcut-bench run backbone=ssd1b backbone.timest", ["backbone.timestep="]),
        ("diffcut-bench run +experiment=", ["+experiment=first_look"]),
        ("diffcut-bench run hydra/launcher=j", ["hydra/launcher=joblib"]),
        ("diffcut-bench run batch", ["batch_size="]),
        ("diffcut-bench run --hy", ["--hydra-help"]),
        ("diffcut-bench reproduce bs", ["bsds500"]),
        ("diffcut-bench reproduce table2 --dry", ["--dry-run"]),
        ("diffcut-bench data ver", ["verify"]),
        ("diffcut-bench data prepare voc", ["voc"]),
        ("diffcut-bench completion ", ["bash", "fish", "zsh"]),
        ("diffcut-bench run nonsense=", []),
    ],
)
def test_candidates(line, found):
    assert candidates(line) == found


def test_every_group_option_and_command_is_known():
    for group in GROUPS:
        assert {f"{group}={option}" for option in known_options(group)} == set(candidates(f"x run {group}="))
    assert {*_COMMANDS, "--help", "--version"} == set(candidates("x "))
    own = {f"{name}=" for name in load_config([]).to_dict()} - {"choices="}
    assert own <= set(candidates("x run "))


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_flag_of_every_command_is_known(name):
    """They are read from the code without importing it."""
    module, parser = importlib.import_module(f"diffcut_bench.commands.{name}"), argparse.ArgumentParser()
    getattr(module, "add_arguments", lambda parser: None)(parser)
    flags = {flag for flag in parser._option_string_actions if flag.startswith("--")}
    assert flags | {"--config-dir"} == set(candidates(f"x {name} --"))


def test_options_of_ones_own_are_found(tmp_path):
    (tmp_path / "segmenter").mkdir()
    (tmp_path / "segmenter" / "zebra.yaml").write_text("_target_: zebra.Zebra\nstripes: 3\n")
    for words in (f"--config-dir {tmp_path}", f"hydra.searchpath=[file://{tmp_path}]"):
        assert candidates(f"x run {words} segmenter=z") == ["segmenter=zebra"]
        assert candidates(f"x run {words} segmenter=zebra segmenter.") == ["segmenter.stripes="]


def test_no_heavy_library_is_imported():
    program = (
        "import sys; from diffcut_bench.cli import main; main(sys.argv[1:])\n"
        "print([name for name in ('torch', 'hydra', 'omegaconf', 'numpy') if name in sys.modules])"
    )
    words = ("completion", "candidates", "diffcut-bench run segmenter=k")
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["segmenter=kmeans", "segmenter=kway_ncut", "[]"]


@pytest.mark.parametrize(
    ("line", "replies"),
    [
        ("diffcut-bench run segmenter=k", ["kmeans", "kway_ncut"]),
        ("diffcut-bench run seg", ["segmenter="]),
        ("diffcut-bench comp", ["compare", "completion"]),
    ],
)
def test_bash_completes(tmp_path, line, replies):
    """Readline replaces only what follows the last = of a word."""
    program = tmp_path / "diffcut-bench"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m diffcut_bench "$@"\n')
    program.chmod(0o755)
    script = (
        'compopt() { :; }; eval "$(diffcut-bench completion bash)"; '
        f'COMP_LINE="{line}"; COMP_POINT={len(line)}; _diffcut_bench diffcut-bench; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.split() == replies, done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_reads_its_script(cli, tmp_path, shell):
    done = cli("completion", shell)
    assert done.code == 0
    assert "completion candidates" in done.out
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / "script"
    script.write_text(done.out)
    subprocess.run([shell, "-n", str(script)], check=True)


def test_another_shell_is_refused(cli):
    done = cli("completion", "tcsh")
    assert (done.code, len(done.err.strip().splitlines())) == (2, 3)
    assert "bash" in done.err
