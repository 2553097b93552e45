"""What a shell is told of commands, groups, options and flags, quickly and by the shell itself."""

import contextlib
import os
import re
import select
import shutil
import subprocess
import sys
import time

import pytest

from diffcut_bench.cli import main
from diffcut_bench.commands.arguments import COMMANDS
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
        ("diffcut-bench run -m hydra/sweeper=o", ["hydra/sweeper=optuna"]),
        ("diffcut-bench run ++segmenter.ta", ["++segmenter.tau="]),
        ("diffcut-bench run ~segmenter.ta", ["~segmenter.tau"]),
        ("diffcut-bench run --cfg ", ["all", "hydra", "job"]),
        ("diffcut-bench run --info defaults", ["defaults", "defaults-tree"]),
        ("diffcut-bench list --sort ", ["date", "name", "score"]),
        ("diffcut-bench coherence --sampling b", ["balanced"]),
        ("diffcut-bench run batch", ["batch_size="]),
        ("diffcut-bench run --hy", ["--hydra-help"]),
        ("diffcut-bench reproduce bs", ["bsds500"]),
        ("diffcut-bench reproduce table2 --dry", ["--dry-run"]),
        ("diffcut-bench data ver", ["verify"]),
        ("diffcut-bench features cl", ["clear"]),
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
    assert {*COMMANDS, "--debug", "--help", "--version"} == set(candidates("x "))
    own = {f"{name}=" for name in load_config([]).to_dict()} - {"choices="}
    assert own <= set(candidates("x run "))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_of_every_command_is_known(name, capsys):
    with pytest.raises(SystemExit):
        main([name, "--help"])
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", capsys.readouterr().out.partition("options:")[2]))
    assert flags == set(candidates(f"x {name} --"))


def test_options_of_ones_own_are_found(tmp_path):
    (tmp_path / "segmenter").mkdir()
    (tmp_path / "segmenter" / "zebra.yaml").write_text("_target_: zebra.Zebra\nstripes: 3\n")
    for words in (f"--config-dir {tmp_path}", f"hydra.searchpath=[file://{tmp_path}]"):
        assert candidates(f"x run {words} segmenter=z") == ["segmenter=zebra"]
        assert candidates(f"x run {words} segmenter=zebra segmenter.") == ["segmenter.stripes="]


_SHELLS = {  # how each starts without anybody's settings, and reads its script
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(diffcut-bench completion bash)"'),
    "zsh": (
        ["zsh", "-f", "-i"],
        'autoload -Uz compinit; compinit -u -D; eval "$(diffcut-bench completion zsh)"',
    ),
    "fish": (["fish", "--no-config", "-i"], "diffcut-bench completion fish | source"),
}


@pytest.fixture(params=["bash", *(pytest.param(shell, marks=pytest.mark.slow) for shell in ("zsh", "fish"))])
def typed(request, tmp_path):
    """A shell in a terminal: gives the words of its line after some keys were pressed."""
    shell = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    program = tmp_path / "bin" / "diffcut-bench"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m diffcut_bench "$@"\n')
    program.chmod(0o755)
    (tmp_path / "photo one.png").touch()
    (tmp_path / "pictures").mkdir()
    paths = {"PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(sys.path)}
    env = {**os.environ, **paths, "HOME": str(tmp_path), "TERM": "xterm", "LC_ALL": "C.UTF-8"}
    words, setup = _SHELLS[shell]
    parent, child = os.openpty()
    # The terminal is the session's own, as fish wants it.
    words = ["setsid", "--ctty", *words]
    process = subprocess.Popen(words, stdin=child, stdout=child, stderr=child, env=env, cwd=tmp_path)
    os.close(child)

    def read_until(text: str, seconds: float = 30) -> str:
        """What the terminal shows, up to a text in it."""
        shown, end = "", time.monotonic() + seconds
        while text not in shown and time.monotonic() < end:
            if select.select([parent], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):  # the shell has ended
                    shown += os.read(parent, 65536).decode(errors="replace")
        assert text in shown, shown
        return shown

    def press(line: str) -> list[str]:
        os.write(parent, f"{line}\t".encode())
        time.sleep(2)  # for the completion: no shell says when it is done
        os.write(parent, b"\x01printf '\\nword:%s:\\n' \x05; printf '%s\\n' en''ded\n")
        found = re.findall(r"^word:(.*):\r?$", read_until("ended"), re.MULTILINE)
        return [word.rstrip("/") for word in found]

    os.write(parent, f"{setup}; printf '%s\\n' rea''dy\n".encode())
    read_until("ready")
    yield press
    process.kill()
    process.wait()
    os.close(parent)


def test_each_shell_completes(typed):
    for line, words in [
        ("diffcut-bench dat", ["diffcut-bench", "data"]),
        ("diffcut-bench run -m segmenter=ucm,km", ["diffcut-bench", "run", "-m", "segmenter=ucm,kmeans"]),
        ("diffcut-bench segment phot", ["diffcut-bench", "segment", "photo one.png"]),
        ("diffcut-bench run dataset.root=pict", ["diffcut-bench", "run", "dataset.root=pictures"]),
    ]:
        assert typed(line) == words


def test_another_shell_is_refused(cli):
    done = cli("completion", "tcsh")
    assert (done.code, len(done.err.strip().splitlines())) == (2, 3)
    assert "bash" in done.err


def test_no_word_is_offered_that_a_shell_would_run(tmp_path):
    folder = tmp_path / "segmenter"
    folder.mkdir()
    for name in ("$(touch x)", "`touch x`", ";touch x", "a b", "*", "new\nline", "plain-1"):
        (folder / f"{name}.yaml").touch()
    found = candidates(f"diffcut-bench run --config-dir {tmp_path} segmenter=")
    assert "segmenter=plain-1" in found
    assert not set("$`;* \n") & set("".join(found))


def test_no_file_stops_the_tab(tmp_path):
    folder = tmp_path / "segmenter"
    folder.mkdir()
    (folder / "endless.yaml").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.yaml")
    for name, text in {
        "itself": "defaults: [itself]\nown: 1\n3: 4",
        "none": "defaults:\nown: 1",
        "list": "- 1",
    }.items():
        (folder / f"{name}.yaml").write_text(text)
    for name in ("endless", "pipe", "itself", "none", "list"):
        line = f"diffcut-bench run --config-dir {tmp_path} segmenter={name} segmenter.o"
        assert candidates(line) == (["segmenter.own="] if name in ("itself", "none") else []), name
