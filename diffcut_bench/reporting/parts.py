"""What a report says of one result: its card, classes, pictures, details."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from diffcut_bench.errors import UserError
from diffcut_bench.escaping import counted, file_stem
from diffcut_bench.evaluation import Metric, choices_in_force, known_metrics
from diffcut_bench.redaction import public, public_text, replace_folders
from diffcut_bench.reporting.details import (
    ImageScore,
    choose_images,
    class_intervals,
    class_metrics,
    class_table,
    rank_table,
    ranked_images,
)
from diffcut_bench.reporting.figures import draw_class_bars
from diffcut_bench.reporting.page import DatasetPart, GalleryPicture, Headline, RunDetails
from diffcut_bench.reporting.pictures import embed_picture
from diffcut_bench.reporting.settings import Comparison, heading, settings_of, text_of
from diffcut_bench.reporting.tables import (
    Table,
    part_of_whole,
    reference_lift,
    reference_of,
    score_texts,
    scored_images,
    shown_interval,
)
from diffcut_bench.scoring.cell import picture_path
from diffcut_bench.scoring.ranking import leading_metric
from diffcut_bench.store import ImageRow, Result, Score, check_published

_SHORT = 8  # characters of a key that stand for a cell


class PageText:
    """Text of a page that may be given away: it names files of this disk without the folders that lead to them.

    Args:
        folder: that the report is of.
    """

    def __init__(self, folder: Path) -> None:
        self._root = folder.absolute()
        self._named = {str(folder.resolve()): ".", str(self._root): ".", str(Path.home()): "~"}

    def of(self, text: str) -> str:
        """A message without the folders that lead here."""
        return public_text(replace_folders(text, self._named))

    def relative(self, path: Path) -> str:
        """A path below the output folder, from there."""
        return str(path.absolute().relative_to(self._root))


def rank(result: Result) -> tuple[object, ...]:
    """Data set, backbone, segmenter and settings in an order that does not change, numbers as numbers."""
    settings = settings_of(result)
    ranks = [
        (name, 0, value, "") if isinstance(value, (int, float)) else (name, 1, 0, str(value))
        for name, value in settings.items()
    ]
    return result.dataset.name, settings["backbone"], settings["segmenter"], ranks, result.key


def describe(results: Sequence[Result], told: Comparison) -> list[str]:
    """Backbone, segmenter and what tells each result from the others, in one line each."""
    lines = []
    for result, settings, texts in zip(results, told.settings, told.texts, strict=True):
        own = {name: text_of(settings.get(name)) for name in ("segmenter.tau", "segmenter.alpha")} | texts
        beside = {"backbone", "segmenter"} | ({"dataset"} if own.get("dataset") == result.dataset.name else set())
        words = [f"{heading(name)}={text}" for name, text in own.items() if text and name not in beside]
        lines.append(public_text(", ".join([settings["backbone"], settings["segmenter"], *words])))
    return lines


def anchor_of(folder: Path) -> str:
    """Of the section of a page that tells all of the cell in this folder: no two cells of an output folder share it."""
    return f"cell-{file_stem(folder.name)}"


def headline(name: str, folder: Path, result: Result, settings: str, chosen: str = "miou") -> Headline:
    """The card of a data set's best result, whose settings are given in one line; ``chosen`` is the score it shows."""
    metric, images, expected = leading_metric(chosen, [result]), scored_images(result), result.dataset.n_expected
    score = Score(result.scores.get(metric.name, Score(None)).value, shown_interval(result, metric))
    scored = f"{images} of {expected} images" if result.limited and expected else counted(images, "image")
    lift, part = _lift(result, metric), part_of_whole(result)
    return Headline(name, metric, score, settings, scored, part, lift, anchor_of(folder))


def _lift(result: Result, metric: Metric) -> str:
    """Where a score lies between floor and ceiling, in words."""
    known = reference_of(result, metric)
    if known is None or known.lift.value is None:
        return ""
    ends = (
        f"a blind grid ({metric.text(known.floor.value)}) to the annotation itself ({metric.text(known.ceiling.value)})"
    )
    return f"lift {reference_lift(result, known.lift)} of the way from {ends}"


def run_details(folder: Path, result: Result, settings: str, text: PageText, chosen: str = "miou") -> RunDetails:
    """All that result.json says of how a result came about; ``chosen`` is the score in its title."""
    dataset, segments, made_in = result.dataset, result.segments_per_image, result.environment
    scores = [
        (
            metric.heading,
            "; ".join(filter(None, ["{} [{}]".format(*score_texts(result, metric)), _lift(result, metric)])),
        )
        for name, metric in known_metrics().items()
        if name in result.scores and name != "segments"  # said with the least and most below
    ]
    own = {name: value for name, value in settings_of(result).items() if not name.startswith("protocol.")}
    told = [f"{name}={text_of(public(name, value))}" for name, value in own.items() if value is not None]
    protocol = public("protocol", choices_in_force(result.protocol))
    seconds = {name: value for name, value in asdict(result.timings).items() if name != "images_per_s"}
    expected = f" of {dataset.n_expected} published" if dataset.n_expected else ""
    commit = made_in.git.get("commit") or "not in a checkout"
    facts = (
        *scores,
        ("segments", f"{segments.mean:.1f} an image, {segments.min} to {segments.max}"),
        ("images", f"{dataset.n_images}{expected}; fingerprint {dataset.fingerprint}"),
        ("settings", ", ".join(told)),
        ("protocol", ", ".join(f"{name}={value}" for name, value in protocol.items())),
        ("device", made_in.device),
        ("noise drawn on", made_in.noise_generator),
        ("seed", str(made_in.seed)),
        ("commit", f"{commit}{' with local changes' if made_in.git.get('dirty') else ''}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in made_in.packages.items())),
        ("timings", ", ".join(f"{name.removesuffix('_s')} {value:.1f} s" for name, value in seconds.items())),
        ("speed", f"{result.timings.images_per_s:.2f} images/s"),
        ("key", result.key),
        ("folder", text.relative(folder)),
    )
    facts = tuple((name, text.of(fact)) for name, fact in facts)
    metric = leading_metric(chosen, [result])
    score = score_texts(result, metric)[0] + ("" if metric.name == "miou" else f" {metric.heading}")
    failures = tuple(text.of(f"{failure.id}: {failure.error}") for failure in result.failures)
    title, name = f"{dataset.name}, {settings}:", result.key[:_SHORT] or "?"
    return RunDetails(title, score, part_of_whole(result), facts, failures, name, anchor_of(folder))


def cell_tables(folder: Path, chosen: str = "miou") -> tuple[Table, ...]:
    """Classes of a cell, and its best and worst images; none where its rows can't be taken."""
    try:
        result, rows = check_published(folder)
    except UserError:
        return ()
    images = rank_table(rows, leading=leading_metric(chosen, [result]))
    return (*((class_table(result, rows, score=chosen),) if result.class_names else ()), images)


@dataclass(frozen=True)
class GalleryCell:
    """A cell whose pictures a gallery shows: its folder, result, and settings in one line."""

    folder: Path
    result: Result
    settings: str

    def picture(self, row: ImageRow) -> Path:
        """Where the picture of an image is."""
        return picture_path(self.folder / "pictures", row.id)

    def explorer(self, row: ImageRow) -> str:
        """Name of the image's explorer, in the folder of them."""
        return f"{file_stem(f'{row.id}-{self.folder.name}')}.html"


@dataclass(frozen=True)
class Gallery:
    """How the pictures of a data set are chosen and drawn."""

    each: int  # best, median and worst images that are shown
    draw: Callable[[GalleryCell, Sequence[int], Mapping[int, Path]], list[str]]  # see `draw_pictures`
    text: PageText
    score: str = "miou"  # that leads
    explorers: Path | None = None  # the folder, beside the page, that they are written to; None: there are none

    def dataset(self, name: str, table: str, cell: GalleryCell, beside: Sequence[GalleryCell] = ()) -> DatasetPart:
        """The best cell's classes and pictures; a note stands for what is not to be had.

        Args:
            name: of the data set on the page.
            table: name of the table of classes.
            cell: the best.
            beside: cells whose predictions of the same images stand beside its own.
        """
        notes: list[str] = []
        rows, result = self._rows(cell, notes), cell.result
        metrics, bars, title = class_metrics(result, self.score), None, ""
        if metrics and any(score is not None for score in result.scores[metrics[0].name].per_class.values()):
            metric = metrics[0]
            title = f"{metric.class_heading or metric.heading} of each class of {name}"
            bars = draw_class_bars(result.scores[metric.name].per_class, class_intervals(result, rows, metric), metric)
        classes = class_table(result, rows, table, score=self.score) if metrics else None
        leading = leading_metric(self.score, [result])
        chosen = choose_images(rows, self.each, leading)
        ids = [row.id for _, images in chosen for row, _ in images]
        own = self._pictures(cell, rows, ids, leading, notes)
        others = [self._pictures(one, self._rows(one, notes), ids, leading, notes, beside=True) for one in beside]
        shown = []
        for kind, images in chosen:
            there = [row.id for row, _ in images if row.id in own]
            pictures = [replace(own[id], beside=tuple(o[id] for o in others if id in o)) for id in there]
            shown += [(kind.capitalize(), tuple(pictures))] if pictures else []
        about = ImageScore.of(leading).about
        told = tuple(map(self.text.of, dict.fromkeys(notes)))
        return DatasetPart(name, cell.settings, classes, bars, tuple(shown), told, title, about)

    def _rows(self, cell: GalleryCell, notes: list[str]) -> list[ImageRow]:
        try:
            return check_published(cell.folder)[1]
        except UserError as error:
            notes.append(f"{cell.settings}: no pictures: its rows can't be taken ({error.what})")
            return []

    def _pictures(
        self,
        cell: GalleryCell,
        rows: Sequence[ImageRow],
        ids: Sequence[str],
        leading: Metric,
        notes: list[str],
        *,
        beside: bool = False,
    ) -> dict[str, GalleryPicture]:
        """What a cell made of images, by id; the missing pictures are drawn, and notes take what can't be.

        Args:
            cell, rows: the cell.
            ids: of the images.
            leading: metric of their captions.
            notes: are added to.
            beside: only predictions, for the side of another cell's pictures.
        """
        scores = {row.id: score for row, score in ranked_images(rows, leading)}
        wanted = [row for row in rows if row.id in set(ids)]
        # Not Path.is_file, which raises where an id is longer than the name of a file may be.
        missing = [row.index for row in wanted if not os.path.isfile(cell.picture(row))]  # noqa: PTH113
        pages = {} if self.explorers is None else {row.index: self.explorers / cell.explorer(row) for row in wanted}
        if missing or pages:
            notes += [f"{cell.settings}: {why}" for why in self.draw(cell, missing, pages)]
        pictures = {}
        for row in wanted:
            about = counted(row.segments, "segment")
            if row.id in scores:
                about = f"{ImageScore.of(leading).caption(scores[row.id])}, {about}"
            try:
                uri, width, height = embed_picture(cell.picture(row), prediction_only=beside)
            except FileNotFoundError:
                notes.append(f"{row.id} ({about}): no picture")
            except Exception as error:  # whatever a damaged file makes its decoder raise
                notes.append(f"{row.id} ({about}): its picture can't be read ({error})")
            else:
                what = f"prediction of {cell.settings}" if beside else "image, label and prediction side by side"
                alt, caption = f"{row.id}: {what}; {about}", f"{cell.settings if beside else row.id}: {about}"
                page = pages.get(row.index)
                link = f"{page.parent.name}/{page.name}" if page and page.is_file() else ""
                pictures[row.id] = GalleryPicture(uri, width, height, alt, caption, link)
        return pictures
