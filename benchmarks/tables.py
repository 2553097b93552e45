"""The tables of ``make bench``."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from benchmarks.cut import Comparison
from benchmarks.rivals import Rival
from benchmarks.segmenters import Speed
from benchmarks.stages import Stage
from diffcut_bench.commands.terminal import console, say


def print_comparisons(rows: Sequence[Comparison]) -> None:
    """The cut against the textbook, the path of taus, reading."""
    table = _table("compared with", "images", "segments", "s/image", "theirs", "ratio", "equal", "ARI")
    for row in rows:
        fewer = "" if row.other_images in (None, row.images) else f" ({row.other_images})"
        table.add_row(
            *(row.what + fewer, str(row.images), "" if row.segments is None else f"{row.segments:.1f}"),
            *(f"{row.ours_s:.4f}", f"{row.other_s:.4f}", f"{row.ratio:.2f}", _percent(row.agreement)),
            "" if row.ari_to_dense is None else f"{row.ari_to_dense:.4f}",
        )
    console.print(table)
    _note("(n): the textbook version ran on n images, ours on copies of these; ARI: to the dense solver")


def print_whole(rows: Sequence[dict[str, Any]]) -> None:
    """The whole program, and where its time goes."""
    shares = list(rows[0]["shares"])
    table = _table("features", "images", "images/s", *shares)
    for row in rows:
        table.add_row(
            *(row["features"], str(row["images"]), f"{row['images_per_s']:.2f}"),
            *(_percent(row["shares"][name]) for name in shares),
        )
    console.print(table)


def print_stages(rows: Sequence[Stage]) -> None:
    """Each stage, under a heading for each size."""
    table = _table("stage", "images/s", "× plain", "on", "equal", "of floor", "", "MiB")
    before = None
    for row in rows:
        size = (row.patches, row.alpha, row.images)
        if size != before:
            title = (
                f"{row.patches}×{row.patches}, alpha {row.alpha:g}, {row.images} at a time: {row.segments:.1f} segments"
            )
            table.add_section()
            table.add_row(title, *[""] * 7, style="bold")
        before = size
        table.add_row(
            *(row.stage, f"{row.images_per_s:.4g}", "" if row.ratio is None else f"{row.ratio:.3g}"),
            *("" if row.ratio is None else str(row.plain_images), _percent(row.equal)),
            *(f"{100 * row.floor_share:.2g} %", row.floor, "" if row.peak_bytes is None else f"{row.peak_bytes >> 20}"),
        )
    console.print(table)


def print_rivals(rows: Sequence[Rival], missing: Sequence[str]) -> None:
    """Other packages, and those that are not here."""
    table = _table("rival", "job", "patches", "alpha", "ours, s", "theirs", "ratio", "|cos|, ARI")
    for row in rows:
        likeness = "" if row.ari is None else f"{row.ari:.3f}"
        if row.ours_exact is not None and row.rival_exact is not None:
            likeness = f"{row.ours_exact:.5f} / {row.rival_exact:.5f}"
        table.add_row(
            *(row.rival, row.job if row.same_job else f"{row.clusters} clusters"),
            *(f"{row.patches}²", f"{row.alpha:g}", f"{row.ours_s:.4f}", f"{row.rival_s:.4f}", f"{row.ratio:.2f}"),
            likeness,
        )
    if rows:
        console.print(table)
        _note(
            "|cos|: of our vector and theirs to the exact one; clusters: a given number, so not the same job; ARI to us"
        )
    if missing:
        _note(f"not installed, so not compared: {', '.join(missing)} (pip install 'diffcut_bench[rivals]')")


def print_segmenters(rows: Sequence[Speed], missing: Mapping[str, str]) -> None:
    """Every segmenter's speed, fastest first."""
    table = _table("segmenter", "images/s", "× first", "segments", "on")
    for row in sorted(rows, key=lambda row: -(row.images_per_s or 0)):
        if row.images_per_s is None or row.ratio is None:
            table.add_row(row.segmenter, "failed", "", "", "")
            continue
        style = "bold" if row is rows[0] else None
        on = f"{row.rows}×{row.cols}"
        table.add_row(
            row.segmenter, f"{row.images_per_s:.4g}", f"{row.ratio:.3g}", f"{row.segments:.1f}", on, style=style
        )
    console.print(table)
    _note(f"{rows[0].images} images at a time, features given, each at its own settings; × first: {rows[0].segmenter}")
    for row in rows:
        if row.error is not None:
            _note(f"{row.segmenter} failed: {row.error}")
    for name, reason in missing.items():
        _note(f"{name} could not be built: {reason}")


def _note(text: str) -> None:
    say(text, style="dim")


def _table(*names: str) -> Table:
    table = Table(header_style="bold", show_edge=False, pad_edge=False)
    for name in names:
        table.add_column(
            name, justify="left" if name in {"compared with", "stage", "rival", "job", "segmenter", ""} else "right"
        )
    return table


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"
