"""From the rows of all images to what a result says of them: scores, coverage of the labels, segments."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from statistics import fmean, stdev
from typing import Any

import torch

from diffcut_bench.errors import UserError
from diffcut_bench.evaluation import (
    Counts,
    ImageTable,
    Protocol,
    count_matches_together,
    known_metrics,
    score_images,
)
from diffcut_bench.linking import Entries, KMeansLinker, count_linked
from diffcut_bench.store import DatasetRecord, ImageRow, Linking, Score, SegmentsPerImage, Timings


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
    found = score_images(image_table(rows), choices, seed=seed)
    return {name: score_of(*estimate, class_names) for name, estimate in found.items()}


def score_of(scores: torch.Tensor, interval: torch.Tensor, images: int, class_names: Sequence[str] = ()) -> Score:
    """A `ScoreEstimate` as result.json has it, which knows no NaN and no infinity."""
    value, *per_class = (each if math.isfinite(each) else None for each in scores.tolist())
    ends, *class_ends = ((low, high) if math.isfinite(high - low) else None for low, high in interval.T.tolist())
    names = class_names if per_class else ()
    return Score(
        value, ends, dict(zip(names, per_class, strict=True)), dict(zip(names, class_ends, strict=True)), images
    )


def image_table(rows: Sequence[ImageRow]) -> ImageTable:
    """What metrics make their statistics from; what was not measured on all images is left out."""
    tp, fp, fn = (torch.tensor([getattr(row, name) for row in rows], dtype=torch.long) for name in Counts._fields)
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


def count_rows(
    rows: Sequence[ImageRow], num_classes: int, protocol: Protocol, linker: KMeansLinker | None
) -> tuple[list[ImageRow], Linking | None]:
    """Rows of a whole cell with their counts. Of linked segments these are sums over the clusterings, in which each
    counts alike; what each of them gave is told beside.

    Raises:
        UserError: a row has no prototypes that can be compared with the others'.
    """
    if linker is None:
        return match_rows(rows, num_classes, protocol), None
    prototypes, entries = _linkable(rows)
    clusterings = linker(prototypes, num_classes)
    size = (len(rows), num_classes)
    counted = [count_linked(entries, linked, *size, **protocol.assignment) for linked in clusterings]
    miou, absent = known_metrics()["miou"], protocol.absent_classes
    pixels, segments = (torch.tensor([getattr(row, name) for row in rows]) for name in ("pixels", "segments"))
    scores = []
    for counts in counted:
        sums = miou.statistics(ImageTable(*counts, pixels, segments)).sum(dim=0)
        scores.append(float(miou.scores(sums, absent)[0]))
    told = Linking(
        clusters=linker.clusters or num_classes,
        seeds=len(scores),
        segments=len(prototypes),
        miou=scores,
        mean=fmean(scores),
        deviation=stdev(scores) if len(scores) > 1 else None,
    )
    tp, fp, fn = (torch.stack(of_each).sum(dim=0).tolist() for of_each in zip(*counted, strict=True))
    return [replace(row, tp=tp[i], fp=fp[i], fn=fn[i]) for i, row in enumerate(rows)], told


def _linkable(rows: Sequence[ImageRow]) -> tuple[torch.Tensor, Entries]:
    """Prototypes [segments, channels] of all rows, and the entries of their tables."""
    prototypes: list[torch.Tensor] = []
    entries: list[tuple[int, int, int, int]] = []
    first = 0
    try:
        for image, row in enumerate(rows):
            own = row.unpack_prototypes()
            numbers = sorted({cluster for _, cluster, _ in row.table or ()})
            places = {cluster: first + place for place, cluster in enumerate(numbers)}
            entries += [(image, class_id, places[cluster], pixels) for class_id, cluster, pixels in row.table or ()]
            prototypes += [torch.from_numpy(own.copy())] if len(own) else []
            first += len(own)
        return torch.cat(prototypes), Entries(*torch.tensor(entries).T)
    except (ValueError, RuntimeError) as error:
        hint = "if_exists=overwrite computes the cell again"
        raise UserError(f"segments can't be linked: {error}", "per_image.parquet", hint) from error


def summarise_cell(
    rows: Sequence[ImageRow],
    record: DatasetRecord,
    class_names: Sequence[str],
    protocol: Protocol,
    seed: int,
    timings: Timings,
    linking: Linking | None = None,
) -> dict[str, Any]:
    """What follows from the rows of a whole cell.

    Args:
        rows: of all images, at least one, with their counts (`count_rows`).
        record: of the data set; what the rows say of its labels is added.
        class_names: of the data set.
        protocol: in force.
        seed: of the bootstrap.
        timings: of all that was done.
        linking: of its segments, if there is a linker.

    Returns:
        Fields of the `Result` by name.
    """
    void = [row.void for row in rows if row.void is not None]
    pixels = sum(void) + sum(row.pixels for row in rows)
    annotated = image_table(rows).images_per_class().tolist()
    segments = [row.segments for row in rows]
    return {
        "limited": record.n_images < max(record.n_available or 0, record.n_expected or 0),
        "dataset": replace(
            record,
            void_share=sum(void) / pixels if len(void) == len(rows) and pixels else None,
            unannotated=[name for name, count in zip(class_names, annotated, strict=True) if not count],
        ),
        "scores": summarise(rows, class_names, asdict(protocol), seed),
        "segments_per_image": SegmentsPerImage(sum(segments) / len(segments), min(segments), max(segments)),
        "linking": linking,
        "timings": replace(timings, images_per_s=len(rows) / timings.wall_s if timings.wall_s else 0.0),
    }
