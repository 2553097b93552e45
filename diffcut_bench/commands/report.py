"""``diffcut-bench report``: tables and one HTML page from the results of an output folder."""

import argparse
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffcut_bench.commands.report_parts import PageText, Parts, rank
from diffcut_bench.commands.terminal import errors, say
from diffcut_bench.config import load_config, option_words
from diffcut_bench.errors import UserError
from diffcut_bench.paths import expanded
from diffcut_bench.reporting import (
    Column,
    Curve,
    DatasetPart,
    Drawing,
    Page,
    ReproductionPart,
    Table,
    draw_curves,
    render_page,
    results_table,
    sweep_figures,
)
from diffcut_bench.store import Result, read_result, write_atomically

_Found = tuple[Path, Result]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own flag."""
    parser.add_argument(
        "--gallery", type=int, default=2, metavar="N", help="N best, median and worst images a data set (default 2)"
    )


def report(options: argparse.Namespace) -> int:
    """Write ``reports/index.html`` and ``reports/tables/`` into an output folder; what can't be read is named.

    A result is data: nothing that it says is run, and one that is no good leaves the others alone.

    Raises:
        UserError: there are no results.
    """
    if options.gallery < 0:
        raise UserError("--gallery takes a number from 0 on", f"--gallery {options.gallery}", "such as --gallery 3")
    folder, overrides = _output_dir(options.overrides)
    read = _Report(folder, options.gallery, overrides)
    read.read()
    if not read.found:
        hint = "diffcut-bench run first, or name the folder: diffcut-bench report DIR"
        raise UserError("no results to report", str(folder / "results"), hint)
    _check(overrides, [result for _, result in read.found])
    page = read.page()
    index = folder / "reports" / "index.html"
    write_atomically(index, render_page(page))
    say(f"page     {index}")
    for table in page.tables():
        table.write(index.parent / "tables")
        say(f"tables   {index.parent / 'tables' / table.stem}.md .tex .csv")
    return 0


def _output_dir(words: Sequence[str]) -> tuple[Path, list[str]]:
    """The folder that is named, or the config's; and the overrides for drawing pictures again."""
    folders = [word for word in words if "=" not in word or Path(word).is_dir()]
    if len(folders) > 1:
        raise UserError("a report is of one folder", " ".join(folders), f"diffcut-bench report {folders[0]}")
    overrides = [word for word in words if word not in folders]
    of_folder = [word for word in overrides if word.startswith("output_dir=")]
    config = load_config(of_folder)
    folder = Path(expanded(folders[0], "DIR") if folders else config.output_dir)
    return folder, [word for word in overrides if word not in of_folder]


def _check(overrides: Sequence[str], results: Sequence[Result]) -> None:
    """Refuse overrides that fit none of the results.

    Raises:
        UserError: what is wrong with them.
    """
    mistakes: list[UserError] = []
    for words in dict.fromkeys(tuple(option_words(result.config.get("choices"), overrides)) for result in results):
        try:
            load_config([*words, *overrides])
        except UserError as error:
            mistakes.append(error)
        else:
            return
    if overrides and mistakes:
        raise mistakes[0]


@dataclass
class _Report:
    """What is found in an output folder, and what had to be left out of the report.

    Attributes:
        folder: whose results these are.
        gallery: best, median and worst images that a data set shows.
        overrides: of the user, for pictures that have to be drawn.
        found: results in the order of the tables.
        reproductions: tables by number, then figures.
        left_out: what, and why.
    """

    folder: Path
    gallery: int
    overrides: Sequence[str]
    found: list[_Found] = field(default_factory=list)
    reproductions: list[ReproductionPart] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._text = PageText(self.folder)
        self._taken = {"results", "versions"}  # names of tables

    def read(self) -> None:
        """Every result and reproduction that can be read and shown."""
        for path in sorted(self.folder.glob("results/*/result.json")):
            try:
                result = read_result(path.parent)
                self._try(path.parent, result)
            except Exception as error:  # whatever a file of somebody else's makes a reader or a table raise
                self._leave_out(path, error)
            else:
                self.found.append((path.parent, result))
        self.found.sort(key=lambda cell: rank(cell[1]))
        for path in sorted(self.folder.glob("reproductions/*/reproduction.json"), key=_place):
            try:
                raw = json.loads(path.read_text(encoding="utf-8"))
                name = path.parent.name
                claims = self._name(f"{name}_claims") if isinstance(raw, dict) and raw.get("claims") else None
                self.reproductions.append(_reproduction(raw, self._name(name), claims))
            except Exception as error:  # likewise
                self._leave_out(path, error)

    def page(self) -> Page:
        """The report of what was read."""
        results = [result for _, result in self.found]
        of_cell = Parts(self.found, self.folder, self.gallery, self.overrides)
        best = _best_cells(self.found)
        backbones = {settings["backbone"] for settings in of_cell.told.settings}
        failed = sum(len(result.failures) for result in results)
        lead = (
            f"{_counted(len(results), 'result')} on {_counted(len(best), 'data set')} "
            f"with {_counted(len(backbones), 'backbone')}; {_counted(failed, 'image') if failed else 'no image'} failed"
        )
        parts: list[DatasetPart] = []
        for name, place in best.items():
            table = self._name("classes_" + re.sub(r"[^A-Za-z0-9-]+", "_", name).strip("_"))
            try:
                parts.append(of_cell.dataset(name, table, place))
            except Exception as error:  # a result whose other parts can be shown
                self._leave_out(self.found[place][0] / "result.json", error, "its classes and pictures")
        sweeps: tuple[Drawing, ...] = ()
        try:
            sweeps = tuple(Drawing(sweep.title, sweep.figure) for sweep in sweep_figures(results))
        except Exception as error:  # likewise
            self._leave_out(self.folder, error, "curves")
        return Page(
            title="Unsupervised segmentation results",
            lead=lead,
            headlines=tuple(of_cell.headline(name, place) for name, place in best.items()),
            reproductions=tuple(self.reproductions),
            results=results_table(self.found, "results", "All results"),
            sweeps=sweeps,
            datasets=tuple(parts),
            versions=_versions(results),
            details=tuple(map(of_cell.details, range(len(results)))),
            left_out=tuple(self.left_out),
        )

    def _try(self, folder: Path, result: Result) -> None:
        """Make what the page says of a result alone; it raises where that can't be done."""
        alone = Parts([(folder, result)], self.folder)
        alone.headline(result.dataset.name, 0)
        alone.details(0)
        rank(result)
        results_table([(folder, result)]).to_markdown()
        _versions([result]).to_markdown()

    def _leave_out(self, path: Path, error: Exception, what: str = "") -> None:
        reason = error.what if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        reason = f"{what}: {reason}" if what else reason
        text = f"left out ({reason}): {path}"
        errors.print(text, style="yellow", highlight=False, markup=False, soft_wrap=True)
        self.left_out.append((self._text.relative(path), self._text.of(reason)))

    def _name(self, wanted: str) -> str:
        """A name for a table that no other has."""
        name, number = wanted, 1
        while name.casefold() in self._taken:
            number += 1
            name = f"{wanted}-{number}"
        self._taken.add(name.casefold())
        return name


def _place(path: Path) -> tuple[object, ...]:
    """Tables before figures, by number."""
    name = path.parent.name
    parts = [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]
    return not name.startswith("table"), parts


def _reproduction(raw: Any, name: str, of_claims: str | None) -> ReproductionPart:
    """What ``diffcut-bench reproduce`` wrote; the names are those of the tables' files."""
    if not isinstance(raw, dict) or not isinstance(raw.get("title"), str):
        raise ValueError("it holds no titled table")
    table = Table.from_dict({**raw["table"], "name": name})
    drawn = None
    if raw.get("curves") and raw["curves"]["curves"]:
        curves = [
            Curve(each["label"], *(tuple(map(float, each.get(part) or ())) for part in ("x", "y", "low", "high")))
            for each in raw["curves"]["curves"]
        ]
        references = [(str(label), float(value)) for label, value in raw["curves"].get("references", ())]
        drawn = draw_curves(curves, raw["curves"]["x_label"], raw["curves"]["y_label"], references)
    claims = Table.from_dict({**raw["claims"], "name": of_claims}) if of_claims else None
    return ReproductionPart(raw["title"], table, drawn, claims)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _best_cells(found: Sequence[_Found]) -> dict[str, int]:
    """Place of the highest mIoU on each data set under the released protocol; limited or other cells where there is
    none.

    A published split is known by its name, the user's own data by its options; of several with one name all but the
    first are numbered.
    """
    best: dict[tuple[str, str], int] = {}
    for place, (_, result) in enumerate(found):
        dataset = result.dataset
        identity = dataset.name, str(result.config.get("dataset")) if dataset.n_expected is None else ""
        if identity not in best or _merit(result) > _merit(found[best[identity]][1]):
            best[identity] = place
    named: dict[str, int] = {}
    seen: Counter[str] = Counter()
    for (name, _), place in best.items():
        seen[name] += 1
        named[name if seen[name] == 1 else f"{name} ({seen[name]})"] = place
    return named


def _merit(result: Result) -> tuple[bool, bool, int, float]:
    score = result.metrics.miou
    # Scores of different protocols, or of images that were easy enough not to fail, are not comparable.
    released = result.protocol.get("name") == "released"
    return not result.limited, released, -len(result.failures), score if score == score else -1.0


def _versions(results: Sequence[Result]) -> Table:
    """Each package in the versions that the results were made with."""
    by_package: dict[str, list[str]] = {}
    for result in results:
        for package, version in result.environment.packages.items():
            if version not in by_package.setdefault(package, []):
                by_package[package].append(version)
    rows = tuple((package, ", ".join(versions)) for package, versions in sorted(by_package.items()))
    return Table("versions", "Versions", (Column("package"), Column("version")), rows)
