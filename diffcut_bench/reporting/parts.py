"""What a report says of one result: its card, classes, pictures, details."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from diffcut_bench.errors import UserError
from diffcut_bench.escaping import counted
from diffcut_bench.evaluation import choices_in_force, known_metrics
from diffcut_bench.reporting.details import choose_images, class_intervals, class_table, image_metric
from diffcut_bench.reporting.figures import draw_class_bars
from diffcut_bench.reporting.page import DatasetPart, GalleryPicture, Headline, RunDetails
from diffcut_bench.reporting.pictures import embed_picture
from diffcut_bench.reporting.redrawing import draw_pictures
from diffcut_bench.reporting.settings import compare_settings, heading, settings_of, text_of, without_folders
from diffcut_bench.reporting.tables import leading_metric, score_texts, scored_images, shown_interval
from diffcut_bench.scoring.cell import picture_path
from diffcut_bench.store import ImageRow, Result, Score, check_published

_Gallery = tuple[tuple[str, tuple[GalleryPicture, ...]], ...]
_LEADING = re.compile(r"(?<![\w.~:/…])/(?:[^\s/'\"()\[\],:]+/)+")  # folders of an absolute path


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
        for folder, name in self._named.items():
            if folder != "/":
                text = re.sub(rf"{re.escape(folder)}(?![\w.-])", name, text)
        return _LEADING.sub("…/", text)

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


class Parts:
    """What the page says of each of some results.

    Args:
        cells: folder and result of each.
        output_dir: that they lie in.
        gallery: best, median and worst images that a data set shows.
        overrides: of the user, for pictures that have to be drawn.
        say: called before they are drawn.

    Attributes:
        told: what tells each from the others.
    """

    def __init__(
        self,
        cells: Sequence[tuple[Path, Result]],
        output_dir: Path,
        gallery: int = 0,
        overrides: Sequence[str] = (),
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._cells, self._output_dir, self._gallery, self._overrides = cells, output_dir, gallery, overrides
        self._say = say
        self._text = PageText(output_dir)
        self.told = compare_settings([result for _, result in cells], [folder for folder, _ in cells])

    def headline(self, name: str, index: int) -> Headline:
        """The card of a data set's best cell."""
        _, result = self._cells[index]
        metric, images, expected = leading_metric(), scored_images(result), result.dataset.n_expected
        score = Score(result.scores[metric.name].value, shown_interval(result, metric))
        scored = f"{images} of {expected} images" if result.limited and expected else counted(images, "image")
        return Headline(name, score, self._described(index), scored, result.limited)

    def dataset(self, name: str, table: str, index: int) -> DatasetPart:
        """The best cell's classes and pictures; a note stands for what is not to be had.

        Args:
            name: of the data set on the page.
            table: name of the table of classes.
            index: of the cell.
        """
        folder, result = self._cells[index]
        notes: list[str] = []
        rows: list[ImageRow] = []
        try:
            _, rows = check_published(folder)
        except UserError as error:
            notes.append(f"no pictures: its rows can't be taken ({error.what})")
        classes, metric = class_table(result, rows, table), leading_metric()
        scores = result.scores[metric.name].per_class
        known = any(score is not None for score in scores.values())
        bars = draw_class_bars(scores, class_intervals(result, rows, metric), metric) if known else None
        pictures: _Gallery = ()
        if rows:
            pictures, missing = self._pictures(folder, result, rows)
            notes += missing
        return DatasetPart(name, self._described(index), classes, bars, pictures, tuple(map(self._text.of, notes)))

    def details(self, index: int) -> RunDetails:
        """All that result.json says of how a result came about."""
        folder, result = self._cells[index]
        dataset, segments, made_in = result.dataset, result.segments_per_image, result.environment
        scores = [
            (metric.heading, "{} [{}]".format(*score_texts(result, metric)))
            for name, metric in known_metrics().items()
            if name in result.scores and name != "segments"  # said with the least and most below
        ]
        settings = [
            f"{name}={text_of(without_folders(value))}"
            for name, value in settings_of(result).items()
            if not name.startswith("protocol.") and value is not None
        ]
        seconds = [
            f"{name.removesuffix('_s')} {value:.1f} s"
            for name, value in asdict(result.timings).items()
            if name != "images_per_s"
        ]
        expected = f" of {dataset.n_expected} published" if dataset.n_expected else ""
        commit = made_in.git.get("commit") or "not in a checkout"
        facts = (
            *scores,
            ("segments", f"{segments.mean:.1f} an image, {segments.min} to {segments.max}"),
            ("images", f"{dataset.n_images}{expected}; fingerprint {dataset.fingerprint}"),
            ("settings", ", ".join(settings)),
            ("protocol", ", ".join(f"{name}={value}" for name, value in choices_in_force(result.protocol).items())),
            ("device", made_in.device),
            ("noise drawn on", made_in.noise_generator),
            ("seed", str(made_in.seed)),
            ("commit", f"{commit}{' with local changes' if made_in.git.get('dirty') else ''}"),
            ("versions", ", ".join(f"{name} {version}" for name, version in made_in.packages.items())),
            ("timings", ", ".join(seconds)),
            ("speed", f"{result.timings.images_per_s:.2f} images/s"),
            ("key", result.key),
            ("folder", self._text.relative(folder)),
        )
        score, _ = score_texts(result, leading_metric())
        failures = tuple(self._text.of(f"{failure.id}: {failure.error}") for failure in result.failures)
        return RunDetails(f"{dataset.name}, {self._described(index)}:", score, result.limited, facts, failures)

    def _described(self, index: int) -> str:
        """The settings that tell a result from the others, in one line."""
        settings = self.told.settings[index]
        own = {name: text_of(settings.get(name)) for name in ("segmenter.tau", "segmenter.alpha")}
        own |= self.told.texts[index]
        beside = {"backbone", "segmenter"}
        if own.get("dataset") == self._cells[index][1].dataset.name:
            beside.add("dataset")
        words = [f"{heading(name)}={text}" for name, text in own.items() if text and name not in beside]
        return ", ".join([settings["backbone"], settings["segmenter"], *words])

    def _pictures(self, folder: Path, result: Result, rows: Sequence[ImageRow]) -> tuple[_Gallery, list[str]]:
        """Best, median and worst images with their pictures, and notes on pictures that are missing."""
        chosen = choose_images(rows, self._gallery)
        wanted = [row for _, images in chosen for row, _ in images]
        paths = [picture_path(folder / "pictures", row.id) for row in wanted]
        # Not Path.is_file, which raises where an id is longer than the name of a file may be.
        missing = [row.index for row, path in zip(wanted, paths, strict=True) if not os.path.isfile(path)]  # noqa: PTH113
        notes = []
        if missing:
            self._say(f"drawing  {counted(len(missing), 'picture')} of {folder.name}")
            notes += filter(None, [draw_pictures(folder, result, missing, self._output_dir, self._overrides)])
        shown = []
        for kind, images in chosen:
            pictures = []
            for row, score in images:
                about = f"mean IoU {image_metric().text(score)} %, {counted(row.segments, 'segment')}"
                try:
                    uri, width, height = embed_picture(picture_path(folder / "pictures", row.id))
                except FileNotFoundError:
                    notes.append(f"{row.id} ({kind}, {about}): no picture")
                except Exception as error:  # whatever a damaged file makes its decoder raise
                    notes.append(f"{row.id} ({kind}, {about}): its picture can't be read ({error})")
                else:
                    alt = f"{row.id}: image, label and prediction side by side; {about}"
                    pictures.append(GalleryPicture(uri, width, height, alt, f"{row.id}: {about}"))
            if pictures:
                shown.append((kind.capitalize(), tuple(pictures)))
        return tuple(shown), notes
