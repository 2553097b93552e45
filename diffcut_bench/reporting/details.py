"""One cell in detail: its scores, its classes, its images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from diffcut_bench.evaluation import FEWEST_IMAGES, Metric, PairedDifference, known_metrics
from diffcut_bench.redaction import public_text
from diffcut_bench.reporting.tables import (
    ABOUT_REFERENCE,
    NO_INTERVAL,
    REFERENCE,
    Column,
    Table,
    images_of,
    interval_text,
    number_columns,
    reference_of,
    reference_texts,
    score_texts,
    scored_images,
)
from diffcut_bench.scoring.ranking import leading_metric
from diffcut_bench.scoring.summary import image_table, summarise
from diffcut_bench.store import ImageRow, Result


@dataclass(frozen=True)
class ImageScore:
    """What images are ranked by.

    Attributes:
        metric: whose scores of single images it is.
        heading: of columns.
        about: note under tables.
    """

    metric: Metric
    heading: str
    about: str

    @staticmethod
    def of(leading: Metric) -> "ImageScore":
        """Of the metric that leads; of mIoU the mean over an image's own classes."""
        if leading.name == "miou":
            about = "mIoU of an image: the mean over the classes annotated or predicted in it"
            return ImageScore(known_metrics()["jaccard"], "mIoU", about)
        return ImageScore(leading, leading.heading, f"{leading.heading} of each image alone")

    def caption(self, value: float) -> str:
        """An image's score in words."""
        name = "mean IoU" if self.metric.name == "jaccard" else self.heading
        return f"{name} {self.metric.text(value)}{' %' if self.metric.is_fraction else ''}"


def score_table(result: Result, rows: Sequence[ImageRow] = (), score: str = "miou") -> Table:
    """Every score of a cell with its 95 % interval and the images it is over; floor, ceiling and lift where they are
    known.

    Args:
        result: of a cell.
        rows: of its images, from which scores and intervals follow that older results lack.
        score: that stands first.
    """
    if rows and any(own.ci95 is None for own in result.scores.values()):
        found = summarise(rows, result.class_names, result.protocol, result.environment.seed)
        whole = {name: own for name, own in result.scores.items() if own.ci95 is not None}
        result = replace(result, scores={**result.scores, **found, **whole})
    metrics = [metric for metric in known_metrics().values() if metric.name in result.scores]
    metrics.sort(key=lambda metric: metric.name != score)
    known = any(reference_of(result, metric) for metric in metrics)
    columns = (Column("score"), *number_columns("value", "95 % interval", "images", *(REFERENCE if known else ())))
    lines: list[tuple[str, ...]] = []
    counted = [images_of(result, result.scores[metric.name]) for metric in metrics]
    for metric, images in zip(metrics, counted, strict=True):
        beside = reference_texts(result, metric) if known else ()
        name = f"{metric.heading} (%)" if metric.is_fraction else metric.heading
        lines.append((name, *score_texts(result, metric), str(images), *beside))
    notes = [NO_INTERVAL] if any(images < FEWEST_IMAGES for images in counted) else []
    return Table("scores", "Scores", columns, tuple(lines), (*notes, *([ABOUT_REFERENCE] if known else [])))


def class_metrics(result: Result, score: str = "miou") -> list[Metric]:
    """Metrics whose scores of classes are told of a result: the chosen one first, then those of the usual tables."""
    found = [
        metric
        for metric in known_metrics().values()
        if metric.name in result.scores
        and result.scores[metric.name].per_class
        and (metric.in_tables or metric.name == score)
    ]
    return sorted(found, key=lambda metric: metric.name != score)


def class_table(result: Result, rows: Sequence[ImageRow] = (), name: str = "classes", *, score: str = "miou") -> Table:
    """Scores of each class with their 95 % intervals, and in how many images it is annotated; in the data set's order.

    Args:
        result: of a cell.
        rows: of its images; without them the number of images is blank.
        name: of the table.
        score: that stands first, if it has scores of classes.
    """
    columns, lines = [Column("class")], [[name] for name in result.class_names]
    metrics = class_metrics(result, score)
    for metric in metrics:
        per_class, intervals = result.scores[metric.name].per_class, class_intervals(result, rows, metric)
        interval = "95 % interval" if len(columns) == 1 else "its 95 % interval"
        columns += number_columns(metric.class_heading or metric.heading, interval)
        for line in lines:
            line += [metric.text(per_class[line[0]]), interval_text(intervals[line[0]], metric)]
    blank = [metric for metric in metrics if metric.name == "miou" and None in result.scores["miou"].per_class.values()]
    notes = ["IoU –: neither annotated nor predicted"] if blank else []
    notes += [NO_INTERVAL] if any(line[1] != "–" and line[2] == "–" for line in lines) else []
    images = image_table(rows).images_per_class().tolist() if rows else [""] * len(lines)
    cells = tuple((*line, str(annotated)) for line, annotated in zip(lines, images, strict=True))
    title = f"Classes of {public_text(result.dataset.name)}"
    return Table(name, title, (*columns, *number_columns("images")), cells, tuple(notes))


def class_intervals(result: Result, rows: Sequence[ImageRow], metric: Metric) -> dict[str, tuple[float, float] | None]:
    """95 % interval of each class; of the oldest results they are computed from their rows.

    Args:
        result: of a cell.
        rows: of its images, if they are known. A class annotated in too few of them has no interval.
        metric: one with scores of classes.
    """
    known = result.scores[metric.name].per_class_ci95
    if rows and not known:
        scores = summarise(rows, result.class_names, result.protocol, result.environment.seed)
        known = scores[metric.name].per_class_ci95
    images = (
        image_table(rows).images_per_class().tolist() if rows else [scored_images(result)] * len(result.class_names)
    )
    few = {name for name, count in zip(result.class_names, images, strict=True) if count < FEWEST_IMAGES}
    return {name: None if name in few else known.get(name) for name in result.class_names}


def ranked_images(rows: Sequence[ImageRow], leading: Metric | None = None) -> list[tuple[ImageRow, float]]:
    """Images with their own scores (`ImageScore`), best first; images without a score are left out."""
    metric = ImageScore.of(leading or leading_metric()).metric
    images = image_table(rows) if rows else None
    if images is None or (metric.measure is not None and metric.name not in images.measured):
        return []
    told = [(row, score) for row, score in zip(rows, metric.of_each(images).tolist(), strict=True) if score == score]
    return sorted(told, key=lambda pair: (-metric.merit(pair[1]), pair[0].index))


def rank_table(
    rows: Sequence[ImageRow], shown: int = 5, name: str = "images", *, leading: Metric | None = None
) -> Table:
    """The best and the worst images of a cell by the metric that leads."""
    by = ImageScore.of(leading or leading_metric())
    ranked = [(str(rank), row, score) for rank, (row, score) in enumerate(ranked_images(rows, leading), 1)]
    chosen = ranked if len(ranked) <= 2 * shown else [*ranked[:shown], *ranked[len(ranked) - shown :]]
    lines = tuple((rank, row.id, by.metric.text(score), str(row.segments)) for rank, row, score in chosen)
    columns = (*number_columns("rank"), Column("image"), *number_columns(by.heading, "segments"))
    return Table(name, "Best and worst images", columns, lines, (by.about,))


def choose_images(
    rows: Sequence[ImageRow], each: int, leading: Metric | None = None
) -> list[tuple[str, list[tuple[ImageRow, float]]]]:
    """The best, the median and the worst images with their scores, best first; none twice, none without a score.

    Args:
        rows: of a cell.
        each: how many of each kind, as far as there are so many.
        leading: metric that they are ranked by; None: mIoU.
    """
    ranked = ranked_images(rows, leading)
    best, rest = ranked[:each], ranked[each:]
    left = max(len(rest) - each, 0)
    worst, rest = rest[left:], rest[:left]
    first = max(left - each + 1, 0) // 2
    median = rest[first : first + each]
    return [(kind, images) for kind, images in (("best", best), ("median", median), ("worst", worst)) if images]


def difference_texts(metric: Metric, found: PairedDifference, column: int, name: str, images: int) -> tuple[str, ...]:
    """A name, both scores, their difference, its interval and p; no interval and no p of too few images.

    Args:
        metric: whose scores they are.
        found: the score and that of each class.
        column: 0 for the score, from 1 on for the classes.
        name: of the line.
        images: that the score is of.
    """
    texts = [metric.text(each[column].item()) for each in (found.first, found.second, found.difference)]
    interval = interval_text(found.interval[:, column].tolist() if images >= FEWEST_IMAGES else None, metric)
    p_value = found.p_value[column].item()
    least = p_value < 0.00051  # in single precision the least p of 2000 resamples is a little more than 0.0005
    return name, *texts, interval, "–" if interval == "–" else "≤ 0.0005" if least else f"{p_value:.3f}"


def common_images(cells: Sequence[Sequence[ImageRow]]) -> list[list[ImageRow]]:
    """Each cell's rows of the images that all of them have, in the order of the first."""
    by_id = [{row.id: row for row in rows} for rows in cells]
    shared = [row.id for row in cells[0] if all(row.id in own for own in by_id)]
    return [[own[name] for name in shared] for own in by_id]
