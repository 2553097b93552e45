"""The report as one HTML file that needs nothing else: what it shows, and how it is rendered."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from diffcut_bench.escaping import visible
from diffcut_bench.evaluation import Metric
from diffcut_bench.reporting.figures import inline_svg
from diffcut_bench.reporting.inlined import content_policy, inlined
from diffcut_bench.reporting.sweeps import SweepFigure
from diffcut_bench.reporting.tables import Table
from diffcut_bench.store import Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TEMPLATE = "report.html.j2"
# A verdict is told by its first word.
_TONES = {"reproduced": "good", "differs": "bad", "limited": "warn", "not": "idle"}


@dataclass(frozen=True)
class Headline:
    """The best score on a data set."""

    dataset: str
    metric: Metric  # that the score is of
    score: Score  # with its interval where that is shown
    settings: str  # what gave it, in one line
    images: str  # how many it was scored on, in words
    part: str  # of the data set: ``limited`` or ``shard 1/3``; empty of all its images
    lift: str = ""  # where it lies between floor and ceiling, in words; empty where they are not known
    anchor: str = ""  # of its `RunDetails`


@dataclass(frozen=True)
class ReproductionPart:
    """A table of the paper beside ours, what the text says about its rows, and its curves if it has any."""

    title: str
    tables: tuple[Table, ...]
    figure: "Figure | None" = None


@dataclass(frozen=True)
class GalleryPicture:
    """A picture inside the page."""

    uri: str  # ``data:…``
    width: int  # pixels
    height: int
    alt: str  # what a screen reader says
    caption: str
    explorer: str = ""  # page beside this one in which a slider moves tau; empty where there is none
    beside: tuple["GalleryPicture", ...] = ()  # predictions of the same image by other cells


@dataclass(frozen=True)
class DatasetPart:
    """What the best cell on a data set did: class by class, and on its best, median and worst images."""

    name: str
    settings: str  # of the cell, in one line
    classes: Table | None  # None where no score is of classes
    bars: "Figure | None"  # the same as bars; None where no class has a score
    gallery: tuple[tuple[str, tuple[GalleryPicture, ...]], ...] = ()  # headings and their pictures
    notes: tuple[str, ...] = ()  # why a picture is missing
    bars_title: str = ""
    about_images: str = ""  # what their scores are


@dataclass(frozen=True)
class RunDetails:
    """All there is to know about a result: names with values, and the images that failed."""

    title: str
    score: str
    part: str  # see `Headline`
    facts: tuple[tuple[str, str], ...]
    failures: tuple[str, ...]
    name: str = "?"  # beginning of the key, as `diffcut-bench show` takes it
    anchor: str = ""  # of the section in the page
    tables: tuple[Table, ...] = ()  # classes, best and worst images


@dataclass(frozen=True)
class Page:
    """The report, part by part, in the order it is read."""

    title: str
    lead: str  # the line under the title
    headlines: tuple[Headline, ...]
    reproductions: tuple[ReproductionPart, ...]
    results: Table  # a row for each of ``details``
    sweeps: tuple[SweepFigure, ...]
    datasets: tuple[DatasetPart, ...]
    versions: Table  # of the packages
    details: tuple[RunDetails, ...]  # of every result
    left_out: tuple[tuple[str, str], ...] = ()  # what could not be shown, and why

    @property
    def has_gallery(self) -> bool:
        """Whether a data set has pictures, or a word on why it has none."""
        return any(dataset.gallery or dataset.notes for dataset in self.datasets)

    def tables(self) -> list[Table]:
        """Every table of the page, in order."""
        papers = [table for each in self.reproductions for table in each.tables]
        classes = [each.classes for each in self.datasets if each.classes is not None]
        return [*papers, self.results, *classes, self.versions]


def render_page(page: Page) -> str:
    """One HTML file: styles, figures, pictures and one script are in it, and nothing is fetched.

    The script sorts and filters tables; a browser runs no other, since the page's policy names it by its digest. The
    same page gives the same bytes. Links to the tables' files expect them in ``tables/`` beside it.
    """
    salts = (f"f{number}" for number in count(1))
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["tone"] = verdict_tone
    environment.filters["verdicts"] = verdict_cells
    environment.globals["svg"] = lambda figure, title: Markup(inline_svg(figure, next(salts), title))
    verdicts = _count_verdicts(page.reproductions)
    script = inlined("report.js")
    html = environment.get_template(_TEMPLATE).render(
        page=page, verdicts=verdicts, script=script, policy=content_policy(script)
    )
    return visible(html, kept="\n\t")


def verdict_tone(verdict: str) -> str:
    """Colour of a verdict by its first word: good, bad, warn, idle, or plain for any other."""
    return _TONES.get(_words(verdict, 1), "plain")


def verdict_cells(table: Table) -> dict[tuple[int, int], str]:
    """Verdicts by row and column: below a heading ``verdict``, or right of a cell that says so."""
    found = {}
    for row, texts in enumerate(table.rows):
        named = texts.index("verdict") if "verdict" in texts else len(texts)
        for col, (column, text) in enumerate(zip(table.columns, texts, strict=True)):
            if text.strip() and (col > named or column.name.lower() == "verdict"):
                found[row, col] = text
    return found


def _words(text: str, count: int) -> str:
    return " ".join(text.split()[:count]).strip(":,;.").lower()


def _count_verdicts(reproductions: Sequence[ReproductionPart]) -> list[tuple[str, int]]:
    """How many rows ended how, in the order of the tones; ``not`` keeps its second word."""
    tables = [table for reproduction in reproductions for table in reproduction.tables]
    verdicts = [verdict for table in tables for verdict in verdict_cells(table).values()]
    words = Counter(_words(verdict, 2 if _words(verdict, 1) == "not" else 1) for verdict in verdicts)
    order = [*_TONES.values(), "plain"]
    return sorted(words.items(), key=lambda item: (order.index(verdict_tone(item[0])), item[0]))
