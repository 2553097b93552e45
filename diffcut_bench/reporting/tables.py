"""Tables: one form for the terminal, Markdown, LaTeX and CSV; results in it, the protocol as notes."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable
from tabulate import tabulate

from diffcut_bench.store import Result, write_atomically

_STAGES = ("segmenter", "upsampler", "refiner")
_PLACES = ("folder", "model", "root")  # where things lie, not what they are
_LATEX = {"_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}"}
_WORD = 13  # characters of a word that is not broken
_HEADLINE = ("dataset", "backbone", "segmenter", "segmenter.tau", "segmenter.alpha", "refiner", "namer")
_JACCARD = (
    "image Jaccard: mean over images of the mean IoU over the classes in an image, the metric released for named "
    "segments; mIoU sums pixels over the data set first. The two are not comparable."
)


@dataclass(frozen=True)
class Column:
    """A heading; numbers stand to the right."""

    name: str
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of text under headings: one form for the terminal, Markdown, LaTeX, CSV and HTML.

    Attributes:
        name: stem of its files.
        title: over the table.
        columns: headings.
        rows: a text for each column.
        notes: what a reader must know, under the table.
        shared: what all rows have in common, in one line.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    shared: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "Table":
        """What `to_dict` gave, also after JSON."""
        columns = tuple(Column(**column) for column in values["columns"])
        rows = tuple(tuple(row) for row in values["rows"])
        return Table(**{**values, "columns": columns, "rows": rows, "notes": tuple(values["notes"])})

    def to_markdown(self) -> str:
        """A pipe table under its title, the notes as a list."""
        cells = [[cell.replace("|", "\\|") for cell in row] for row in self.rows]
        body = self._tabulate(cells, "pipe")
        shared = f"{self.shared}\n\n" if self.shared else ""
        notes = "".join(f"* {note}\n" for note in self.notes)
        return f"### {self.title}\n\n{shared}{body}\n" + (f"\n{notes}" if notes else "")

    def to_latex(self) -> str:
        """A ``table`` with booktabs rules; the notes as comments, for the caption's author."""
        caption = _latex_text(f"{self.title}. {self.shared}" if self.shared else self.title)
        body = self._tabulate([list(row) for row in self.rows], "latex_booktabs").replace("−", "$-$")
        notes = "".join(f"% {note}\n" for note in self.notes)
        return (
            f"{notes}\\begin{{table}}\n\\centering\n\\caption{{{caption}}}\n\\label{{tab:{self.name}}}\n"
            f"{body}\n\\end{{table}}\n"
        )

    def to_csv(self) -> str:
        """Comma-separated values under one line of headings, numbers as programs read them; no notes."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow([column.name for column in self.columns])
        writer.writerows(["" if cell == "–" else cell.replace("−", "-") for cell in row] for row in self.rows)
        return buffer.getvalue()

    def print(self, console: Console) -> None:
        """What the rows share, the table, its notes."""
        if self.shared:
            console.print(self.shared, style="bold", highlight=False, markup=False)
        table = RichTable(header_style="bold", show_edge=False, pad_edge=False)
        for column in self.columns:
            justify: Literal["left", "right"] = "right" if column.numeric else "left"
            words = [word for row in self.rows for word in row[len(table.columns)].split()]
            width = None if column.numeric else min(max(map(len, words), default=0), _WORD)
            table.add_column(escape(column.name), overflow="fold", justify=justify, min_width=width)
        for row in self.rows:
            table.add_row(*(escape(cell) for cell in row))
        console.print(table)
        for note in self.notes:
            console.print(note, style="dim", highlight=False, markup=False)

    def write(self, folder: Path) -> list[Path]:
        """``NAME.md``, ``NAME.tex`` and ``NAME.csv``; returns their paths."""
        forms = {"md": self.to_markdown(), "tex": self.to_latex(), "csv": self.to_csv()}
        for suffix, text in forms.items():
            write_atomically(folder / f"{self.name}.{suffix}", text)
        return [folder / f"{self.name}.{suffix}" for suffix in forms]

    def _tabulate(self, cells: list[list[str]], form: str) -> str:
        align = ["right" if column.numeric else "left" for column in self.columns]
        names = [column.name for column in self.columns]
        # An empty table has no columns to align.
        return str(tabulate(cells, names, form, disable_numparse=True, colalign=align if cells else None))


def results_table(results: Sequence[tuple[Path, Result]], name: str = "results", title: str = "Results") -> Table:
    """A row a cell with what differs between them, mIoU in % with its 95 % interval, accuracy, segments and images;
    the protocols as notes. The mean of per-image Jaccard has a column where segments were named.

    Args:
        results: folder and result of each cell, in the order of the rows.
        name, title: of the table.
    """
    settings = [settings_of(result) for _, result in results]
    varying = varying_names(settings)
    alike = [name for name in _HEADLINE if len({str(values.get(name)) for values in settings}) == 1]
    shared = [f"{name}={settings[0][name]}" for name in alike if name in settings[0]]
    columns = [
        Column(heading(name), numeric=all(is_number(values.get(name)) for values in settings)) for name in varying
    ]
    named = any(result.metrics.mean_image_jaccard is not None for _, result in results)
    numeric = ("mIoU", "95 % interval", *(("image Jaccard", "its 95 % interval") if named else ()), "pixel accuracy")
    columns += [Column(name, numeric=True) for name in (*numeric, "segments", "images")]
    rows = [
        (
            *(str(values.get(name, "")) for name in varying),
            percent(result.metrics.miou),
            interval_text(result.metrics.miou_ci95),
            *(_jaccard(result) if named else ()),
            percent(result.metrics.pixel_accuracy),
            f"{result.segments_per_image.mean:.1f}",
            f"{result.dataset.n_images - len(result.failures)}{' (limited)' if result.limited else ''}",
        )
        for (_, result), values in zip(results, settings, strict=True)
    ]
    notes = [*footer([result for _, result in results]), *([_JACCARD] if named else [])]
    return Table(name, title, tuple(columns), tuple(rows), tuple(notes), " ".join(shared))


def _jaccard(result: Result) -> tuple[str, str]:
    value = result.metrics.mean_image_jaccard
    return ("–", "–") if value is None else (percent(value), interval_text(result.metrics.mean_image_jaccard_ci95))


def percent(fraction: float) -> str:
    """A fraction as tables show it: 0.652 as 65.2; NaN as a dash."""
    return "–" if fraction != fraction else f"{100 * fraction:.1f}".replace("-", "−")


def interval_text(ends: Sequence[float] | None) -> str:
    """Both ends of an interval of fractions, in %."""
    return "–" if ends is None else f"{percent(ends[0])} – {percent(ends[1])}"


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def footer(results: Sequence[Result]) -> list[str]:
    """What a reader must know: every protocol in force, and what falls short of the published split."""
    return [*protocols_in_force(results), *_limits(results)]


def protocols_in_force(results: Sequence[Result]) -> list[str]:
    """One line a protocol name; a choice that differs between cells of one name shows all its values."""
    by_name: dict[str, dict[str, list[str]]] = {}
    for result in results:
        choices = by_name.setdefault(result.protocol.get("name", "unknown"), {})
        for field, value in result.protocol.items():
            if str(value) not in choices.setdefault(field, []):
                choices[field].append(str(value))
    return [
        f"protocol {name}: " + ", ".join(f"{f}={'|'.join(v)}" for f, v in choices.items() if f != "name")
        for name, choices in by_name.items()
    ]


def _limits(results: Sequence[Result]) -> list[str]:
    lines: list[str] = []
    for result in results:
        if result.limited:
            expected = f" of {result.dataset.n_expected}" if result.dataset.n_expected else ""
            note = f"limited: {result.dataset.n_images}{expected} images of {result.dataset.name}, no published figure"
            if note not in lines:
                lines.append(note)
    return lines


def is_number(value: object) -> bool:
    """Whether a setting is one that curves can be drawn along."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def heading(name: str) -> str:
    """A setting's name as columns and axes say it."""
    return "protocol" if name == "protocol.name" else name.removeprefix("segmenter.").removeprefix("protocol.")


def settings_of(result: Result) -> dict[str, Any]:
    """Options and values of a cell by short name; ``protocol.*`` stands for what a stage only repeats."""
    choices = result.config.get("choices", {})
    settings = {group: choices.get(group, "?") for group in ("dataset", "backbone", *_STAGES)}
    if choices.get("namer", "none") != "none":
        settings["namer"] = choices["namer"]
    settings |= {f"protocol.{name}": value for name, value in result.protocol.items()}
    for stage in (*_STAGES, "namer", "backbone", "features"):
        for name, value in (result.config.get(stage) or {}).items():
            if f"protocol.{name}" not in settings and not name.startswith("_") and name not in (*_PLACES, "name"):
                settings[f"{stage}.{name}"] = value
    return settings


def varying_names(settings: Sequence[dict[str, Any]]) -> list[str]:
    """Names whose values differ. What follows from a stage's option or from the protocol's name that differs too is
    left out: it is the same in all cells of that option."""
    names = list(dict.fromkeys(name for values in settings for name in values))
    varying = [name for name in names if len({str(values.get(name)) for values in settings}) > 1]
    by_protocol = {
        (values.get("protocol.name"), str({n: v for n, v in values.items() if n.startswith("protocol.")}))
        for values in settings
    }
    named = "protocol.name" in varying and len(by_protocol) == len({name for name, _ in by_protocol})

    def follows(name: str) -> bool:
        stage, _, setting = name.partition(".")
        if not setting or name == "protocol.name":
            return False
        if stage == "protocol":
            return named
        values_of: dict[str, set[str]] = {}
        for values in settings:
            values_of.setdefault(str(values.get(stage)), set()).add(str(values.get(name)))
        return stage in varying and all(len(own) == 1 for own in values_of.values())

    return [name for name in varying if not follows(name)]
