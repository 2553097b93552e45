"""``diffcut-bench coherence``: ROC and AUC of patch similarity as a same-class classifier, and its heat maps."""

import argparse
from collections.abc import Sequence
from dataclasses import fields

from diffcut_bench.coherence import Measurement, SamplingOptions, measure_coherence
from diffcut_bench.commands.passes import TerminalObserver
from diffcut_bench.commands.terminal import console, say
from diffcut_bench.config import RunConfig, load_config
from diffcut_bench.errors import UserError


def coherence(options: argparse.Namespace) -> int:
    """Measure every backbone on the same patches; print the table, write coherence.json and the figures.

    Raises:
        UserError: an option is out of range, there are no pairs to compare, or data or weights are missing.
    """
    configs = _configs(options.overrides)
    chosen = {field.name: getattr(options, field.name) for field in fields(SamplingOptions) if field.name != "seed"}
    sampling = SamplingOptions(**chosen, seed=configs[0].seed)
    images, patch = _mark(options.mark, options.mark_images)
    print_coherence(measure_coherence(configs, sampling, images, patch, TerminalObserver()))
    return 0


def print_coherence(measured: Measurement) -> None:
    """The table, images that are left out, and what was written."""
    measured.table().print(console)
    for failure in measured.record["failures"]:
        say(f"left out {failure['id']}: {failure['error']}")
    for path in measured.files:
        say(f"{'record' if path.suffix == '.json' else 'figure'}   {path}")
    if measured.record["mark"] is None:
        console.print("no heat maps: no class is in two of the images", style="dim")


def _configs(overrides: Sequence[str]) -> list[RunConfig]:
    """A config for each backbone of ``backbone=A,B``."""
    named = [word for word in overrides if word.startswith("backbone=")]
    rest = [word for word in overrides if not word.startswith("backbone=")]
    names = dict.fromkeys(name for word in named[-1:] for name in word.removeprefix("backbone=").split(",") if name)
    return [load_config([*rest, f"backbone={name}"]) for name in names] or [load_config(rest)]


def _mark(mark: str | None, mark_images: str | None) -> tuple[tuple[str, str] | None, tuple[int, int] | None]:
    """The user's two image ids and patch; None: choose."""
    patch = None
    if mark is not None:
        row, _, col = (part.strip() for part in mark.partition(","))
        if not (row.isdecimal() and col.isdecimal()):
            raise UserError(f"{mark!r} is no patch", "--mark", "write ROW,COL, such as --mark 12,20")
        patch = int(row), int(col)
    if mark_images is None:
        if patch is not None:
            raise UserError("a patch is marked, but not in which image", "--mark", "add --mark-images A,B")
        return None, None
    first, _, second = (part.strip() for part in mark_images.partition(","))
    return (first, second), patch
