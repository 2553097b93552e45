"""``diffcut-bench doctor``: what is installed, and what is missing."""

import argparse
import os
import sys
from pathlib import Path

import torch
from rich.markup import escape
from rich.table import Table

from diffcut_bench.backbones import cache_only
from diffcut_bench.commands.terminal import console
from diffcut_bench.config import (
    conf_dir,
    instantiate,
    load_config,
)
from diffcut_bench.datasets import (
    Benchmark,
    SegmentationDataset,
    prepared_folder,
    read_manifest,
)
from diffcut_bench.environment import device_name, installed_packages
from diffcut_bench.errors import UserError


def doctor(options: argparse.Namespace) -> int:
    """Print versions, devices, folders and the state of every backbone and data set."""
    config = load_config(options.overrides)
    table = Table(show_header=False, show_edge=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("python", f"{sys.version.split()[0]} ({sys.executable})")
    for package, installed in installed_packages().items():
        table.add_row(package, installed)
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    devices = [torch.device("cpu"), *([accelerator] if accelerator else [])]
    table.add_row("devices", ", ".join(device_name(device) for device in devices))
    output_dir = Path(config.output_dir)
    finished = len(list((output_dir / "results").glob("*/result.json")))
    interrupted = len(list((output_dir / "unfinished").glob("*/journal.jsonl")))
    place = escape(str(output_dir.absolute()))
    table.add_row("output_dir", f"{place}: {finished} finished cells, {interrupted} interrupted")
    table.add_row("HF cache", os.environ.get("HF_HOME", str(Path("~/.cache/huggingface").expanduser())))
    missing = 0
    for group in ("backbone", "dataset"):
        for option in sorted(path.stem for path in (conf_dir() / group).glob("*.yaml")):
            state = state_of(group, option, options.overrides)
            missing += state.startswith("missing")
            table.add_row(f"{group}={option}", escape(state))
    console.print(table)
    console.print(f"{missing} of the options above need something" if missing else "everything is there")
    return 0


def state_of(group: str, option: str, overrides: list[str]) -> str:
    """Whether an option can be used here, in one line; ``missing: …`` says what it needs."""
    chosen = f"{group}={option}" in overrides
    own = (
        [o for o in overrides if o.startswith((f"{group}.", "data_dir=", "output_dir=", "prepared="))] if chosen else []
    )
    own += [o for o in overrides if o.startswith(("data_dir=", "output_dir=")) and o not in own]
    try:
        config = load_config([f"{group}={option}", *own])
        with cache_only():
            built = instantiate(group, getattr(config, group))
        if isinstance(built, Benchmark):
            return _benchmark_state(built, Path(config.data_dir))
    except UserError as error:
        return f"missing: {error.what}; {error.hint}"
    if isinstance(built, SegmentationDataset):
        return f"there, {len(built)} images"
    return "there, " + ", ".join(f"{name} {value[:12]}" for name, value in built.fingerprint().items())


def _benchmark_state(benchmark: Benchmark, data_dir: Path) -> str:
    manifest = read_manifest(prepared_folder(benchmark, data_dir))
    expected = f" of {benchmark.n_expected}" if benchmark.n_expected else ""
    if manifest is not None:
        return f"prepared, {manifest.pairs}{expected} pairs"
    if benchmark.root is not None:
        return f"originals there, {len(benchmark.from_originals())}{expected} pairs, not prepared"
    return f"missing: not prepared; diffcut-bench data prepare {benchmark.name} dataset.root=DIR"
