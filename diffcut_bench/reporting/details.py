"""One cell in detail: its classes, its images."""

from collections.abc import Sequence

import torch
from torch import Tensor

from diffcut_bench.evaluation import Counts, image_scores
from diffcut_bench.reporting.tables import Column, Table, interval_text, percent
from diffcut_bench.store import ImageRow, Result


def class_table(result: Result, name: str = "classes") -> Table:
    """IoU of each class in % with its 95 % interval, in the data set's order."""
    metrics = result.metrics
    rows = tuple(
        (
            each,
            "–" if iou is None else percent(iou),
            interval_text(metrics.iou_per_class_ci95.get(each)),
        )
        for each, iou in metrics.iou_per_class.items()
    )
    columns = (Column("class"), Column("IoU", numeric=True), Column("95 % interval", numeric=True))
    notes = ("–: neither annotated nor predicted",) if None in metrics.iou_per_class.values() else ()
    return Table(name, f"Classes of {result.dataset.name}", columns, rows, notes)


def ranked_images(rows: Sequence[ImageRow]) -> list[tuple[ImageRow, float]]:
    """Images with the mean IoU of their own classes, best first; images without a score are left out."""
    scores = image_scores(row_counts(rows)).tolist()
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
