"""Tables: one form for the terminal, Markdown, LaTeX and CSV; results in it, the protocol as notes."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text
from tabulate import tabulate

from diffcut_bench.escaping import counted, csv_cell, file_stem, latex_text, markdown_cell, markdown_text, one_line
from diffcut_bench.evaluation import FEWEST_IMAGES, Metric, choices_in_force, known_metrics
from diffcut_bench.redaction import public, public_text
from diffcut_bench.reporting.fitting import fit_columns, folded
from diffcut_bench.reporting.settings import compare_settings, heading, is_number, text_of
from diffcut_bench.scoring.ranking import leading_metric
from diffcut_bench.store import Bracket, Result, Score, write_atomically

_NAMED = 5  # classes that a note names
_HEADLINE = ("dataset", "backbone", "segmenter", "segmenter.tau", "segmenter.alpha", "refiner", "namer", "linker")
REFERENCE = ("floor", "ceiling", "lift (95 % interval)")  # what of it a grid and the annotation itself reach
ABOUT_REFERENCE = (
    "floor: a grid of as many segments as the method gave in that image, blind to the picture; ceiling: the annotation "
    "itself, cut to the method's patches and enlarged; lift: where the score lies, 0 at the floor and 1 at the ceiling"
)
NO_INTERVAL = f"no interval is told of fewer than {FEWEST_IMAGES} images"


@dataclass(frozen=True)
class Column:
    """A heading; numbers stand to the right."""

    name: str
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of text under headings: one form for the terminal, Markdown, LaTeX, CSV and HTML.

    Texts are as they are: each form escapes them for its medium.
    """

    name: str  # stem of its files, as far as it is fit for one
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]  # a text for each column
    notes: tuple[str, ...] = ()  # what a reader must know, under the table
    shared: str = ""  # what all rows have in common, in one line

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "Table":
        """What `to_dict` gave, also after JSON.

        Raises:
            ValueError, KeyError, TypeError: the values are no table.
        """
        columns = tuple(Column(**column) for column in values["columns"])
        rows = tuple(tuple(row) for row in values["rows"])
        table = Table(**{**values, "columns": columns, "rows": rows, "notes": tuple(values["notes"])})
        texts = [table.name, table.title, table.shared, *table.notes, *(column.name for column in columns)]
        if not all(isinstance(text, str) for text in [*texts, *(cell for row in rows for cell in row)]):
            raise ValueError("a cell, heading or note is no text")
        if any(len(row) != len(columns) for row in rows):
            raise ValueError("a row has not as many cells as there are columns")
        return table

    def to_markdown(self) -> str:
        """A pipe table under its title, the notes as a list."""
        body = self._tabulate("pipe", markdown_cell)
        shared = f"{markdown_text(self.shared)}\n\n" if self.shared else ""
        notes = "".join(f"* {markdown_text(note)}\n" for note in self.notes)
        return f"### {markdown_text(self.title)}\n\n{shared}{body}\n" + (f"\n{notes}" if notes else "")

    def to_latex(self) -> str:
        """A ``table`` with booktabs rules; the notes as comments, for the caption's author."""
        caption = latex_text(f"{self.title}. {self.shared}" if self.shared else self.title)
        body = self._tabulate("latex_booktabs", one_line).replace("−", "$-$")  # tabulate escapes what stands in cells
        notes = "".join(f"% {one_line(note)}\n" for note in self.notes)
        return (
            f"{notes}\\begin{{table}}\n\\centering\n\\caption{{{caption}}}\n\\label{{tab:{self.stem}}}\n"
            f"{body}\n\\end{{table}}\n"
        )

    def to_csv(self) -> str:
        """Comma-separated values under one line of headings, numbers as programs read them; no notes."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow([csv_cell(column.name) for column in self.columns])
        writer.writerows([csv_cell(cell) for cell in row] for row in self.rows)
        return buffer.getvalue()

    def print(self, console: Console) -> None:
        """What the rows share, the table, its notes. Where the console is too narrow for the longest words side by
        side, the columns go on in parts below each other: `diffcut_bench.reporting.fitting`."""
        if self.shared:
            console.print(one_line(self.shared), style="bold", highlight=False, markup=False)
        names = [one_line(column.name) for column in self.columns]
        rows = [[one_line(cell) for cell in row] for row in self.rows]
        parts = fit_columns(names, rows, [column.numeric for column in self.columns], console.width)
        for number, part in enumerate(parts):
            table = RichTable(header_style="bold", show_edge=False, pad_edge=False)
            for index, width in part.items():
                justify: Literal["left", "right"] = "right" if self.columns[index].numeric else "left"
                table.add_column(Text(folded(names[index], width)), overflow="fold", justify=justify, width=width)
            for row in rows:
                table.add_row(*(Text(folded(row[index], width)) for index, width in part.items()))
            if number:
                console.print()
            console.print(table)
        if len(parts) > 1:
            told = f"in {len(parts)} parts: {console.width} characters do not hold all columns side by side"
            console.print(told, style="dim", highlight=False, markup=False)
        for note in self.notes:
            console.print(one_line(note), style="dim", highlight=False, markup=False)

    def write(self, folder: Path) -> list[Path]:
        """``STEM.md``, ``STEM.tex`` and ``STEM.csv``; returns their paths."""
        forms = {"md": self.to_markdown(), "tex": self.to_latex(), "csv": self.to_csv()}
        for suffix, text in forms.items():
            write_atomically(folder / f"{self.stem}.{suffix}", text)
        return [folder / f"{self.stem}.{suffix}" for suffix in forms]

    @property
    def stem(self) -> str:
        """Of its files, in whatever folder."""
        return file_stem(self.name)

    def _tabulate(self, form: str, escaped: Callable[[str], str]) -> str:
        cells = [[escaped(cell) for cell in row] for row in self.rows]
        align = ["right" if column.numeric else "left" for column in self.columns]
        names = [escaped(column.name) for column in self.columns]
        # An empty table has no columns to align.
        return str(tabulate(cells, names, form, disable_numparse=True, colalign=align if cells else None))


def results_table(
    results: Sequence[tuple[Path, Result]],
    name: str = "results",
    title: str = "Results",
    *,
    score: str = "miou",
    reference: bool = False,
) -> Table:
    """A row a cell with what differs between them, the score that leads, every usual score that one of them has, in %
    where it is a fraction, some with their 95 % interval, and images; the protocols as notes.

    No two rows have the same settings: see `compare_settings`.

    Args:
        results: folder and result of each cell, in the order of the rows.
        name, title: of the table.
        score: that leads, with its interval. Beside a result without it stands the first that it has.
        reference: whether floor and ceiling of the score that leads, and its place between them, have columns.
    """
    cells = [result for _, result in results]
    told = compare_settings(cells, [folder for folder, _ in results])
    alike = [name for name in _HEADLINE if len({text_of(values.get(name)) for values in told.settings}) == 1]
    shared = [f"{name}={public_text(text_of(told.settings[0][name]))}" for name in alike if name in told.settings[0]]
    columns = [
        Column(heading(name), numeric=all(is_number(values.get(name)) for values in told.settings))
        for name in told.names
    ]
    leads = {leading_metric(score, [result]).name for result in cells}
    metrics = [
        metric
        for metric in sorted(known_metrics().values(), key=lambda metric: metric.name != score)
        if metric.name in leads or (metric.in_tables and any(metric.name in result.scores for result in cells))
    ]
    rows = [[*texts.values()] for texts in told.texts]
    about = [metric.about for metric in metrics if metric.about]
    for number, metric in enumerate(metrics):
        is_told = metric.has_interval_column or metric.name in leads
        interval = ["its 95 % interval" if number else "95 % interval"] if is_told else []
        columns += number_columns(metric.heading, *interval)
        for row, result in zip(rows, cells, strict=True):
            row += score_texts(result, metric)[: 1 + len(interval)]
        if reference and not number and any(reference_of(result, metric) for result in cells):
            columns += number_columns(*REFERENCE)
            about += [ABOUT_REFERENCE]
            for row, result in zip(rows, cells, strict=True):
                row += reference_texts(result, metric)
    columns += number_columns("images")
    for row, result in zip(rows, cells, strict=True):
        part = part_of_whole(result)
        row.append(f"{scored_images(result)}{f' ({part})' if part else ''}")
    notes = [*footer(cells), *about, *_of_merged_segments(cells, metrics)]
    if any(images_of(cell, cell.scores.get(m.name, Score(None))) < FEWEST_IMAGES for cell in cells for m in metrics):
        notes.append(NO_INTERVAL)
    return Table(name, title, tuple(columns), tuple(map(tuple, rows)), tuple(notes), " ".join(shared))


def _of_merged_segments(results: Sequence[Result], metrics: Sequence[Metric]) -> list[str]:
    """A note on scores of segments that a background rule merged with the help of the annotation."""
    merged = [
        result
        for result in results
        # A data set without background has nothing to merge, and no such score.
        if result.protocol.get("background_rule") != "one_to_one" and "foreground_ari" in result.scores
    ]
    names = [m.heading for m in metrics if m.measure is not None and any(m.name in each.scores for each in merged)]
    if not names:
        return []
    return [
        f"{', '.join(names)}: of the segments that the background rule left, which looks at the annotation; "
        "protocol.background_rule=one_to_one scores the method's own"
    ]


def number_columns(*names: str) -> tuple[Column, ...]:
    """Columns of numbers."""
    return tuple(Column(name, numeric=True) for name in names)


def score_texts(result: Result, metric: Metric) -> tuple[str, str]:
    """A result's score and its 95 % interval; a dash for what it has not."""
    value = result.scores.get(metric.name, Score(None)).value
    return metric.text(value), interval_text(shown_interval(result, metric), metric)


def reference_of(result: Result, metric: Metric) -> Bracket | None:
    """Floor, ceiling and lift of a result's score; None where they are not known."""
    return None if result.reference is None else result.reference.of(metric.name)


def reference_texts(result: Result, metric: Metric) -> tuple[str, str, str]:
    """Floor, ceiling, and lift with its 95 % interval, as `REFERENCE` heads them; dashes where they are not known."""
    known = reference_of(result, metric)
    if known is None:
        return "–", "–", "–"
    return metric.text(known.floor.value), metric.text(known.ceiling.value), reference_lift(result, known.lift)


def lift_text(lift: Score, *, with_interval: bool = True) -> str:
    """A score's place between floor (0) and ceiling (1), with its 95 % interval where that is wanted and known."""
    if lift.value is None:
        return "–"
    ends = lift.ci95 if with_interval else None
    value, *interval = (f"{round(number, 2) + 0.0:.2f}" for number in (lift.value, *(ends or ())))  # and no −0.00
    return f"{value} ({' – '.join(interval)})".replace("-", "−") if interval else value.replace("-", "−")


def reference_lift(result: Result, lift: Score) -> str:
    """`lift_text` of a result, its interval where there are images enough."""
    return lift_text(lift, with_interval=images_of(result, lift) >= FEWEST_IMAGES)


def interval_of(result: Result, score: Score) -> tuple[float, float] | None:
    """Ends of the 95 % interval of a score of a result's images; None where it has none, or of too few images."""
    return None if images_of(result, score) < FEWEST_IMAGES else score.ci95


def shown_interval(result: Result, metric: Metric) -> tuple[float, float] | None:
    """Ends of the 95 % interval of a result's score; None where it has none, or of too few images."""
    return interval_of(result, result.scores.get(metric.name, Score(None)))


def scored_images(result: Result) -> int:
    """Images that the scores are of."""
    return result.dataset.n_images - len(result.failures)


def part_of_whole(result: Result) -> str:
    """Which part of its data set a result is of: ``shard 1/3``, ``limited``, or empty for all of it."""
    return "shard {}/{}".format(*result.shard) if result.shard else "limited" if result.limited else ""


def images_of(result: Result, score: Score) -> int:
    """Images that one of a result's scores is over: fewer than `scored_images` where some have nothing to score."""
    return scored_images(result) if score.n is None else score.n


def interval_text(ends: Sequence[float] | None, metric: Metric) -> str:
    """Both ends of an interval of a metric's score; a dash where there is none."""
    if ends is None or any(end != end for end in ends):
        return "–"
    return f"{metric.text(ends[0])} – {metric.text(ends[1])}"


def footer(results: Sequence[Result]) -> list[str]:
    """What a reader must know: every protocol in force, what falls short of the published split, which share of the
    pixels is void, and which classes no image holds."""
    limits: list[str] = []
    coverage: list[str] = []
    for result in results:
        dataset = result.dataset
        if result.limited:
            expected = f" of {dataset.n_expected}" if dataset.n_expected else ""
            limits.append(f"limited: {dataset.n_images}{expected} images of {dataset.name}, no published figure")
        if dataset.void_share:
            share = f"{100 * dataset.void_share:.1f}" if dataset.void_share >= 0.0005 else "less than 0.1"
            coverage.append(f"void: {share} % of the pixels of {dataset.name} are without annotation and count nowhere")
        if dataset.unannotated:
            names = ", ".join(dataset.unannotated[:_NAMED]) + (" …" if len(dataset.unannotated) > _NAMED else "")
            of = f"{len(dataset.unannotated)} of {len(result.class_names)} classes"
            coverage.append(f"never annotated in these {dataset.n_images} images of {dataset.name}: {of} ({names})")
    return [*protocols_in_force(results), *dict.fromkeys([*_linkings(results), *limits, *coverage])]


def _linkings(results: Sequence[Result]) -> list[str]:
    """A line for each cell whose segments were linked."""
    linked = [result for result in results if result.linking is not None]
    choices = [result.config.get("choices", {}) for result in linked]
    of = [f" ({own.get('backbone')}, {own.get('segmenter')})" if len(linked) > 1 else "" for own in choices]
    return [f"linked{which}: {linking_text(result)}" for which, result in zip(of, linked, strict=True)]


def linking_text(result: Result) -> str:
    """What was linked, and how far the clusterings differ; empty where nothing was."""
    linking, miou = result.linking, known_metrics()["miou"]
    if linking is None:
        return ""
    spread = "" if linking.deviation is None else f" ± {miou.text(linking.deviation)} over them"
    seeds, segments = counted(linking.seeds, "clustering"), counted(linking.segments, "segment")
    what = f"{seeds} of {segments} into {counted(linking.clusters, 'cluster')}"
    return f"{what}; mIoU {miou.text(linking.mean)}{spread}"


def protocols_in_force(results: Sequence[Result]) -> list[str]:
    """One line a protocol name; a choice that differs between cells of one name shows all its values."""
    by_name: dict[str, dict[str, dict[str, None]]] = {}
    for result in results:
        choices = by_name.setdefault(public_text(text_of(result.protocol.get("name", "unknown"))), {})
        for field, value in public("protocol", choices_in_force(result.protocol)).items():
            choices.setdefault(field, {})[str(value)] = None
    return [
        f"protocol {name}: " + ", ".join(f"{f}={'|'.join(v)}" for f, v in choices.items() if f != "name")
        for name, choices in by_name.items()
    ]
