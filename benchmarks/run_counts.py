"""Kernels, waits and bytes that an accelerator would see, by stage and batch: ``make bench ARGS="--counts"``."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.counts import STAGES, Counted, count_run, count_stages
from benchmarks.launches import BYTES_PER_S, CROSSING_S, FLOPS_PER_S, KERNEL_S
from benchmarks.report import machine, write_record
from benchmarks.run_method import open_subject
from diffcut_bench.commands.terminal import progress, say
from diffcut_bench.errors import UserError
from diffcut_bench.reporting import Column, Table

_BATCHES, _ALPHAS = (1, 8, 64), (5.0, 8.0, 10.0)
_LINES = 3  # of the package that are shown of a stage
_FIGURES: dict[str, Callable[[Counted], str]] = {
    "kernels": lambda row: f"{row.kernels}",
    "waits": lambda row: f"{row.crossings}",
    "uploads (waited for)": lambda row: f"{row.uploads} ({row.blocking_uploads})" if row.uploads else "0",
    "MB an image": lambda row: f"{row.bytes / row.images / 1e6:.3g}",
    "modelled, ms an image": lambda row: f"{1e3 * row.modelled_s / row.images:.3g}",
    "equal to the CPU": lambda row: "" if row.equal is None else f"{row.equal:.0%}",
}


def run(options: argparse.Namespace) -> None:
    """Count every stage at every batch and alpha; print Markdown tables, and write counts.json after each row anew."""
    if options.encoder is not None:
        raise UserError("--counts and --encoder measure different things", "python -m benchmarks", "leave one out")
    options.overrides = [*options.overrides, "device=cpu"]  # of the features; what is counted is pretended
    subject = open_subject(options)
    stages = options.stages or [*STAGES, "run"]
    batches, alphas = sorted(options.batches or _BATCHES), sorted(options.alphas or _ALPHAS)
    path = Path(subject.config.output_dir) / "bench" / "counts.json"
    record: dict[str, Any] = {
        "schema_version": 1,
        "machine": machine(subject.device),
        "features": options.features or subject.config.choices["backbone"],
        "different_images": len(subject.material.features),
        "tau": subject.segmenter.tau,
        "model": {
            "kernel_s": KERNEL_S,
            "crossing_s": CROSSING_S,
            "bytes_per_s": BYTES_PER_S,
            "flops_per_s": FLOPS_PER_S,
        },
        "rows": [],
    }

    def keep(row: Counted) -> Counted:
        record["rows"].append(asdict(row))
        write_record(path, record)
        return row

    rows: list[Counted] = []
    settings = [(batch, alpha) for batch in batches for alpha in alphas]
    with progress("stages", "batches") as report:
        for done, (batch, alpha) in enumerate(settings):
            report(done, len(settings))
            rows += map(keep, count_stages(subject.material, batch, alpha, subject.segmenter.tau, stages))
        report(len(settings), len(settings))
    say(stage_table(rows).to_markdown())
    whole: list[Counted] = []
    if "run" in stages:
        overrides = [*options.overrides, f"data_dir={subject.config.data_dir}"]
        whole += map(keep, count_run(overrides, len(subject.dataset)))
        say(stage_table(whole).to_markdown())
    say(line_table([row for row in rows if (row.images, row.alpha) == settings[-1]] + whole).to_markdown())
    say(f"record   {path}")


def stage_table(rows: Sequence[Counted]) -> Table:
    """A line for each stage and alpha, with the figures of its batches beside each other."""
    groups: dict[tuple[str, float | None], list[Counted]] = {}
    for row in rows:
        groups.setdefault((row.stage, row.alpha), []).append(row)
    lines = []
    for (stage, alpha), group in sorted(groups.items(), key=lambda item: item[0][1] or 0):
        cells = (" / ".join(filter(None, map(figure, group))) for figure in _FIGURES.values())
        lines.append((stage, "" if alpha is None else f"{alpha:g}", *cells))
    batches = " / ".join(dict.fromkeys(f"{row.images}" for row in rows))
    columns = (Column("stage"), *(Column(name, numeric=True) for name in ("alpha", *_FIGURES)))
    return Table("counts", f"Batches of {batches}", columns, tuple(lines))


def line_table(rows: Sequence[Counted]) -> Table:
    """The lines of the package with most kernels, waits and uploads in each stage."""
    lines = []
    for row in rows:
        most = (list(row.places[kind].items())[:_LINES] for kind in ("kernels", "crossings", "uploads"))
        lines.append((row.stage, *(", ".join(f"{place} {count}" for place, count in kind) for kind in most)))
    columns = tuple(Column(name) for name in ("stage", "most kernels", "most waits", "most uploads"))
    return Table("lines", "Where they come from", columns, tuple(lines))
