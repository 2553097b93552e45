"""Which share of a cell's time the metrics take that look at each image: ``make bench ARGS="--metrics"``."""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import machine, print_table, write_record
from benchmarks.timing import timed
from diffcut_bench.commands.terminal import say
from diffcut_bench.config import load_config
from diffcut_bench.evaluation import (
    ScoredImage,
    assign_clusters,
    contingency_tables,
    count_boundaries,
    known_metrics,
)
from diffcut_bench.scoring.passes import open_pass, run_cell
from diffcut_bench.scoring.pipeline import Outcome

_REPEATS = 5


def run(options: argparse.Namespace) -> None:
    """Score a cell, with features that are computed and with stored ones; time its metrics on what it scored, on the
    processor; print a table and write metrics.json.

    Args:
        options: ``overrides`` and the number of ``images``.
    """
    config = load_config(options.overrides)
    with tempfile.TemporaryDirectory() as folder:
        scratch = [f"output_dir={folder}", f"data_dir={config.data_dir}", f"limit={options.images}"]
        scratch += ["if_exists=overwrite", "visualise=0", "features=store", "device=cpu"]
        measured = load_config([*options.overrides, *scratch])
        walls = {name: run_cell(measured).result.timings.wall_s for name in ("computed", "stored")}
        cell = open_pass(measured).cell(measured)
        outcomes = list(cell.first_outcomes(options.images))
    dataset, protocol = cell.dataset, cell.pipeline.protocol
    seconds = measure_metrics(outcomes, config.batch_size, dataset.num_classes, dataset.background, protocol.assignment)
    seconds["all"] = sum(seconds.values())
    rows: list[dict[str, Any]] = [
        {"what": what, "ms_an_image": 1e3 * own / len(outcomes)}
        | {f"share_{name}": own / wall for name, wall in walls.items()}
        for what, own in seconds.items()
    ]
    print_table(
        rows,
        "what ms_an_image:.3f share_computed:.2% share_stored:.2%",
        f"{len(outcomes)} images of {dataset.name}; share: of the cell's time, its features computed or stored",
        "boundaries: they are counted once for boundary F and boundary IoU",
    )
    path = Path(config.output_dir) / "bench" / "metrics.json"
    write_record(path, {"schema_version": 1, "machine": machine(torch.device("cpu")), "rows": rows})
    say(f"record   {path}")


def measure_metrics(
    outcomes: Sequence[Outcome], batch_size: int, classes: int, background: int | None, assignment: dict[str, Any]
) -> dict[str, float]:
    """Seconds, least of some repeats, that metrics take for all images together; by name.

    Args:
        outcomes: of at least one image, on the host.
        batch_size: images whose boundaries are counted at once, as far as they are of one size.
        classes, background: of the data set.
        assignment: the protocol's choices of the matching.
    """
    batches = []
    for _, group in groupby(outcomes, key=lambda outcome: outcome.example.label.shape):
        alike = list(group)
        batches += [alike[start : start + batch_size] for start in range(0, len(alike), batch_size)]
    images: list[ScoredImage] = []
    counting: list[Callable[[], object]] = []
    for batch in batches:
        prediction = torch.stack([outcome.prediction for outcome in batch])
        labels = torch.stack([outcome.example.label for outcome in batch])
        tables = contingency_tables(prediction, labels, classes)
        clusters = max(table.shape[1] for table in tables)
        count = partial(count_boundaries, prediction, labels[:, None], classes, clusters)
        counting.append(count)
        for i, (table, (boundaries,)) in enumerate(zip(tables, count(), strict=True)):
            matched = assign_clusters(table, **assignment)
            images.append(ScoredImage(prediction[i], labels[i], table, background, matched, boundaries))
    works: dict[str, Callable[[], object]] = {"boundaries": lambda: [count() for count in counting]}
    for name, metric in known_metrics().items():
        if metric.measure is not None:
            works[name] = partial(_each, metric.measure, images)
    return {name: one.least for name, one in zip(works, timed([*works.values()], _REPEATS), strict=True)}


def _each(measure: Callable[[ScoredImage], object], images: Sequence[ScoredImage]) -> None:
    for image in images:
        measure(image)
