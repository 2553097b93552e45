"""One cell while it is scored: its stages, its key, its journal, and at the end its result."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from diffcut_bench.config import RunConfig, build_protocol, instantiate
from diffcut_bench.datasets import SegmentationDataset
from diffcut_bench.environment import environment
from diffcut_bench.errors import UserError
from diffcut_bench.evaluation import Counts, ImageCounts, Protocol
from diffcut_bench.features import FEATURES_VERSION, FeatureSource, backbone_identity
from diffcut_bench.pipeline import Batch, Outcome, Pipeline, score_images
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
)

# Raise when a change of ours changes numbers, so that old results are not taken for new ones.
NUMERICS_VERSION = 1

Draw = Callable[[Outcome, SegmentationDataset, Path], None]


@dataclass(frozen=True)
class FinishedCell:
    """Where a cell lies, its result, and whether it had been finished before."""

    folder: Path
    result: Result
    skipped: bool


@dataclass(frozen=True)
class ScoredImages:
    """What the cells of a pass score."""

    whole: SegmentationDataset
    dataset: SegmentationDataset
    indices: Sequence[int]
    fingerprint: str


class RunningCell:
    """A cell of a pass: its stages, its place on disk, what it still has to score."""

    def __init__(self, config: RunConfig, images: ScoredImages, features: FeatureSource) -> None:
        self.config, self.images = config, images
        protocol = _effective_protocol(config, build_protocol(config.protocol))
        if protocol.matching == "dataset":
            raise UserError(
                "matching=dataset needs cluster ids that mean the same in every image",
                f"segmenter={config.choices.get('segmenter')} numbers the segments of each image anew",
                "use protocol.matching=per_image",
            )
        stages = {group: instantiate(group, getattr(config, group)) for group in ("segmenter", "upsampler", "refiner")}
        self.pipeline = Pipeline(features=features, protocol=protocol, device=features.device, **stages)
        self.key = cell_key(_identity(config, protocol, images.dataset, images.fingerprint, features))
        title = "-".join(config.choices.get(group, "own") for group in ("dataset", "backbone", "segmenter"))
        self.cell = Cell(Path(config.output_dir), title, self.key)
        self.todo: set[int] = set()
        self.failed = 0  # failures of an interrupted run are tried again
        self.error: UserError | None = None

    def found(self, draw: Draw | None) -> FinishedCell | None:
        """The cell if it is finished already, its missing pictures drawn; otherwise it is ready to go on."""
        finished = _find_finished(self.cell, self.config.if_exists)
        if finished is None:
            done = {row.index for row in self.cell.progress().rows}
            self.todo = set(self.images.indices) - done
            # Written before any work, so that an unwritable folder costs nothing.
            self.cell.append([], {}, Timings())
            return None
        if finished.failures:
            _check_failures(len(finished.failures), finished.failures[-1], self.config.max_failures)
        self._draw_missing(self.cell.finished_dir / "pictures", draw)
        return FinishedCell(self.cell.finished_dir, finished, skipped=True)

    def take(self, batch: Batch, wall_s: float, draw: Draw | None) -> None:
        """Keep a batch; a cell with too many failures wants no more images."""
        if not batch.outcomes and not batch.failures:
            return
        for outcome in batch.outcomes:
            if draw and outcome.example.index < self.config.visualise:
                draw(outcome, self.images.dataset, _picture(self.cell.work_dir / "pictures", outcome))
        timings = replace(batch.timings, wall_s=wall_s)
        self.cell.append([_row(outcome) for outcome in batch.outcomes], batch.failures, timings)
        self.todo -= {outcome.example.index for outcome in batch.outcomes} | set(batch.failures)
        self.failed += len(batch.failures)
        try:
            if batch.failures:
                _check_failures(self.failed, list(batch.failures.values())[-1], self.config.max_failures)
        except UserError as error:
            self.error = error
            self.todo.clear()

    def finish(self, draw: Draw | None) -> FinishedCell:
        """Write the finished folder."""
        if self.error is not None:
            raise self.error
        config, dataset, protocol = self.config, self.images.dataset, self.pipeline.protocol
        progress = self.cell.progress()
        if not progress.rows:
            first = next(iter(progress.failures.values()))
            alike = len({failure.error for failure in progress.failures.values()}) == 1 < len(progress.failures)
            what = "the backbone's or segmenter's options" if alike else "the data"
            raise UserError(
                f"no image could be scored; the first: {first.error}", first.id, f"mend {what}, then run again"
            )
        if not any(row.pixels for row in progress.rows):
            raise UserError(
                "no pixel could be scored: every label is void",
                f"dataset={dataset.name}, void={protocol.void}",
                "check the label values, or use protocol.void=background",
            )
        self._draw_missing(self.cell.work_dir / "pictures", draw)
        wall = progress.timings.wall_s
        images, whole = len(self.images.indices), self.images.whole
        noise = self.pipeline.features.backbone.fingerprint().get("noise_generator", "none")
        result = Result(
            key=self.key,
            config=config.to_dict(),
            limited=images < max(len(whole), whole.n_expected or 0),
            dataset=DatasetRecord(dataset.name, self.images.fingerprint, images, whole.n_expected),
            metrics=summarise(progress.rows, dataset.class_names, protocol, config.seed),
            segments_per_image=SegmentsPerImage(
                mean=sum(row.segments for row in progress.rows) / len(progress.rows),
                min=min(row.segments for row in progress.rows),
                max=max(row.segments for row in progress.rows),
            ),
            failures=[progress.failures[index] for index in sorted(progress.failures)],
            timings=replace(progress.timings, images_per_s=len(progress.rows) / wall if wall else 0.0),
            environment=environment(self.pipeline.device, config.seed, noise),
            protocol=asdict(protocol),
        )
        self.cell.finish(result, progress.rows, OmegaConf.to_yaml(OmegaConf.create(config.to_dict())))
        return FinishedCell(self.cell.finished_dir, result, skipped=False)

    def _draw_missing(self, folder: Path, draw: Draw | None) -> None:
        """Pictures that a cell lacks; its numbers are left alone."""
        dataset, config = self.images.dataset, self.config
        ids = dataset.records["id"][:]
        shown = [index for index in self.images.indices if index < config.visualise]
        missing = [index for index in shown if not (folder / f"{_file_name(ids[index])}.png").is_file()]
        if draw is None or not missing:
            return
        workers = config.num_workers
        for batch in score_images(self.pipeline, dataset, missing, batch_size=config.batch_size, num_workers=workers):
            for outcome in batch.outcomes:
                draw(outcome, dataset, _picture(folder, outcome))


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
        "features_version": FEATURES_VERSION,
        "features_dtype": None if features.store is None else str(features.store.dtype),
        "segmenter": {name: value for name, value in config.segmenter.items() if name != "max_memory_gib"},
        "upsampler": config.upsampler,
        "refiner": config.refiner,
        "protocol": {name: value for name, value in asdict(protocol).items() if name != "name"},
        "shard": config.shard,
        "seed": config.seed,
        "device_type": features.device.type,
        "torch": torch.__version__.partition("+")[0],
    }
