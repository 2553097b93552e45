"""The only place that joins the stages: read -> features -> partition -> label map -> refinement -> counts."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from diffcut_bench.datasets import Example, SegmentationDataset, prepare_example
from diffcut_bench.errors import UserError
from diffcut_bench.evaluation import Counts, Criterion, Protocol, count_matches, merge_background
from diffcut_bench.features import FeatureSource
from diffcut_bench.segmenters import Segmenter
from diffcut_bench.store import Failure, Timings

Upsampler = Callable[[Tensor, Tensor, tuple[int, int]], Tensor]
Refiner = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Pipeline:
    """The stages of one cell, on one device."""

    features: FeatureSource
    segmenter: Segmenter
    upsampler: Upsampler
    refiner: Refiner | None
    protocol: Protocol
    device: torch.device


@dataclass(frozen=True)
class Outcome:
    """One image after the pipeline.

    Attributes:
        example: what went in.
        prediction: cluster ids at the scored resolution, on the host.
        segments: segments of the partition.
        counts: TP, FP, FN of each class.
        pixels: scored pixels.
        criterion: that matched clusters to classes.
    """

    example: Example
    prediction: Tensor
    segments: int
    counts: Counts
    pixels: int
    criterion: Criterion = "overlap"


@dataclass(frozen=True)
class Batch:
    """What became of one batch: outcomes and failures by place in the data set, and the time each stage took."""

    outcomes: list[Outcome]
    failures: dict[int, Failure]
    timings: Timings


class _Reader(torch.utils.data.Dataset[Example | Failure]):
    """Decodes and resizes; an unreadable pair becomes a `Failure` instead of ending the run."""

    def __init__(
        self, dataset: SegmentationDataset, indices: Sequence[int], protocol: Protocol, features: FeatureSource
    ) -> None:
        self.dataset, self.indices, self.protocol = dataset, indices, protocol
        self.stride, self.input_size, self.store = (
            features.backbone.stride,
            features.backbone.image_size,
            features.store,
        )
        self.ids: list[str] = dataset.records["id"][:]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Example | Failure:
        index = self.indices[position]
        try:
            picture, label = read_label(self.dataset, index, self.protocol.void)
            digest = "" if self.store is None else self.dataset.image_digest(index)
        except (ValueError, OSError) as error:
            return Failure(self.ids[index], str(error))
        example = prepare_example(
            index,
            self.ids[index],
            picture,
            label,
            crop=self.protocol.crop,
            image_size=self.protocol.image_size,
            eval_size=self.protocol.eval_size,
            multiple_of=self.stride,
            input_size=self.input_size,
        )
        features = None if self.store is None else self.store.get(digest)
        # Where the features are there, the image need not travel from a worker process.
        return replace(example, digest=digest, features=features, image=None if features is not None else example.image)


def read_label(dataset: SegmentationDataset, index: int, void: str) -> tuple[Image.Image, NDArray[np.int64]]:
    """Image and class map as a protocol's ``void`` wants it: unannotated pixels as background, or left at −1."""
    picture, label = dataset.read(index)
    if void == "background" and dataset.background is not None:
        label[label < 0] = dataset.background
    return picture, label


def example_loader(
    dataset: SegmentationDataset,
    indices: Sequence[int],
    protocol: Protocol,
    features: FeatureSource,
    *,
    batch_size: int,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader[Any]:
    """Batches (lists) of `Example`, or `Failure` for a pair that can't be read, in the order of ``indices``.

    Args:
        dataset: opened.
        indices: places in the data set.
        protocol: crop, sizes and void.
        features: whose backbone says what input it wants, and whose store gives the features that it has.
        batch_size: items a list.
        num_workers: processes that decode, crop and resize; 0: this one.
        pin_memory: give tensors in page-locked memory, for an accelerator.
    """
    reader = _Reader(dataset, indices, protocol, features)
    # Not fork: a forked child inherits torch's and arrow's threads in whatever state they are.
    context = "spawn" if num_workers else None
    return DataLoader(
        reader,
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=list,
        pin_memory=pin_memory,
        multiprocessing_context=context,
    )


def score_images(
    pipeline: Pipeline,
    dataset: SegmentationDataset,
    indices: Sequence[int],
    *,
    batch_size: int,
    num_workers: int = 0,
) -> Iterator[Batch]:
    """Run the pipeline over images of a data set, a batch at a time, in the order of ``indices``.

    Neither ``batch_size`` nor ``num_workers`` changes an outcome.

    Raises:
        UserError: the device's memory is too small for the batch.
    """
    loader = example_loader(
        dataset,
        indices,
        pipeline.protocol,
        pipeline.features,
        batch_size=batch_size,
        num_workers=num_workers,
        pin_memory=pipeline.device.type != "cpu",
    )
    position = 0
    start = time.perf_counter()
    for items in loader:
        clock = _Clock(pipeline.device, read_s=time.perf_counter() - start)
        places = indices[position : position + len(items)]
        position += len(items)
        failures = {place: item for place, item in zip(places, items, strict=True) if isinstance(item, Failure)}
        outcomes: list[Outcome] = []
        for group in _by_shape(
            [item for item in items if isinstance(item, Example)], pipeline.features.backbone.stride
        ):
            done, failed = _run_isolated(pipeline, dataset, group, clock)
            outcomes += done
            failures |= failed
        outcomes.sort(key=lambda outcome: places.index(outcome.example.index))
        yield Batch(outcomes, failures, replace(clock.timings, wall_s=time.perf_counter() - start))
        start = time.perf_counter()


def segment_images(pipeline: Pipeline, images: Tensor, eval_images: Tensor) -> Tensor:
    """Segments of images without annotations.

    Args:
        pipeline: its protocol's similarity applies; nothing is matched.
        images: network input [batch, 3, rows, cols], colours in [0, 1].
        eval_images: the same images at the wanted resolution.

    Returns:
        Segment ids [batch, height, width] on the host; numbers may be missing where a segment vanished.
    """
    with torch.inference_mode():
        features = pipeline.features.compute(images).float()
        partition = pipeline.segmenter(features)
        eval_images = eval_images.to(pipeline.device)
        size = (eval_images.shape[-2], eval_images.shape[-1])
        labels = pipeline.upsampler(features, partition, size)
        if pipeline.refiner is not None:
            labels = pipeline.refiner(eval_images, labels)
    return labels.cpu()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an accelerator or the host had no memory left; torch has no class of its own for the host."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def _run_isolated(
    pipeline: Pipeline, dataset: SegmentationDataset, group: list[Example], clock: "_Clock"
) -> tuple[list[Outcome], dict[int, Failure]]:
    """Run a group; if it fails, its images one by one, so that only the culprit is lost."""
    try:
        return _run(pipeline, dataset, group, clock), {}
    except Exception as error:  # a segmenter's or backbone's own failure belongs to the image, not to the run
        if is_out_of_memory(error):
            raise UserError(
                "the device's memory is too small for this batch",
                f"{pipeline.device}, batch of {len(group)}",
                "use a smaller batch_size or protocol.image_size, or device=cpu",
            ) from error
        if len(group) == 1:
            return [], {group[0].index: Failure(group[0].id, f"{type(error).__name__}: {error}")}
    outcomes: list[Outcome] = []
    failures: dict[int, Failure] = {}
    for example in group:
        done, failed = _run_isolated(pipeline, dataset, [example], clock)
        outcomes += done
        failures |= failed
    return outcomes, failures


@torch.inference_mode()
def _run(pipeline: Pipeline, dataset: SegmentationDataset, group: list[Example], clock: "_Clock") -> list[Outcome]:
    protocol, device = pipeline.protocol, pipeline.device
    with clock.stage("features_s"):
        features = pipeline.features.of(group)
    with clock.stage("segment_s"):
        partition = pipeline.segmenter(features)
        size = (group[0].label.shape[0], group[0].label.shape[1])
        prediction = pipeline.upsampler(features, partition, size)
        segments = (partition.amax(dim=(1, 2)) + 1).tolist()
    labels = torch.stack([example.label for example in group]).to(device, non_blocking=True)
    with clock.stage("evaluate_s"):
        if dataset.background is not None:
            prediction = torch.stack(
                [
                    merge_background(
                        predicted,
                        label,
                        dataset.num_classes,
                        dataset.background,
                        protocol.background_rule,
                        protocol.criterion,
                    )
                    for predicted, label in zip(prediction, labels, strict=True)
                ]
            )
    if pipeline.refiner is not None:
        with clock.stage("refine_s"):
            eval_images = torch.stack([example.eval_image for example in group]).to(device, non_blocking=True)
            prediction = pipeline.refiner(eval_images, prediction)
    with clock.stage("evaluate_s"):
        host = prediction.cpu()
        return [
            Outcome(
                example,
                predicted,
                segments[place],
                count_matches(predicted, example.label, dataset.num_classes, protocol.criterion),
                int((example.label >= 0).sum()),
                protocol.criterion,
            )
            for place, (example, predicted) in enumerate(zip(group, host, strict=True))
        ]


def _by_shape(examples: list[Example], stride: int) -> list[list[Example]]:
    """Examples that can be stacked, together; order of first appearance."""
    groups: dict[Any, list[Example]] = {}
    for example in examples:
        groups.setdefault((example.grid_of(stride), example.label.shape), []).append(example)
    return list(groups.values())


class _Clock:
    """Sums the seconds of each stage; waits for the accelerator at a stage's end, so that the work is its own."""

    def __init__(self, device: torch.device, read_s: float) -> None:
        self.timings = Timings(read_s=read_s)
        self._accelerated = device.type != "cpu"
        self._stage, self._start = "", 0.0

    def stage(self, name: str) -> "_Clock":
        self._stage, self._start = name, time.perf_counter()
        return self

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        if self._accelerated:
            torch.accelerator.synchronize()
        seconds = asdict(self.timings)[self._stage] + time.perf_counter() - self._start
        self.timings = replace(self.timings, **{self._stage: seconds})
