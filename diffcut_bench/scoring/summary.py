"""From the rows of all images to what a result says of them: scores, coverage of the labels, segments."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from diffcut_bench.errors import UserError
from diffcut_bench.evaluation import Counts, ImageTable, Protocol, count_matches_together, score_images
from diffcut_bench.store import DatasetRecord, ImageRow, Score, SegmentsPerImage


def summarise(
    rows: Sequence[ImageRow], class_names: Sequence[str], choices: Mapping[str, Any], seed: int
) -> dict[str, Score]:
    """Data-set scores and intervals of per-image rows, by the metric's name.

    Args:
        rows: at least one.
        class_names: of the data set.
        choices: of the protocol, by name.
        seed: of the bootstrap.

    Raises:
        UserError: a metric measured more numbers of some images than of others.
    """
    for name in rows[0].measured:
        widths = {len(row.measured[name] or ()) for row in rows if row.measured.get(name) is not None}
        if len(widths) > 1:
            what = f"the metric {name} measured {' and '.join(map(str, sorted(widths)))} numbers of an image"
            raise UserError(what, "evaluation/metrics", "mend it, then score the images again: if_exists=overwrite")
    found = {}
    for name, (scores, interval) in score_images(image_table(rows), choices, seed=seed).items():
        # JSON has no NaN and no infinity.
        value, *per_class = (each if math.isfinite(each) else None for each in scores.tolist())
        ends, *class_ends = ((low, high) if math.isfinite(high - low) else None for low, high in interval.T.tolist())
        names = class_names if per_class else ()
        found[name] = Score(
            value, ends, dict(zip(names, per_class, strict=True)), dict(zip(names, class_ends, strict=True))
        )
    return found


def image_table(rows: Sequence[ImageRow]) -> ImageTable:
    """What metrics make their statistics from; what was not measured on all images is left out."""
    tp, fp, fn = (torch.tensor([getattr(row, name) for row in rows]) for name in Counts._fields)
    pixels, segments = (torch.tensor([getattr(row, name) for row in rows]) for name in ("pixels", "segments"))
    measured = {}
    for name in rows[0].measured:
        statistics = [row.measured.get(name) or [] for row in rows]
        if statistics[0] and len({*map(len, statistics)}) == 1:
            measured[name] = torch.tensor(statistics, dtype=torch.float64)
    return ImageTable(tp, fp, fn, pixels, segments, measured)


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
