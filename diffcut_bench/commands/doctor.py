"""``diffcut-bench doctor``: what is installed, and what is missing.

With ``--short`` it looks at files alone: torch and Hydra are imported where they are asked.
"""

import argparse
import os
import platform
import re
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from diffcut_bench import __version__
from diffcut_bench.commands.terminal import console, say
from diffcut_bench.errors import UserError, did_you_mean

_GROUPS = {"backbone": "backbones", "dataset": "data sets"}
_YOURS = {"folder": "dataset.root=DIR dataset.num_classes=N"}  # no option lacks what the user names
_WIDTH = 11  # of the names before the lines
_OF_DEVELOPERS = ("dev", "docs")  # extras that no command needs


def doctor(options: argparse.Namespace) -> int:
    """Print versions, devices, folders, and which backbones and data sets can be used here.

    Raises:
        UserError: a group of options is named that has no state.
    """
    if options.short:
        _say_short()
        return 0
    from diffcut_bench.commands.words import split_words

    named, overrides = split_words(options.overrides)
    for name in named:
        if name not in _GROUPS:
            hint = did_you_mean(name, _GROUPS)
            raise UserError(f"doctor knows nothing of {name!r}", "diffcut-bench doctor", hint)
    states = {group: _states(group, overrides) for group in named or _GROUPS}
    if named or options.all:
        _say_details(states)
    if not named:
        _say_overview(overrides, states)
    return 0


def _say_short() -> None:
    installed, lacking = _extras()
    _say("python", f"{platform.python_version()} ({sys.executable}), {platform.system()} {platform.machine()}")
    _say("packages", _listed({"diffcut_bench": __version__, **installed}))
    _say_extras(lacking)
    _say("GPU driver", _gpu_driver())


def _say_overview(overrides: Sequence[str], states: Mapping[str, Mapping[str, str]]) -> None:
    """One screen: versions, devices, folders, and what can be used."""
    from diffcut_bench.config import load_config
    from diffcut_bench.environment import device_name, devices_here, installed_packages
    from diffcut_bench.extensions import command

    output_dir = Path(load_config(overrides).output_dir)
    finished = len(list(output_dir.glob("results/*/result.json")))
    interrupted = len(list(output_dir.glob("unfinished/*/journal.jsonl")))
    _say("python", f"{platform.python_version()} ({sys.executable})")
    _say("packages", _listed(installed_packages()))
    _say_extras(_extras()[1])
    _say("devices", ", ".join(map(device_name, devices_here())))
    _say("output_dir", f"{output_dir.absolute()}: {finished} finished cells, {interrupted} interrupted")
    _say("HF cache", os.environ.get("HF_HOME", str(Path("~/.cache/huggingface").expanduser())))
    lacking = 0
    for group, known in states.items():
        heading = _GROUPS[group]
        missing = [name for name, state in known.items() if state.startswith("missing") and name not in _YOURS]
        there = [name for name in known if name not in missing and name not in _YOURS]
        lacking += len(missing)
        _say(heading, f"{len(there)} there: {', '.join(there) or 'none'}")
        if missing:
            _say("", f"{len(missing)} lack something: {', '.join(missing)}")
        for name, words in _YOURS.items():
            if name in known:
                _say("", f"yours: {group}={name} {words}")
    if lacking:
        _say("details", f"{command('doctor --all')}: what each needs, how to get it (doctor backbone, doctor dataset)")
    else:
        say("everything is there")


def _say_details(states: Mapping[str, Mapping[str, str]]) -> None:
    """A line an option: what is there of it, or what it needs."""
    from diffcut_bench.reporting import Column, Table

    rows = [(f"{group}={name}", state) for group, known in states.items() for name, state in known.items()]
    Table("doctor", "Options", (Column("option"), Column("state")), tuple(rows)).print(console)


def _states(group: str, overrides: Sequence[str]) -> dict[str, str]:
    """State of each option of a group, in one line."""
    from diffcut_bench.config import known_options
    from diffcut_bench.scoring.options import try_option

    return {name: try_option(group, name, overrides)[0] for name in known_options(group)}


def _say(name: str, text: str) -> None:
    """A line with its name before it, broken where the terminal ends."""
    indent = " " * _WIDTH
    for line in textwrap.wrap(
        text,
        max(console.width, 2 * _WIDTH),
        initial_indent=f"{name:{_WIDTH}}",
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    ):
        say(line)


def _say_extras(lacking: Mapping[str, Sequence[str]]) -> None:
    """Which extras are installed, and what the others lack."""
    complete = [extra for extra, missing in lacking.items() if not missing]
    if lacking:
        _say("extras", ", ".join(complete) or "none")
    others = [f"{extra} ({', '.join(missing)})" for extra, missing in lacking.items() if missing]
    if others:
        _say("", f"not installed: {', '.join(others)}")


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())


def _extras() -> tuple[dict[str, str], dict[str, list[str]]]:
    """Versions of the packages that a plain installation has, and what is missing of each extra, from what the
    installed package says of itself; nothing of it is imported."""
    try:
        wanted = requires("diffcut_bench") or []
    except PackageNotFoundError:  # a checkout that is not installed
        wanted = []
    installed: dict[str, str] = {}
    missing: dict[str, list[str]] = {}
    parts: dict[str, list[str]] = {}  # extras that an extra brings along
    for requirement in wanted:
        named, extra = re.match(r"[\w.-]+", requirement), re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        if named is None or (extra is not None and extra[1] in _OF_DEVELOPERS):
            continue
        inner = re.search(r"\[(.+)\]", requirement)
        if extra is not None and inner is not None:
            parts[extra[1]] = inner[1].split(",")
            continue
        here = _version(named[0])
        if extra is None and here is not None:
            installed[named[0]] = here
        elif extra is not None:
            missing.setdefault(extra[1], []).extend([named[0]] if here is None else [])
    for whole in missing.keys() & parts.keys():
        missing[whole] += [package for part in parts[whole] for package in missing.get(part, ())]
    return installed, missing


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _gpu_driver() -> str:
    """The driver of an accelerator, as far as files tell; torch knows whether it can use it (``doctor``)."""
    nvidia = Path("/proc/driver/nvidia/version")
    if nvidia.is_file():
        found = re.search(r"\d+\.\d+(\.\d+)?", nvidia.read_text(errors="replace"))
        return f"NVIDIA {found[0] if found else ''}".strip()
    if shutil.which("nvidia-smi"):
        return "NVIDIA (nvidia-smi is there)"
    if Path("/dev/kfd").exists():
        return "AMD (/dev/kfd is there)"
    if (platform.system(), platform.machine()) == ("Darwin", "arm64"):
        return "Apple (Metal)"
    return "none found"
