"""From the rows of all images to what a result says of them: scores, coverage of the labels, segments."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from diffcut_bench.evaluation import Counts, ImageCounts, Protocol, count_matches_together, mean_image_jaccard
from diffcut_bench.store import DatasetRecord, ImageRow, Metrics, SegmentsPerImage


def summarise(rows: Sequence[ImageRow], class_names: tuple[str, ...], protocol: Protocol, seed: int) -> Metrics:
    """Data-set scores and intervals of per-image rows."""
    # The rows are of all processes already.
    metric = ImageCounts(len(class_names), protocol.absent_classes, seed=seed, sync_on_compute=False)
    for row in rows:
        metric.update(row.index, Counts(*(torch.tensor(c) for c in (row.tp, row.fp, row.fn))), row.pixels)
    scores = metric.compute()
    # torchmetrics squeezes what has one element: a single class.
    iou = [None if value != value else value for value in scores["iou_per_class"].reshape(-1).tolist()]
    low, high = scores["miou_ci95"].tolist()
    accuracy_low, accuracy_high = scores["pixel_accuracy_ci95"].tolist()
    by_class = [None if low != low else (low, high) for low, high in scores["iou_per_class_ci95"].T.tolist()]
    jaccard = mean_image_jaccard(metric.table()[2], seed=seed) if protocol.matching == "named" else (None, None)
    return Metrics(
        miou=scores["miou"].item(),
        pixel_accuracy=scores["pixel_accuracy"].item(),
        miou_ci95=(low, high),
        pixel_accuracy_ci95=(accuracy_low, accuracy_high),
        iou_per_class=dict(zip(class_names, iou, strict=True)),
        iou_per_class_ci95=dict(zip(class_names, by_class, strict=True)),
        mean_image_jaccard=jaccard[0],
        mean_image_jaccard_ci95=jaccard[1],
    )


def match_rows(rows: Sequence[ImageRow], num_classes: int, protocol: Protocol) -> list[ImageRow]:
    """Rows with their counts, after one matching of clusters to classes for all of them."""
    clusters = max((entry[1] + 1 for row in rows for entry in row.table or ()), default=0)
    tables = []
    for row in rows:
        table = torch.zeros(num_classes, max(num_classes, clusters), dtype=torch.long)
        for class_id, cluster, pixels in row.table or ():
            table[class_id, cluster] = pixels
        tables.append(table)
    counts = count_matches_together(tables, protocol.criterion, protocol.surplus)
    return [
        replace(row, tp=tp.tolist(), fp=fp.tolist(), fn=fn.tolist())
        for row, (tp, fp, fn) in zip(rows, counts, strict=True)
    ]


def segments_per_image(rows: Sequence[ImageRow]) -> SegmentsPerImage:
    """Mean, least and most segments of an image."""
    counts = [row.segments for row in rows]
    return SegmentsPerImage(mean=sum(counts) / len(counts), min=min(counts), max=max(counts))


def with_coverage(record: DatasetRecord, rows: Sequence[ImageRow], class_names: Sequence[str]) -> DatasetRecord:
    """The record with what the rows say of the labels: the share that is void, and classes that never occur."""
    void = [row.void for row in rows if row.void is not None]
    pixels = sum(void) + sum(row.pixels for row in rows)
    share = None if len(void) < len(rows) or not pixels else sum(void) / pixels
    annotated = [sum(row.tp[i] + row.fn[i] for row in rows) for i in range(len(class_names))]
    never = [name for name, count in zip(class_names, annotated, strict=True) if not count]
    return replace(record, void_share=share, unannotated=never)
