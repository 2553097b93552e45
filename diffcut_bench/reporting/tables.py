"""Results as a terminal table, the protocol in its footer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from diffcut_bench.store import Result

_STAGES = ("segmenter", "upsampler", "refiner")
_PLACES = ("folder", "model", "root")  # where things lie, not what they are
_HEADLINE = ("dataset", "backbone", "segmenter", "segmenter.tau", "segmenter.alpha", "refiner")


def print_results(console: Console, results: Sequence[tuple[Path, Result]]) -> None:
    """What all cells share in one line; a row a cell with what differs, mIoU in % with its 95 % interval, accuracy,
    segments and images; then the protocols.

    Args:
        console: where to.
        results: folder and result of each cell, in the order of the rows.
    """
    settings = [_settings(result) for _, result in results]
    varying = _varying(settings)
    shared = [f"{name}={settings[0][name]}" for name in _HEADLINE if name in settings[0] and name not in varying]
    console.print(" ".join(shared), style="bold", highlight=False, markup=False)
    table = Table(header_style="bold", show_edge=False, pad_edge=False)
    for name in varying:
        table.add_column(escape(_heading(name)), overflow="fold")
    for name in ("mIoU", "95 % interval", "pixel accuracy", "segments", "images"):
        table.add_column(name, justify="right")
    for (_, result), values in zip(results, settings, strict=True):
        low, high = result.metrics.miou_ci95
        table.add_row(
            *(escape(str(values.get(name, ""))) for name in varying),
            f"{100 * result.metrics.miou:.1f}",
            f"{100 * low:.1f} – {100 * high:.1f}",
            f"{100 * result.metrics.pixel_accuracy:.1f}",
            f"{result.segments_per_image.mean:.1f}",
            f"{result.dataset.n_images - len(result.failures)}{' (limited)' if result.limited else ''}",
        )
    console.print(table)
    for line in footer([result for _, result in results]):
        console.print(line, style="dim", highlight=False, markup=False)


def footer(results: Sequence[Result]) -> list[str]:
    """What a reader must know: every protocol in force, and what falls short of the published split.

    One line a protocol name; a choice that differs between cells of one name shows all its values, and has a column.
    """
    by_name: dict[str, dict[str, list[str]]] = {}
    for result in results:
        choices = by_name.setdefault(result.protocol.get("name", "unknown"), {})
        for field, value in result.protocol.items():
            if str(value) not in choices.setdefault(field, []):
                choices[field].append(str(value))
    lines = [
        f"protocol {name}: " + ", ".join(f"{f}={'|'.join(v)}" for f, v in choices.items() if f != "name")
        for name, choices in by_name.items()
    ]
    for result in results:
        if result.limited:
            expected = f" of {result.dataset.n_expected}" if result.dataset.n_expected else ""
            note = f"limited: {result.dataset.n_images}{expected} images of {result.dataset.name}, no published figure"
            if note not in lines:
                lines.append(note)
    return lines


def _heading(name: str) -> str:
    return "protocol" if name == "protocol.name" else name.removeprefix("segmenter.").removeprefix("protocol.")


def _settings(result: Result) -> dict[str, Any]:
    """Options and values of a cell by short name; ``protocol.*`` stands for what a stage only repeats."""
    choices = result.config.get("choices", {})
    settings = {group: choices.get(group, "?") for group in ("dataset", "backbone", *_STAGES)}
    settings |= {f"protocol.{name}": value for name, value in result.protocol.items()}
    for stage in (*_STAGES, "backbone", "features"):
        for name, value in (result.config.get(stage) or {}).items():
            if f"protocol.{name}" not in settings and not name.startswith("_") and name not in (*_PLACES, "name"):
                settings[f"{stage}.{name}"] = value
    return settings


def _varying(settings: Sequence[dict[str, Any]]) -> list[str]:
    """Names whose values differ. Where a stage or the protocol's name differs, what follows from it is left out."""
    names = list(dict.fromkeys(name for values in settings for name in values))
    varying = [name for name in names if len({str(values.get(name)) for values in settings}) > 1]
    by_protocol = {
        (values.get("protocol.name"), str({n: v for n, v in values.items() if n.startswith("protocol.")}))
        for values in settings
    }
    named = "protocol.name" in varying and len(by_protocol) == len({name for name, _ in by_protocol})
    return [
        name
        for name in varying
        if name.partition(".")[0] == name
        or name == "protocol.name"
        or (name.partition(".")[0] not in varying and not (named and name.startswith("protocol.")))
    ]
