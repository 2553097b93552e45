"""From the rows of all images to what a result says of them: scores, coverage of the labels, segments."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from diffcut_bench.errors import UserError
from diffcut_bench.evaluation import Counts, ImageTable, Protocol, count_matches_together, score_images
from diffcut_bench.store import DatasetRecord, ImageRow, Score, SegmentsPerImage, Timings


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
    for name, (scores, interval, n) in score_images(image_table(rows), choices, seed=seed).items():
        # JSON has no NaN and no infinity.
        value, *per_class = (each if math.isfinite(each) else None for each in scores.tolist())
        ends, *class_ends = ((low, high) if math.isfinite(high - low) else None for low, high in interval.T.tolist())
        names = class_names if per_class else ()
        found[name] = Score(
            value, ends, dict(zip(names, per_class, strict=True)), dict(zip(names, class_ends, strict=True)), n
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
    """Rows with their counts: under ``matching=dataset`` after one matching of clusters to classes for all of them."""
    if protocol.matching != "dataset":
        return list(rows)
    clusters = max((entry[1] + 1 for row in rows for entry in row.table or ()), default=0)
    tables = []
    for row in rows:
        table = torch.zeros(num_classes, max(num_classes, clusters), dtype=torch.long)
        for class_id, cluster, pixels in row.table or ():
            table[class_id, cluster] = pixels
        tables.append(table)
    counts = count_matches_together(tables, **protocol.assignment)
    return [
        replace(row, tp=tp.tolist(), fp=fp.tolist(), fn=fn.tolist())
        for row, (tp, fp, fn) in zip(rows, counts, strict=True)
    ]


def summarise_cell(
    rows: Sequence[ImageRow],
    record: DatasetRecord,
    class_names: Sequence[str],
    protocol: Protocol,
    seed: int,
    timings: Timings,
) -> tuple[list[ImageRow], dict[str, Any]]:
    """What follows from the rows of a whole cell.

    Args:
        rows: of all images, at least one.
        record: of the data set; what the rows say of its labels is added.
        class_names: of the data set.
        protocol: in force.
        seed: of the bootstrap.
        timings: of all that was done.

    Returns:
        The rows with their counts, and fields of the `Result` by name.
    """
    rows = match_rows(rows, len(class_names), protocol)
    void = [row.void for row in rows if row.void is not None]
    pixels = sum(void) + sum(row.pixels for row in rows)
    annotated = image_table(rows).images_per_class().tolist()
    segments = [row.segments for row in rows]
    return rows, {
        "limited": record.n_images < max(record.n_available or 0, record.n_expected or 0),
        "dataset": replace(
            record,
            void_share=sum(void) / pixels if len(void) == len(rows) and pixels else None,
            unannotated=[name for name, count in zip(class_names, annotated, strict=True) if not count],
        ),
        "scores": summarise(rows, class_names, asdict(protocol), seed),
        "segments_per_image": SegmentsPerImage(sum(segments) / len(segments), min(segments), max(segments)),
        "timings": replace(timings, images_per_s=len(rows) / timings.wall_s if timings.wall_s else 0.0),
    }
