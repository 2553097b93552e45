"""The report of an output folder: every result and reproduction that can be read, as a page. A result is data: nothing
that it says is run, and one that is no good leaves the others alone."""

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from diffcut_bench.config import RunConfig, load_config, option_words
from diffcut_bench.errors import UserError
from diffcut_bench.escaping import counted
from diffcut_bench.extras import require
from diffcut_bench.paths import paper_order
from diffcut_bench.redaction import public, public_text
from diffcut_bench.reporting.figures import Curve, draw_curves
from diffcut_bench.reporting.page import Page, ReproductionPart, RunDetails
from diffcut_bench.reporting.parts import (
    Gallery,
    GalleryCell,
    PageText,
    cell_tables,
    describe,
    headline,
    rank,
    run_details,
)
from diffcut_bench.reporting.redrawing import draw_pictures
from diffcut_bench.reporting.settings import compare_settings
from diffcut_bench.reporting.sweeps import sweep_figures
from diffcut_bench.reporting.tables import Column, Table, results_table
from diffcut_bench.scoring.ranking import ranked_cells
from diffcut_bench.store import Found, Result, read_result, without_covered

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_Part = TypeVar("_Part")
Say = Callable[[str], None]


def make_report(
    folder: Path, gallery: int, overrides: Sequence[str], say: Say, warn: Say, beside: Collection[Path] = ()
) -> Page:
    """Read what is in an output folder, draw the pictures that are missing, and write explorers where they are wanted.

    Args:
        folder: of all that runs wrote.
        gallery: best, median and worst images that each data set shows.
        overrides: of the user: the score that leads, whether the gallery has explorers, and for pictures that have to
            be drawn data, weights or options that lie elsewhere.
        say: called with what takes time.
        warn: called with what had to be left out, and why.
        beside: folders of cells that galleries show beside the best of their data set; none: the best of another
            backbone or segmenter.

    Raises:
        UserError: there are no results, the overrides fit none of them, or matplotlib is not installed.
    """
    require("report", "diffcut-bench report", "matplotlib")
    report = _Report(folder, say, warn)
    report.read()
    if not report.found:
        hint = "diffcut-bench run first, or name the folder: diffcut-bench report DIR"
        raise UserError("no results to report", str(folder / "results"), hint)
    chosen = _chosen(overrides, [result for _, result in report.found])
    return report.page(gallery, overrides, chosen.score, explore=chosen.explore, beside=beside)


@dataclass(frozen=True)
class _Chosen:
    """What overrides say about a report, or what holds where they can't be read with any result."""

    score: str = RunConfig.score
    explore: bool = RunConfig.explore


def _chosen(overrides: Sequence[str], results: Sequence[Result]) -> _Chosen:
    """The score and explorers that overrides choose; they have to fit one of the results.

    Raises:
        UserError: what is wrong with them.
    """
    mistakes: list[UserError] = []
    for words in dict.fromkeys(tuple(option_words(result.config.get("choices"), overrides)) for result in results):
        try:
            config = load_config([*words, *overrides])
            return _Chosen(config.score, config.explore)
        except UserError as error:
            mistakes.append(error)
    if overrides and mistakes:
        raise mistakes[0]
    return _Chosen()


class _Report:
    """What is found in an output folder, and what had to be left out of the report.

    Args:
        folder, say, warn: see `make_report`.

    Attributes:
        found: results in the order of the tables.
    """

    def __init__(self, folder: Path, say: Say, warn: Say) -> None:
        self._folder, self._say, self._warn, self._text = folder, say, warn, PageText(folder)
        self.found: list[Found] = []
        self._reproductions: list[ReproductionPart] = []  # tables by number, then figures
        self._left_out: list[tuple[str, str]] = []  # what, and why
        self._covered = 0  # shards that are not shown, since the cells are that they are of
        self._taken = {"results", "versions"}  # names of tables

    def read(self) -> None:
        """Every result and reproduction that can be read and shown."""
        for path in sorted(self._folder.glob("results/*/result.json")):
            result = self._tried(partial(self._result, path.parent), path)
            self.found += [(path.parent, result)] if result else []
        cells = without_covered(self.found)
        self._covered, self.found = len(self.found) - len(cells), sorted(cells, key=lambda cell: rank(cell[1]))
        stored = self._folder.glob("reproductions/*/reproduction.json")
        for path in sorted(stored, key=lambda path: paper_order(path.parent.name)):
            part = self._tried(partial(self._reproduction, path), path)
            self._reproductions += [part] if part else []

    def page(
        self, gallery: int, overrides: Sequence[str], score: str, *, explore: bool, beside: Collection[Path]
    ) -> Page:
        """The report of what was read; see `make_report`."""
        results = [result for _, result in self.found]
        told = compare_settings(results, [folder for folder, _ in self.found])
        cells = [(*cell, settings) for cell, settings in zip(self.found, describe(results, told), strict=True)]
        ranked = ranked_cells(results, score)
        backbones = {settings["backbone"] for settings in told.settings}
        failed = sum(len(result.failures) for result in results)
        lead = (
            f"{counted(len(results), 'result')} on {counted(len(ranked), 'data set')} "
            f"with {counted(len(backbones), 'backbone')}; {counted(failed, 'image') if failed else 'no image'} failed"
        )

        def draw(cell: GalleryCell, missing: Sequence[int], pages: Mapping[int, Path]) -> list[str]:
            what = [(missing, "picture"), (pages, "explorer")]
            told = " and ".join(counted(len(wanted), kind) for wanted, kind in what if wanted)
            self._say(f"drawing  {told} of {cell.folder.name}")
            return draw_pictures(cell.folder, cell.result, missing, self._folder, overrides, pages)

        explorers = self._folder / "reports" / "explorers" if explore else None
        pictures, parts = Gallery(gallery, draw, self._text, score, explorers), []
        best = {cells[indices[0]][0].resolve() for indices in ranked.values()}
        for path in beside:
            if path.resolve() in best or path.resolve() not in {folder.resolve() for folder, _ in self.found}:
                self._warn(f"--beside {path.name}: it is the best cell itself, or was left out")
        for name, indices in ranked.items():
            table = self._name("classes_" + re.sub(r"[^A-Za-z0-9-]+", "_", name).strip("_"))
            own = GalleryCell(*cells[indices[0]])
            others = [GalleryCell(*cells[index]) for index in self._beside(indices, told.settings, beside)]
            part = partial(pictures.dataset, name, table, own, others)
            parts.append(self._tried(part, own.folder / "result.json", "its classes and pictures: "))
        return Page(
            title="Unsupervised segmentation results",
            lead=lead,
            headlines=tuple(headline(name, *cells[indices[0]], score) for name, indices in ranked.items()),
            reproductions=tuple(self._reproductions),
            results=self._results(score),
            sweeps=tuple(self._tried(partial(sweep_figures, results, score), self._folder, "curves: ") or ()),
            datasets=tuple(part for part in parts if part),
            versions=_versions(results),
            details=tuple(self._details(*cell, score) for cell in cells),
            left_out=tuple(self._left_out),
        )

    def _beside(
        self, ranked: Sequence[int], settings: Sequence[Mapping[str, Any]], named: Collection[Path]
    ) -> list[int]:
        """Of the cells on a data set, best first, those whose pictures stand beside the best one's."""
        best, *others = ranked
        if named:
            places = {path.resolve() for path in named}
            return [index for index in others if self.found[index][0].resolve() in places]

        def method(index: int) -> tuple[Any, ...]:
            return settings[index]["backbone"], settings[index]["segmenter"]

        def beside(index: int) -> tuple[Any, ...]:
            # Scores under another protocol or of a shard are not comparable.
            result = self.found[index][1]
            return result.protocol.get("name"), result.shard

        return [index for index in others if method(index) != method(best) and beside(index) == beside(best)][:1]

    def _results(self, score: str) -> Table:
        """All results; a note tells of shards that are not among them."""
        table = results_table(self.found, "results", "All results", score=score, reference=True)
        if not self._covered:
            return table
        shards, are = counted(self._covered, "shard"), "is" if self._covered == 1 else "are"
        return replace(table, notes=(*table.notes, f"{shards} of merged cells {are} not shown"))

    def _details(self, folder: Path, result: Result, settings: str, score: str) -> RunDetails:
        """The section of a cell."""
        tables = self._tried(partial(cell_tables, folder, score), folder / "result.json", "its classes and images: ")
        return replace(run_details(folder, result, settings, self._text, score), tables=tables or ())

    def _result(self, folder: Path) -> Result:
        """A result of which everything can be made that the page says of it alone."""
        result = read_result(folder)
        result = replace(result, dataset=replace(result.dataset, name=public_text(result.dataset.name)))
        (settings,) = describe([result], compare_settings([result], [folder]))
        headline(result.dataset.name, folder, result, settings)
        run_details(folder, result, settings, self._text)
        rank(result)
        results_table([(folder, result)], reference=True).to_markdown()
        _versions([result]).to_markdown()
        return result

    def _reproduction(self, path: Path) -> ReproductionPart:
        """What ``diffcut-bench reproduce`` wrote, its tables named by its folder."""
        raw, name = json.loads(path.read_text(encoding="utf-8")), path.parent.name
        if not isinstance(raw, dict) or not isinstance(raw.get("title"), str):
            raise ValueError("it holds no titled table")
        stored = {name: raw["table"]} | ({f"{name}_claims": raw["claims"]} if raw.get("claims") else {})
        tables = [Table.from_dict({**table, "name": self._name(own)}) for own, table in stored.items()]
        return ReproductionPart(raw["title"], tuple(tables), stored_curves(raw.get("curves")))

    def _tried(self, make: Callable[[], _Part], path: Path, what: str = "") -> _Part | None:
        """What can be made of a file; None where that fails, which is said: the other files are shown."""
        try:
            return make()
        except Exception as error:  # whatever a file of somebody else's makes a reader or a table raise
            reason = what + (error.what if isinstance(error, UserError) else f"{type(error).__name__}: {error}")
        self._warn(f"left out ({reason}): {path}")
        self._left_out.append((self._text.relative(path), self._text.of(reason)))
        return None

    def _name(self, wanted: str) -> str:
        """A name for a table that no other has."""
        name, number = wanted, 1
        while name.casefold() in self._taken:
            number += 1
            name = f"{wanted}-{number}"
        self._taken.add(name.casefold())
        return name


def stored_curves(raw: Any) -> "Figure | None":
    """The figure of the ``curves`` in a reproduction.json; None where there are none.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: they are something else.
    """
    if not raw or not raw["curves"]:
        return None
    curves = [
        Curve(each["label"], *(tuple(map(float, each.get(part) or ())) for part in ("x", "y", "low", "high")))
        for each in raw["curves"]
    ]
    references = [(str(label), float(value)) for label, value in raw.get("references", ())]
    return draw_curves(curves, raw["x_label"], raw["y_label"], references)


def _versions(results: Sequence[Result]) -> Table:
    """Each package in the versions that the results were made with."""
    by_package: dict[str, dict[str, None]] = {}
    for result in results:
        for package, version in public("", result.environment.packages).items():
            by_package.setdefault(package, {})[version] = None
    rows = tuple((package, ", ".join(versions)) for package, versions in sorted(by_package.items()))
    return Table("versions", "Versions", (Column("package"), Column("version")), rows)
