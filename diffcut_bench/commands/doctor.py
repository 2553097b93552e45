"""``diffcut-bench doctor``: what is installed, and what is missing."""

import argparse
import os
import sys
from pathlib import Path

from diffcut_bench.commands.terminal import console
from diffcut_bench.config import known_options, load_config
from diffcut_bench.environment import device_name, devices_here, installed_packages
from diffcut_bench.reporting import Column, Table
from diffcut_bench.scoring.options import try_option


def doctor(options: argparse.Namespace) -> int:
    """Print versions, devices, folders and the state of every backbone and data set."""
    output_dir = Path(load_config(options.overrides).output_dir)
    finished = len(list(output_dir.glob("results/*/result.json")))
    interrupted = len(list(output_dir.glob("unfinished/*/journal.jsonl")))
    states = {
        f"{group}={option}": try_option(group, option, options.overrides)[0]
        for group in ("backbone", "dataset")
        for option in known_options(group)
    }
    found = {
        "python": f"{sys.version.split()[0]} ({sys.executable})",
        **installed_packages(),
        "devices": ", ".join(map(device_name, devices_here())),
        "output_dir": f"{output_dir.absolute()}: {finished} finished cells, {interrupted} interrupted",
        "HF cache": os.environ.get("HF_HOME", str(Path("~/.cache/huggingface").expanduser())),
        **states,
    }
    Table("doctor", "Installed", (Column("what"), Column("state")), tuple(found.items())).print(console)
    missing = sum(state.startswith("missing") for state in states.values())
    console.print(f"{missing} of the options above need something" if missing else "everything is there")
    return 0
