"""One cell: from a checked config to a finished folder with result.json, resumable at any moment."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from diffcut_bench.config import RunConfig, build_protocol, instantiate
from diffcut_bench.datasets import Benchmark, SegmentationDataset, open_benchmark
from diffcut_bench.environment import choose_device, environment
from diffcut_bench.errors import UserError
from diffcut_bench.evaluation import Counts, ImageCounts, Protocol
from diffcut_bench.features import FeatureSource, backbone_identity, open_source
from diffcut_bench.pipeline import Outcome, Pipeline, score_images
from diffcut_bench.store import (
    Cell,
    DatasetRecord,
    Failure,
    ImageRow,
    Metrics,
    Result,
    SegmentsPerImage,
    Timings,
    cell_key,
    in_units,
)

# Raise when a change of ours changes numbers, so that old results are not taken for new ones.
NUMERICS_VERSION = 1

Draw = Callable[[Outcome, SegmentationDataset, Path], None]
Report = Callable[[int, int], None]
Say = Callable[[str], None]


@dataclass(frozen=True)
class FinishedCell:
    """Where a cell lies, its result, and whether it had been finished before."""

    folder: Path
    result: Result
    skipped: bool


def run_cell(
    config: RunConfig,
    draw: Draw | None = None,
    report: Report | None = None,
    preparing: Report | None = None,
    say: Say = lambda line: None,
) -> FinishedCell:
    """Score one cell, or find it finished; an interrupted one goes on where it was.

    Args:
        config: checked; see `diffcut_bench.config.load_config`.
        draw: writes the picture of an outcome to a path; needed for ``visualise`` > 0.
        report: called with images done and images in all after each batch.
        preparing: the same for pairs, while a data set is prepared first.
        say: called with a line on what the feature store is about to take, or had to compute again.

    Raises:
        UserError: an option is out of range, data or weights are missing, more than ``max_failures`` images failed,
            none could be scored, or the output folder can't be written.
    """
    protocol = _effective_protocol(config, build_protocol(config.protocol))
    if protocol.matching == "dataset":
        raise UserError(
            "matching=dataset needs cluster ids that mean the same in every image",
            f"segmenter={config.choices.get('segmenter')} numbers the segments of each image anew",
            "use protocol.matching=per_image",
        )
    device = choose_device(config.device)
    stages = {group: instantiate(group, getattr(config, group)) for group in ("segmenter", "upsampler", "refiner")}
    whole = open_dataset(config, preparing)
    dataset = whole.select(config.limit)
    indices = chosen_images(len(dataset), config.shard_of())
    if not indices:
        raise UserError(f"shard {config.shard} holds no image", f"{len(dataset)} images", "use fewer shards")
    features = open_features(config, protocol, device)
    pipeline = Pipeline(features=features, protocol=protocol, device=device, **stages)

    try:
        fingerprint = dataset.fingerprint()
    except ValueError as error:
        raise UserError(f"{error}", f"dataset={dataset.name}", "fetch or unpack this file again") from error
    key = cell_key(_identity(config, protocol, dataset, fingerprint, features))
    title = "-".join(config.choices.get(group, "own") for group in ("dataset", "backbone", "segmenter"))
    cell = Cell(Path(config.output_dir), title, key)
    finished = _find_finished(cell, config.if_exists)
    if finished is not None:
        if finished.failures:
            _check_failures(len(finished.failures), finished.failures[-1], config.max_failures)
        _draw_missing(pipeline, dataset, indices, cell.finished_dir / "pictures", config, draw)
        return FinishedCell(cell.finished_dir, finished, skipped=True)

    try:
        _score(pipeline, dataset, indices, cell, config, draw, report, say)
    finally:
        features.flush()
    if features.recomputed:
        say(f"features: {features.recomputed} of the store were damaged, and computed again")
    progress = cell.progress()
    if not progress.rows:
        first = next(iter(progress.failures.values()))
        raise UserError(
            f"no image could be scored; the first: {first.error}", first.id, "mend the data, then run again"
        )
    if not any(row.pixels for row in progress.rows):
        raise UserError(
            "no pixel could be scored: every label is void",
            f"dataset={dataset.name}, void={protocol.void}",
            "check the label values, or use protocol.void=background",
        )
    _draw_missing(pipeline, dataset, indices, cell.work_dir / "pictures", config, draw)
    wall = progress.timings.wall_s
    timings = replace(progress.timings, images_per_s=len(progress.rows) / wall if wall else 0.0)
    result = Result(
        key=key,
        config=config.to_dict(),
        limited=len(indices) < max(len(whole), whole.n_expected or 0),
        dataset=DatasetRecord(dataset.name, fingerprint, len(indices), whole.n_expected),
        metrics=summarise(progress.rows, dataset.class_names, protocol, config.seed),
        segments_per_image=SegmentsPerImage(
            mean=sum(row.segments for row in progress.rows) / len(progress.rows),
            min=min(row.segments for row in progress.rows),
            max=max(row.segments for row in progress.rows),
        ),
        failures=[progress.failures[index] for index in sorted(progress.failures)],
        timings=timings,
        environment=environment(device, config.seed, features.backbone.fingerprint().get("noise_generator", "none")),
        protocol=asdict(protocol),
    )
    cell.finish(result, progress.rows, OmegaConf.to_yaml(OmegaConf.create(config.to_dict())))
    return FinishedCell(cell.finished_dir, result, skipped=False)


def summarise(rows: list[ImageRow], class_names: tuple[str, ...], protocol: Protocol, seed: int) -> Metrics:
    """Data-set scores and intervals of per-image rows."""
    metric = ImageCounts(len(class_names), protocol.absent_classes, seed=seed)
    for row in rows:
        metric.update(row.index, Counts(*(torch.tensor(c) for c in (row.tp, row.fp, row.fn))), row.pixels)
    scores = metric.compute()
    iou = [None if value != value else value for value in scores["iou_per_class"].tolist()]
    low, high = scores["miou_ci95"].tolist()
    accuracy_low, accuracy_high = scores["pixel_accuracy_ci95"].tolist()
    return Metrics(
        miou=scores["miou"].item(),
        pixel_accuracy=scores["pixel_accuracy"].item(),
        miou_ci95=(low, high),
        pixel_accuracy_ci95=(accuracy_low, accuracy_high),
        iou_per_class=dict(zip(class_names, iou, strict=True)),
    )


def open_dataset(config: RunConfig, report: Report | None = None) -> SegmentationDataset:
    """The data set of a config: built as it is, or a published benchmark opened in its prepared form.

    Raises:
        UserError: nothing prepared and no originals, or files are missing.
    """
    built = instantiate("dataset", config.dataset)
    if isinstance(built, Benchmark):
        return open_benchmark(built, Path(config.data_dir), config.prepared, config.num_proc, report)
    return built


def open_features(config: RunConfig, protocol: Protocol, device: torch.device) -> FeatureSource:
    """The backbone of a config on its device, behind the feature store of the config.

    Raises:
        UserError: weights are missing, an option is out of range, or the store's folder holds something else.
    """
    backbone = instantiate("backbone", config.backbone).to(device)
    return open_source(backbone, config.backbone, instantiate("features", config.features), protocol, device)


def chosen_images(images: int, shard: tuple[int, int] | None) -> range:
    """Places of the images that a shard ``(i, n)`` scores: every n-th from the i-th on; all without a shard."""
    return range(images) if shard is None else range(shard[0] - 1, images, shard[1])


def _score(
    pipeline: Pipeline,
    dataset: SegmentationDataset,
    indices: Sequence[int],
    cell: Cell,
    config: RunConfig,
    draw: Draw | None,
    report: Report | None,
    say: Say,
) -> None:
    """Score what the journal does not hold yet."""
    before = cell.progress()
    done = {row.index for row in before.rows}
    failed = 0  # failures of an interrupted run are tried again
    todo = [index for index in indices if index not in done]
    # Written before any work, so that an unwritable folder costs nothing.
    cell.append([], {}, Timings())
    _announce(pipeline, dataset, todo, say)
    if report:
        report(len(done), len(indices))
    start = time.perf_counter()
    for batch in score_images(pipeline, dataset, todo, batch_size=config.batch_size, num_workers=config.num_workers):
        for outcome in batch.outcomes:
            if draw and outcome.example.index < config.visualise:
                draw(outcome, dataset, _picture(cell.work_dir / "pictures", outcome))
        # The wall clock of a batch runs from the end of the one before: reading, drawing and writing are in it.
        wall, start = time.perf_counter() - start, time.perf_counter()
        cell.append([_row(outcome) for outcome in batch.outcomes], batch.failures, replace(batch.timings, wall_s=wall))
        done |= {outcome.example.index for outcome in batch.outcomes} | set(batch.failures)
        failed += len(batch.failures)
        if report:
            report(len(done), len(indices))
        if batch.failures:
            _check_failures(failed, list(batch.failures.values())[-1], config.max_failures)


def _announce(pipeline: Pipeline, dataset: SegmentationDataset, todo: Sequence[int], say: Say) -> None:
    """What the feature store is about to take, if there is room for it."""
    features = pipeline.features
    if features.store is None:
        return
    missing = features.missing(dataset, todo)
    if missing:
        needed = features.store.check_space(missing, features.image_bytes(pipeline.protocol))
        say(
            f"features: {missing} of {len(todo)} images to compute, up to {in_units(needed)} in {features.store.folder}"
        )
    elif todo:
        say(f"features: all {len(todo)} images in {features.store.folder}")


def _check_failures(failed: int, latest: Failure, allowed: int | None) -> None:
    if allowed is not None and failed > allowed:
        raise UserError(
            f"{failed} failed, more than max_failures={allowed}; the last: {latest.error}",
            latest.id,
            "mend the data, or raise max_failures",
        )


def _find_finished(cell: Cell, if_exists: str) -> Result | None:
    if if_exists == "overwrite":
        cell.start_over()
        return None
    result = cell.result()
    if result is not None and if_exists == "resume" and result.failures:
        cell.reopen()
        return None
    return result


def _draw_missing(
    pipeline: Pipeline,
    dataset: SegmentationDataset,
    indices: Sequence[int],
    folder: Path,
    config: RunConfig,
    draw: Draw | None,
) -> None:
    """Pictures that a finished cell lacks; its numbers are left alone."""
    ids = dataset.records["id"][:]
    shown = [index for index in indices if index < config.visualise]
    missing = [index for index in shown if not (folder / f"{_file_name(ids[index])}.png").is_file()]
    if draw is None or not missing:
        return
    for batch in score_images(pipeline, dataset, missing, batch_size=config.batch_size, num_workers=config.num_workers):
        for outcome in batch.outcomes:
            draw(outcome, dataset, _picture(folder, outcome))


def _picture(folder: Path, outcome: Outcome) -> Path:
    return folder / f"{_file_name(outcome.example.id)}.png"


def _file_name(image_id: str) -> str:
    """A name for each id: two ids never share one."""
    return image_id.replace("%", "%25").replace("/", "%2F")


def _row(outcome: Outcome) -> ImageRow:
    tp, fp, fn = (counts.tolist() for counts in outcome.counts)
    return ImageRow(outcome.example.index, outcome.example.id, outcome.segments, outcome.pixels, tp, fp, fn)


def _effective_protocol(config: RunConfig, protocol: Protocol) -> Protocol:
    """The protocol with what the segmenter's and upsampler's own options say in its place."""
    overridden: dict[str, Any] = {
        name: stage[name]
        for stage, names in ((config.segmenter, ("label_codes", "zero_affinity")), (config.upsampler, ("similarity",)))
        for name in names
        if name in stage
    }
    return build_protocol({**asdict(protocol), **overridden})


def _identity(
    config: RunConfig,
    protocol: Protocol,
    dataset: SegmentationDataset,
    fingerprint: str,
    features: FeatureSource,
) -> dict[str, Any]:
    """Everything that can change the numbers. Batch size, workers and folders can't; the
    versions of other packages are recorded beside."""
    return {
        "numerics_version": NUMERICS_VERSION,
        "dataset": {"name": dataset.name, "fingerprint": fingerprint},
        "backbone": backbone_identity(features.backbone, config.backbone),
        "features_dtype": None if features.store is None else str(features.store.dtype),
        "segmenter": config.segmenter,
        "upsampler": config.upsampler,
        "refiner": config.refiner,
        "protocol": {name: value for name, value in asdict(protocol).items() if name != "name"},
        "shard": config.shard,
        "seed": config.seed,
        "device_type": features.device.type,
        "torch": torch.__version__.partition("+")[0],
    }
