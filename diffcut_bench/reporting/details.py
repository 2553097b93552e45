"""One cell in detail: its classes, its images."""

from collections.abc import Sequence

import torch
from torch import Tensor

from diffcut_bench.evaluation import Counts, ImageCounts, image_scores, images_per_class
from diffcut_bench.reporting.tables import NO_INTERVAL, Column, Table, interval_text, percent, scored_images
from diffcut_bench.store import ImageRow, Result


def class_table(result: Result, rows: Sequence[ImageRow] = (), name: str = "classes") -> Table:
    """IoU of each class in % with its 95 % interval, and in how many images it is annotated; in the data set's order.

    Args:
        result: of a cell.
        rows: of its images; without them the number of images is blank.
        name: of the table.
    """
    metrics = result.metrics
    images = images_per_class(row_counts(rows)).tolist() if rows else []
    lines = []
    for place, (each, iou) in enumerate(metrics.iou_per_class.items()):
        annotated = images[place] if images else scored_images(result)
        interval = interval_text(metrics.iou_per_class_ci95.get(each), annotated)
        lines.append((each, "–" if iou is None else percent(iou), interval, str(annotated) if images else ""))
    columns = (Column("class"), *(Column(each, numeric=True) for each in ("IoU", "95 % interval", "images")))
    notes = ["IoU –: neither annotated nor predicted"] if None in metrics.iou_per_class.values() else []
    notes += [NO_INTERVAL] if any(line[1] != "–" and line[2] == "–" for line in lines) else []
    return Table(name, f"Classes of {result.dataset.name}", columns, tuple(lines), tuple(notes))


def ranked_images(rows: Sequence[ImageRow]) -> list[tuple[ImageRow, float]]:
    """Images with the mean IoU of their own classes, best first; images without a score are left out."""
    scores = image_scores(row_counts(rows)).tolist() if rows else []
    told = [(row, score) for row, score in zip(rows, scores, strict=True) if score == score]
    return sorted(told, key=lambda pair: (-pair[1], pair[0].index))


def image_table(rows: Sequence[ImageRow], shown: int = 5, name: str = "images") -> Table:
    """The best and the worst images of a cell."""
    ranked = ranked_images(rows)
    places = range(len(ranked))
    chosen = dict.fromkeys([*places[:shown], *places[max(len(places) - shown, 0) :]])
    lines = tuple(
        (str(place + 1), row.id, percent(score), str(row.segments))
        for place, (row, score) in ((place, ranked[place]) for place in chosen)
    )
    columns = (Column("rank", numeric=True), Column("image"), *(Column(n, numeric=True) for n in ("mIoU", "segments")))
    note = "mIoU of an image: the mean over the classes annotated or predicted in it"
    return Table(name, "Best and worst images", columns, lines, (note,))


def row_counts(rows: Sequence[ImageRow]) -> Counts:
    """TP, FP, FN [images × classes] of rows."""

    def stacked(name: str) -> Tensor:
        return torch.tensor([getattr(row, name) for row in rows])

    return Counts(stacked("tp"), stacked("fp"), stacked("fn"))


def common_images(cells: Sequence[Sequence[ImageRow]]) -> list[list[ImageRow]]:
    """Each cell's rows of the images that all of them have, in the order of the first."""
    by_id = [{row.id: row for row in rows} for rows in cells]
    shared = [row.id for row in cells[0] if all(row.id in own for own in by_id)]
    return [[own[name] for name in shared] for own in by_id]


def counts_of(rows: Sequence[ImageRow], result: Result) -> ImageCounts:
    """The metric of a cell with some of its rows, in their order."""
    metric = ImageCounts(len(result.metrics.iou_per_class), result.protocol.get("absent_classes", "nan"))
    for place, row in enumerate(rows):
        metric.update(place, Counts(*(torch.tensor(c) for c in (row.tp, row.fp, row.fn))), row.pixels)
    return metric
