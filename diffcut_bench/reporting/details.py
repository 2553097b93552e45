"""One cell in detail: its scores, its classes, its images."""

from collections.abc import Sequence

from diffcut_bench.evaluation import FEWEST_IMAGES, Metric, known_metrics
from diffcut_bench.reporting.tables import NO_INTERVAL, Column, Table, interval_text, number_columns, scored_images
from diffcut_bench.scoring.summary import image_table, summarise
from diffcut_bench.store import ImageRow, Result

ABOUT_IMAGES = "mIoU of an image: the mean over the classes annotated or predicted in it"


def image_metric() -> Metric:
    """The metric that images are ranked by."""
    return known_metrics()["jaccard"]


def class_table(result: Result, rows: Sequence[ImageRow] = (), name: str = "classes") -> Table:
    """Scores of each class with their 95 % intervals, and in how many images it is annotated; in the data set's order.

    Args:
        result: of a cell.
        rows: of its images; without them the number of images is blank.
        name: of the table.
    """
    columns, lines = [Column("class")], [[name] for name in result.class_names]
    for metric in known_metrics().values():
        score = result.scores.get(metric.name)
        if score is None or not score.per_class or not metric.in_tables:
            continue
        intervals = class_intervals(result, rows, metric)
        interval = "95 % interval" if len(columns) == 1 else "its 95 % interval"
        columns += number_columns(metric.class_heading or metric.heading, interval)
        for line in lines:
            line += [metric.text(score.per_class[line[0]]), interval_text(intervals[line[0]], metric)]
    notes = ["IoU –: neither annotated nor predicted"] if None in result.scores["miou"].per_class.values() else []
    notes += [NO_INTERVAL] if any(line[1] != "–" and line[2] == "–" for line in lines) else []
    images = image_table(rows).images_per_class().tolist() if rows else [""] * len(lines)
    cells = tuple((*line, str(annotated)) for line, annotated in zip(lines, images, strict=True))
    title = f"Classes of {result.dataset.name}"
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


def ranked_images(rows: Sequence[ImageRow]) -> list[tuple[ImageRow, float]]:
    """Images with the mean IoU of their own classes, best first; images without a score are left out."""
    scores = image_metric().of_each(image_table(rows)).tolist() if rows else []
    told = [(row, score) for row, score in zip(rows, scores, strict=True) if score == score]
    return sorted(told, key=lambda pair: (-pair[1], pair[0].index))


def rank_table(rows: Sequence[ImageRow], shown: int = 5, name: str = "images") -> Table:
    """The best and the worst images of a cell."""
    ranked = [(str(rank), row, score) for rank, (row, score) in enumerate(ranked_images(rows), 1)]
    chosen = ranked if len(ranked) <= 2 * shown else [*ranked[:shown], *ranked[len(ranked) - shown :]]
    lines = tuple((rank, row.id, image_metric().text(score), str(row.segments)) for rank, row, score in chosen)
    columns = (*number_columns("rank"), Column("image"), *number_columns("mIoU", "segments"))
    return Table(name, "Best and worst images", columns, lines, (ABOUT_IMAGES,))


def choose_images(rows: Sequence[ImageRow], each: int) -> list[tuple[str, list[tuple[ImageRow, float]]]]:
    """The best, the median and the worst images with their scores, best first; none twice, none without a score.

    Args:
        rows: of a cell.
        each: how many of each kind, as far as there are so many.
    """
    ranked = ranked_images(rows)
    best, rest = ranked[:each], ranked[each:]
    left = max(len(rest) - each, 0)
    worst, rest = rest[left:], rest[:left]
    first = max(left - each + 1, 0) // 2
    median = rest[first : first + each]
    return [(kind, images) for kind, images in (("best", best), ("median", median), ("worst", worst)) if images]


def common_images(cells: Sequence[Sequence[ImageRow]]) -> list[list[ImageRow]]:
    """Each cell's rows of the images that all of them have, in the order of the first."""
    by_id = [{row.id: row for row in rows} for rows in cells]
    shared = [row.id for row in cells[0] if all(row.id in own for own in by_id)]
    return [[own[name] for name in shared] for own in by_id]
