"""The report of an output folder: every result and reproduction that can be read, as a page. A result is data: nothing
that it says is run, and one that is no good leaves the others alone."""

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from diffcut_bench.config import load_config, option_words
from diffcut_bench.errors import UserError
from diffcut_bench.reporting.figures import Curve, draw_curves
from diffcut_bench.reporting.page import DatasetPart, Drawing, Page, ReproductionPart
from diffcut_bench.reporting.parts import PageText, Parts, counted, rank
from diffcut_bench.reporting.sweeps import sweep_figures
from diffcut_bench.reporting.tables import Column, Table, results_table
from diffcut_bench.store import Result, read_result

_Found = tuple[Path, Result]
Say = Callable[[str], None]


def make_report(folder: Path, gallery: int, overrides: Sequence[str], say: Say, warn: Say) -> Page:
    """Read what is in an output folder, and draw the pictures of the best cells that are missing.

    Args:
        folder: of all that runs wrote.
        gallery: best, median and worst images that each data set shows.
        overrides: of the user, for pictures that have to be drawn: data, weights or options that lie elsewhere.
        say: called with what takes time.
        warn: called with what had to be left out, and why.

    Raises:
        UserError: there are no results, or the overrides fit none of them.
    """
    report = _Report(folder, say, warn)
    report.read()
    if not report.found:
        hint = "diffcut-bench run first, or name the folder: diffcut-bench report DIR"
        raise UserError("no results to report", str(folder / "results"), hint)
    _check(overrides, [result for _, result in report.found])
    return report.page(gallery, overrides)


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


class _Report:
    """What is found in an output folder, and what had to be left out of the report.

    Args:
        folder, say, warn: see `make_report`.

    Attributes:
        found: results in the order of the tables.
    """

    def __init__(self, folder: Path, say: Say, warn: Say) -> None:
        self._folder, self._say, self._warn, self._text = folder, say, warn, PageText(folder)
        self.found: list[_Found] = []
        self._reproductions: list[ReproductionPart] = []  # tables by number, then figures
        self._left_out: list[tuple[str, str]] = []  # what, and why
        self._taken = {"results", "versions"}  # names of tables

    def read(self) -> None:
        """Every result and reproduction that can be read and shown."""
        for path in sorted(self._folder.glob("results/*/result.json")):
            try:
                result = read_result(path.parent)
                self._try(path.parent, result)
            except Exception as error:  # whatever a file of somebody else's makes a reader or a table raise
                self._leave_out(path, error)
            else:
                self.found.append((path.parent, result))
        self.found.sort(key=lambda cell: rank(cell[1]))
        for path in sorted(self._folder.glob("reproductions/*/reproduction.json"), key=_number):
            try:
                raw = json.loads(path.read_text(encoding="utf-8"))
                name = path.parent.name
                claims = self._name(f"{name}_claims") if isinstance(raw, dict) and raw.get("claims") else None
                self._reproductions.append(_reproduction(raw, self._name(name), claims))
            except Exception as error:  # likewise
                self._leave_out(path, error)

    def page(self, gallery: int, overrides: Sequence[str]) -> Page:
        """The report of what was read; see `make_report`."""
        results = [result for _, result in self.found]
        of_cell = Parts(self.found, self._folder, gallery, overrides, self._say)
        best = _best_cells(self.found)
        backbones = {settings["backbone"] for settings in of_cell.told.settings}
        failed = sum(len(result.failures) for result in results)
        lead = (
            f"{counted(len(results), 'result')} on {counted(len(best), 'data set')} "
            f"with {counted(len(backbones), 'backbone')}; {counted(failed, 'image') if failed else 'no image'} failed"
        )
        parts: list[DatasetPart] = []
        for name, index in best.items():
            table = self._name("classes_" + re.sub(r"[^A-Za-z0-9-]+", "_", name).strip("_"))
            try:
                parts.append(of_cell.dataset(name, table, index))
            except Exception as error:  # a result whose other parts can be shown
                self._leave_out(self.found[index][0] / "result.json", error, "its classes and pictures")
        sweeps: tuple[Drawing, ...] = ()
        try:
            sweeps = tuple(Drawing(sweep.title, sweep.figure) for sweep in sweep_figures(results))
        except Exception as error:  # likewise
            self._leave_out(self._folder, error, "curves")
        return Page(
            title="Unsupervised segmentation results",
            lead=lead,
            headlines=tuple(of_cell.headline(name, index) for name, index in best.items()),
            reproductions=tuple(self._reproductions),
            results=results_table(self.found, "results", "All results"),
            sweeps=sweeps,
            datasets=tuple(parts),
            versions=_versions(results),
            details=tuple(map(of_cell.details, range(len(results)))),
            left_out=tuple(self._left_out),
        )

    def _try(self, folder: Path, result: Result) -> None:
        """Make what the page says of a result alone; it raises where that can't be done."""
        alone = Parts([(folder, result)], self._folder)
        alone.headline(result.dataset.name, 0)
        alone.details(0)
        rank(result)
        results_table([(folder, result)]).to_markdown()
        _versions([result]).to_markdown()

    def _leave_out(self, path: Path, error: Exception, what: str = "") -> None:
        reason = error.what if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        reason = f"{what}: {reason}" if what else reason
        self._warn(f"left out ({reason}): {path}")
        self._left_out.append((self._text.relative(path), self._text.of(reason)))

    def _name(self, wanted: str) -> str:
        """A name for a table that no other has."""
        name, number = wanted, 1
        while name.casefold() in self._taken:
            number += 1
            name = f"{wanted}-{number}"
        self._taken.add(name.casefold())
        return name


def _number(path: Path) -> tuple[object, ...]:
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


def _best_cells(found: Sequence[_Found]) -> dict[str, int]:
    """Index of the highest mIoU on each data set under the released protocol; limited or other cells where there is
    none.

    A published split is known by its name, the user's own data by its options; of several with one name all but the
    first are numbered.
    """
    best: dict[tuple[str, str], int] = {}
    for index, (_, result) in enumerate(found):
        dataset = result.dataset
        identity = dataset.name, str(result.config.get("dataset")) if dataset.n_expected is None else ""
        if identity not in best or _merit(result) > _merit(found[best[identity]][1]):
            best[identity] = index
    named: dict[str, int] = {}
    seen: Counter[str] = Counter()
    for (name, _), index in best.items():
        seen[name] += 1
        named[name if seen[name] == 1 else f"{name} ({seen[name]})"] = index
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
