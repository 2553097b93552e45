"""One cell in detail: its scores, its classes, its images."""

from collections.abc import Sequence

from diffcut_bench.evaluation import FEWEST_IMAGES, known_metrics
from diffcut_bench.reporting.tables import NO_INTERVAL, Column, Table, interval_text, percent, scored_images
from diffcut_bench.scoring.summary import image_table, summarise
from diffcut_bench.store import ImageRow, Result

ABOUT_IMAGES = "mIoU of an image: the mean over the classes annotated or predicted in it"


def score_facts(result: Result) -> dict[str, str]:
    """Every score with its 95 % interval, by the metric's heading."""
    return {
        metric.heading: f"{metric.text(result.scores[name].value)} "
        f"[{interval_text(result.scores[name].ci95, scored_images(result), metric)}]"
        for name, metric in known_metrics().items()
        if name in result.scores
    }


def class_table(result: Result, rows: Sequence[ImageRow] = (), name: str = "classes") -> Table:
    """Scores of each class with their 95 % intervals, and in how many images it is annotated; in the data set's order.

    Args:
        result: of a cell.
        rows: of its images; without them the number of images is blank.
        name: of the table.
    """
    classes = result.class_names
    images = image_table(rows).images_per_class().tolist() if rows else [scored_images(result)] * len(classes)
    columns, lines = [Column("class")], [[each] for each in classes]
    for metric in known_metrics().values():
        if metric.name not in result.scores or not result.scores[metric.name].per_class:
            continue
        intervals = class_intervals(result, rows, metric.name)
        headings = (
            metric.class_heading or metric.heading,
            "95 % interval" if len(columns) == 1 else "its 95 % interval",
        )
        columns += [Column(each, numeric=True) for each in headings]
        for line, each, annotated in zip(lines, classes, images, strict=True):
            line += [
                metric.text(result.scores[metric.name].per_class[each]),
                interval_text(intervals[each], annotated, metric),
            ]
    notes = ["IoU –: neither annotated nor predicted"] if None in result.scores["miou"].per_class.values() else []
    notes += [NO_INTERVAL] if any(line[1] != "–" and line[2] == "–" for line in lines) else []
    columns.append(Column("images", numeric=True))
    cells = tuple((*line, str(annotated) if rows else "") for line, annotated in zip(lines, images, strict=True))
    return Table(name, f"Classes of {result.dataset.name}", tuple(columns), cells, tuple(notes))


def class_intervals(
    result: Result, rows: Sequence[ImageRow], metric: str = "miou"
) -> dict[str, tuple[float, float] | None]:
    """95 % interval of each class; of the oldest results they are computed from their rows.

    Args:
        result: of a cell.
        rows: of its images; if there are any, a class annotated in too few of them has no interval.
        metric: by name, one with scores of classes.
    """
    known = result.scores[metric].per_class_ci95
    if rows and not known:
        known = summarise(rows, result.class_names, result.protocol, result.environment.seed)[metric].per_class_ci95
    images = image_table(rows).images_per_class().tolist() if rows else [FEWEST_IMAGES] * len(result.class_names)
    return {
        name: known.get(name) if annotated >= FEWEST_IMAGES else None
        for name, annotated in zip(result.class_names, images, strict=True)
    }


def ranked_images(rows: Sequence[ImageRow]) -> list[tuple[ImageRow, float]]:
    """Images with the mean IoU of their own classes, best first; images without a score are left out."""
    scores = known_metrics()["jaccard"].of_each(image_table(rows)).tolist() if rows else []
    told = [(row, score) for row, score in zip(rows, scores, strict=True) if score == score]
    return sorted(told, key=lambda pair: (-pair[1], pair[0].index))


def rank_table(rows: Sequence[ImageRow], shown: int = 5, name: str = "images") -> Table:
    """The best and the worst images of a cell."""
    ranked = ranked_images(rows)
    ranks = range(len(ranked))
    chosen = dict.fromkeys([*ranks[:shown], *ranks[max(len(ranks) - shown, 0) :]])
    lines = tuple(
        (str(rank + 1), row.id, percent(score), str(row.segments))
        for rank, (row, score) in ((rank, ranked[rank]) for rank in chosen)
    )
    columns = (
        Column("rank", numeric=True),
        Column("image"),
        Column("mIoU", numeric=True),
        Column("segments", numeric=True),
    )
    return Table(name, "Best and worst images", columns, lines, (ABOUT_IMAGES,))


def common_images(cells: Sequence[Sequence[ImageRow]]) -> list[list[ImageRow]]:
    """Each cell's rows of the images that all of them have, in the order of the first."""
    by_id = [{row.id: row for row in rows} for rows in cells]
    shared = [row.id for row in cells[0] if all(row.id in own for own in by_id)]
    return [[own[name] for name in shared] for own in by_id]
