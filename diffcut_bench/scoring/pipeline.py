"""The only place that joins the stages: read -> features -> partition -> label map -> refinement -> counts."""

import time
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence

from diffcut_bench.datasets import SegmentationDataset
from diffcut_bench.environment import synchronize
from diffcut_bench.errors import UserError
from diffcut_bench.evaluation import (
    Annotators,
    Counts,
    Protocol,
    ScoredImage,
    assign_clusters,
    contingency_tables,
    count_assigned,
    count_boundaries,
    measure_image,
    merge_and_count,
    number_by_first_pixel,
)
from diffcut_bench.linking import segment_prototypes
from diffcut_bench.refinement import LocalRefiner, enlarge_in_tiles, merge_speckles
from diffcut_bench.scoring.checks import check_label_map, check_segments
from diffcut_bench.scoring.framing import Example, at_most, prepare_prediction, resize_pixels
from diffcut_bench.scoring.reading import CodeFailure, Wanted, example_loader, read_ahead
from diffcut_bench.scoring.stages import Pipeline
from diffcut_bench.scoring.time_limit import TookTooLongError, time_limit
from diffcut_bench.scoring.upload import upload
from diffcut_bench.segmenters import (
    GraphTooLargeError,
    Inputs,
    SpectrumTooLargeError,
    segment_together,
    sharing_groups,
)
from diffcut_bench.store import Failure, Timings
from diffcut_bench.traces import CodeError, Trace, described, is_debugging, message_of

_LARGEST_ID = 4095  # of clusters whose numbers are kept as they stand in a label map


@dataclass(frozen=True)
class Outcome:
    """One image after the pipeline.

    Attributes:
        example: what went in.
        predicted: `prediction`, where it was made.
        segments: segments of the partition.
        counts: TP, FP, FN of each class.
        pixels: scored pixels; of annotators those of the first one.
        assignment: choices of the matching of clusters to classes, see `Protocol.assignment`.
        table: pixels of each class and cluster, where one matching for the data set comes later; its counts are zero.
        prototypes: of the clusters in the table, in ascending order, for a linker; on the host.
        named: the prediction holds classes, and nothing was matched.
        measured: what metrics that look at the image itself keep of it, by name.
    """

    example: Example
    predicted: Tensor
    segments: int
    counts: Counts
    pixels: int
    assignment: Mapping[str, Any] = field(default_factory=dict)
    table: Tensor | None = None
    prototypes: Tensor | None = None
    named: bool = False
    measured: dict[str, list[float] | None] = field(default_factory=dict)

    @property
    def prediction(self) -> Tensor:
        """Cluster ids at the scored resolution, on the host; class ids where they are named."""
        return self.predicted.cpu()


@dataclass(eq=False)
class Batch:
    """What becomes of one batch in a pipeline.

    Attributes:
        pipeline: that scores it.
        seconds: that its stages took, by their names in `Timings`.
        outcomes: of its images, in the order of the data set.
        failures: of the others, by index in the data set.
        traces: of those failures that are the fault of code, and not of the data.
    """

    pipeline: Pipeline
    seconds: dict[str, float]
    outcomes: list[Outcome] = field(default_factory=list)
    failures: dict[int, Failure] = field(default_factory=dict)
    traces: dict[int, Trace] = field(default_factory=dict)

    @property
    def indices(self) -> set[int]:
        """Of all its images."""
        return {outcome.example.index for outcome in self.outcomes} | set(self.failures)

    @property
    def timings(self) -> Timings:
        return Timings(**self.seconds)

    def fail(self, failure: Failure, trace: Trace | None = None) -> None:
        assert failure.index is not None
        self.failures[failure.index] = failure
        if trace is not None:
            self.traces[failure.index] = trace


def score_together(
    pipelines: Sequence[Pipeline],
    dataset: SegmentationDataset,
    wanted: Sequence[Collection[int]],
    batch_size: int,
    num_workers: int = 0,
    shown: Collection[int] = (),
) -> Iterator[list[Batch]]:
    """Run pipelines over images of a data set, a batch at a time, in the order of the data set.

    Each image is read once, and decoded if some pipeline looks at its colours; its features are fetched once for all
    pipelines; segmenters that can share work do (`sharing_groups`). Nothing of this changes an outcome, nor does
    ``num_workers``; ``batch_size`` only where a network's rounding depends on it. A batch that memory does not hold
    goes on in halves, and those that follow it in parts of that size.

    Args:
        pipelines: they share features, also those that linkers compare, device, and what their protocols say about
            crop, sizes and void.
        dataset: opened.
        wanted: indices of the data set that each pipeline is to score; what is taken out meanwhile is passed over.
        batch_size: images at a time.
        num_workers: processes that read.
        shown: indices of images whose pictures somebody will look at in the outcomes; others may come without one.

    Yields:
        One `Batch` a pipeline. Time that pipelines share is divided among them.

    Raises:
        UserError: memory is too small for one image.
    """
    features, linked_by = pipelines[0].features, pipelines[0].linked_by
    asked = []
    for index in sorted(set().union(*wanted)):
        takers = [pipeline for pipeline, own in zip(pipelines, wanted, strict=True) if index in own]
        pixels = index in shown or any(pipeline.needs_images or pipeline.namer is not None for pipeline in takers)
        links = linked_by is not None and any(pipeline.linker is not None for pipeline in takers)
        needed = any(pipeline.needs_features for pipeline in takers)
        asked.append(Wanted(index, needed, pixels or links, digest=links))
    loader = example_loader(dataset, asked, features, batch_size=batch_size, num_workers=num_workers)
    start, at_once = time.perf_counter(), batch_size
    for items in read_ahead(loader):
        run = _Run(pipelines, dataset, time.perf_counter() - start, at_once)
        groups: dict[Any, list[Example]] = {}
        for item in items:
            batches = tuple(batch for batch, own in zip(run.batches, wanted, strict=True) if item.index in own)
            if isinstance(item, Failure):
                trace = item.trace if isinstance(item, CodeFailure) else None
                for batch in batches:
                    batch.fail(Failure(item.id, item.error, item.index), trace)
            elif batches:
                linked_grids = None if linked_by is None else linked_by.grids(item.frame)
                shape = (features.grids(item.frame), linked_grids, item.label.shape)
                groups.setdefault((batches, shape), []).append(item)
        for (batches, _), group in groups.items():
            for first in range(0, len(group), at_once):
                run.isolated(batches, group[first : first + at_once])
        at_once = run.at_once
        yield run.end(wall_s=time.perf_counter() - start)
        start = time.perf_counter()


@torch.inference_mode()
def segment_images(
    pipeline: Pipeline, examples: Sequence[Example], features: Tensor | None = None, largest: int = 1536
) -> Tensor:
    """Segments of images without annotations, at the size that their protocol scores.

    Args:
        pipeline: its protocol's similarity applies; nothing is matched.
        examples: of one size, with pixels.
        features: of the pipeline's backbone, where they are there already; on any device.
        largest: pixels of the longer side up to which label maps are made and refined whole, which takes memory for
            each neighbour and each segment of every pixel. Those of a larger picture are made at this size, then
            enlarged and refined in tiles (`enlarge_in_tiles`).

    Returns:
        Segment ids [batch, height, width] on the host; numbers may be missing where a segment vanished.
    """
    segmenter, source = pipeline.segmenter, pipeline.features
    if segmenter.needs & {"image_ids", "rescale"}:
        raise UserError("segmentations made elsewhere are of a data set", "segmenter", "choose another segmenter")
    if "class_counts" in segmenter.needs:
        raise UserError("this segmenter counts annotated classes", "segmenter", "give it a number of its own")
    if "labels" in segmenter.needs:
        raise UserError("this segmenter is told the annotation", "segmenter", "choose another segmenter")
    whole = (examples[0].label.shape[0], examples[0].label.shape[1])
    size = at_most(largest, whole)
    shape = (len(examples), *size)
    try:
        there = upload(examples, source.device)
        images = None
        if features is not None:
            features = features.to(source.device)
        elif pipeline.needs_features:
            features = source.compute(there).float()
        if pipeline.needs_images:
            small = size == whole
            images = torch.stack([e.eval_image if small else resize_pixels(e.eval_pixels, size) for e in there])
        grids = [example.grid for example in there]
        inputs = Inputs(features, images, scored_sizes=[size] * len(there), grid_sizes=grids)
        with time_limit(pipeline.max_seconds, ["picture"] * len(there)):
            (segments,) = _segments([pipeline], inputs, shape)
        labels = segments
        if segmenter.gives != "label_map":  # one of the pixels themselves needs no refinement
            labels = _numbered(pipeline, _label_maps(pipeline, segments, inputs, shape))
            if pipeline.refiner is not None and images is not None:
                labels = check_label_map("refiner", pipeline.refiner(images, labels), labels.shape)
        labels = _without_speckles(pipeline, labels, inputs).cpu()
        if size == whole:
            return labels
        refiner = None
        if isinstance(pipeline.refiner, LocalRefiner) and segmenter.gives != "label_map":
            refiner = pipeline.refiner
        large = [enlarge_in_tiles(*each, refiner) for each in zip(labels, (e.eval_pixels for e in there), strict=True)]
        # A large picture has no room for a copy.
        return _without_speckles(pipeline, large[0][None] if len(large) == 1 else torch.stack(large), inputs)
    except ValueError as error:
        where, hint = "the stages of this run", "choose another option, or mend this one"
        trace = Trace.of(error)
        if trace is not None and trace.of_user:
            raise CodeError(trace.error, where, hint, trace) from error
        raise UserError(str(error), where, hint) from error


def _segments(pipelines: Sequence[Pipeline], inputs: Inputs, shape: Sequence[int]) -> list[Tensor]:
    """What segmenters that can share work give, checked and on the device.

    Args:
        pipelines: of the segmenters, one of `sharing_groups`.
        inputs: of a batch.
        shape: of what is scored: the batch first, height and width last.

    Raises:
        UserError: a graph is too large for the memory, which the user can mend before anything else runs.
        ValueError: these are no segments.
    """
    try:
        given = segment_together([pipeline.segmenter for pipeline in pipelines], inputs)
    except GraphTooLargeError as error:
        spectrum = isinstance(error, SpectrumTooLargeError)
        instead = "segmenter=diffcut" if spectrum else "segmenter.approximation=coarse_to_fine (docs/large_grids.md)"
        hint = f"raise segmenter.max_memory_gib, use a smaller protocol.image_size, or {instead}"
        raise UserError(str(error), "segmenter.max_memory_gib", hint) from error
    found = []
    for pipeline, ids in zip(pipelines, given, strict=True):
        ids = check_segments(pipeline.segmenter, ids, inputs, shape)
        is_label_map = pipeline.segmenter.gives == "label_map"
        found.append((_ranked(pipeline, ids) if is_label_map else ids).to(pipeline.features.device))
    return found


def _ranked(pipeline: Pipeline, maps: Tensor) -> Tensor:
    """Label maps [batch, height, width] whose great numbers, as colours are, go by rank in each image. Small ones are
    kept: gaps between them count under the released matching."""
    if maps.max() <= _LARGEST_ID:
        return maps
    if pipeline.protocol.matching == "dataset" and pipeline.linker is None:
        raise ValueError(f"matching=dataset takes segment ids up to {_LARGEST_ID}, found {maps.max()}")
    return torch.stack([ids.unique(return_inverse=True)[1] if ids.max() > _LARGEST_ID else ids for ids in maps])


def _label_maps(pipeline: Pipeline, segments: Tensor, inputs: Inputs, shape: Sequence[int]) -> Tensor:
    """Label maps [batch, height, width] at the scored size, of whatever the segmenter gives."""
    if pipeline.segmenter.gives == "label_map":
        return segments
    assert inputs.features is not None
    size = (shape[-2], shape[-1])
    images = [inputs.images] if pipeline.upsamples_by_colour else []
    labels = pipeline.upsampler(inputs.features, _numbered(pipeline, segments), size, *images)
    return check_label_map("upsampler", labels, (shape[0], *size))


def _without_speckles(pipeline: Pipeline, labels: Tensor, inputs: Inputs) -> Tensor:
    """Label maps whose small pieces have joined neighbours: by the features that the segmenter looked at, else by
    colour, so that it does not matter which other cells are in the pass."""
    if not pipeline.smallest_segment:
        return labels
    if "features" in pipeline.segmenter.needs:
        assert inputs.features is not None
        channels = inputs.features.shape[1] - pipeline.features.backbone.attention_channels
        compared = normalize(inputs.features[:, :channels].float(), dim=1)
    else:
        assert inputs.images is not None
        compared = inputs.images
    return merge_speckles(labels, compared, pipeline.smallest_segment)


def _count_segments(segments: Tensor) -> Tensor:
    """Numbers that occur in each image [batch, rows, cols]; on the host when the device is through with its work."""
    ordered = segments.flatten(1).sort(dim=1).values
    return ((ordered.diff(dim=1) != 0).sum(dim=1) + 1).to("cpu", non_blocking=True)


def _clusters(table: Tensor, protocol: Protocol) -> Tensor | None:
    """Cluster of each class [classes] as the protocol matches them in an image; None where it matches later."""
    if protocol.matching == "dataset":
        return None
    if protocol.matching == "named":  # clusters are classes already
        return torch.arange(len(table))
    return assign_clusters(table, **protocol.assignment)


def _counts(table: Tensor, clusters: Tensor | None) -> Counts:
    """Counts of an image whose clusters are matched; zero where they are not, or not yet."""
    if clusters is None:
        none = torch.zeros(len(table), dtype=torch.long)
        return Counts(none, none, none)
    return count_assigned(table, clusters)


def _numbered(pipeline: Pipeline, segments: Tensor) -> Tensor:
    """Segments [batch, rows, cols] by numbers that the protocol lets matter: PAMR's median and ties look at them."""
    protocol = pipeline.protocol
    if pipeline.linker is not None or (protocol.surplus == "unmatched" and protocol.matching != "dataset"):
        return number_by_first_pixel(segments)
    return segments


_OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an accelerator or the host had no memory left; for some of them and the host torch has words alone."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(words in message_of(error) for words in _OUT_OF_MEMORY)
    )


@dataclass(frozen=True)
class _Group:
    """Images of one size on their way through the stages.

    Attributes:
        examples, there: as they were read, and on the device.
        labels: on the device [batch, height, width].
        annotators: of the images; None where labels are classes.
        inputs: of segmenters.
        compared: features by which linkers compare segments; None where there is no linker.
    """

    examples: Sequence[Example]
    there: Sequence[Example]
    labels: Tensor
    annotators: Annotators | None
    inputs: Inputs
    compared: Tensor | None


class _Run:
    """One batch through all pipelines: what came out, what failed, and the time it took.

    Attributes:
        at_once: images that memory holds, as far as is known.
    """

    def __init__(
        self, pipelines: Sequence[Pipeline], dataset: SegmentationDataset, read_s: float, at_once: int
    ) -> None:
        self.at_once = at_once
        self.batches = [Batch(pipeline, {"read_s": read_s / len(pipelines)}) for pipeline in pipelines]
        self.dataset, self.features, self.device = dataset, pipelines[0].features, pipelines[0].features.device
        self.linked_by = pipelines[0].linked_by

    def end(self, wall_s: float) -> list[Batch]:
        """What came of the batch, one entry a pipeline; each has the share of the time that its stages took."""
        busy = [sum(batch.seconds.values()) for batch in self.batches]
        for batch, own in zip(self.batches, busy, strict=True):
            batch.seconds["wall_s"] = wall_s * own / sum(busy)
            batch.outcomes.sort(key=lambda outcome: outcome.example.index)
        return self.batches

    def isolated(self, takers: Sequence[Batch], group: list[Example]) -> None:
        """Run a group; if it fails, pipeline by pipeline and then image by image, so that only the culprit is lost; if
        memory does not hold it, in halves."""
        try:
            for batch, outcomes in self._run(takers, group).items():
                batch.outcomes += outcomes
            return
        except UserError:  # such as damaged weights: nothing that another image could do better
            raise
        except (Exception, SystemExit) as error:  # a segmenter's or backbone's own failure is of the image, not the run
            too_large = is_out_of_memory(error)
            if too_large and len(group) == len(takers) == 1:
                hint = "use a smaller protocol.image_size, or device=cpu"
                raise UserError("memory is too small for one image", str(self.device), hint) from error
            too_slow = isinstance(error, TookTooLongError)
            if is_debugging() and not too_large and not too_slow:
                raise
            if len(group) == len(takers) == 1:
                failure = Failure(group[0].id, described(error), group[0].index)
                takers[0].fail(failure, None if too_slow else Trace.of(error))
                return
        # From here on the error's traceback no longer holds what was in memory.
        if too_large and len(group) > 1:
            half = self.at_once = (len(group) + 1) // 2
            warnings.warn(
                f"memory on {self.device} is too small for {len(group)} images at once; this goes on with {half}",
                RuntimeWarning,
                stacklevel=2,
            )
            self.isolated(takers, group[:half])
            self.isolated(takers, group[half:])
        elif len(takers) > 1:
            for batch in takers:
                self.isolated([batch], group)
        else:
            for example in group:
                self.isolated(takers, [example])

    @torch.inference_mode()
    def _run(self, takers: Sequence[Batch], examples: list[Example]) -> dict[Batch, list[Outcome]]:
        group = self._prepared(takers, examples)
        outcomes = {}
        for indices in sharing_groups(batch.pipeline.segmenter for batch in takers):
            sharing = [takers[index] for index in indices]
            with self._stage("segment_s", sharing, examples):
                found = _segments([batch.pipeline for batch in sharing], group.inputs, group.labels.shape)
            for batch, segments in zip(sharing, found, strict=True):
                with self._stage("segment_s", [batch]):
                    prediction = _label_maps(batch.pipeline, segments, group.inputs, group.labels.shape)
                    counts = _count_segments(segments)
                outcomes[batch] = self._score(batch, group, prediction, counts)
        return outcomes

    def _prepared(self, takers: Sequence[Batch], examples: Sequence[Example]) -> _Group:
        """The images with all that the stages of these pipelines need."""
        there = upload(examples, self.device)
        labels = torch.stack([example.label for example in there])
        annotators = self._annotators(examples, there)
        inputs = self._inputs(takers, examples, there, labels)
        return _Group(examples, there, labels, annotators, inputs, self._compared(takers, there, inputs.features))

    def _annotators(self, group: Sequence[Example], there: Sequence[Example]) -> Annotators | None:
        """Those of a group, which is on the host and on the device; None where labels are classes."""
        if not self.dataset.annotators:
            return None
        sides = ([one.annotations for one in side if one.annotations is not None] for side in (group, there))
        return Annotators.of(*sides)

    def _inputs(
        self, takers: Sequence[Batch], group: Sequence[Example], there: Sequence[Example], labels: Tensor
    ) -> Inputs:
        """What the stages of the pipelines need of a group, which is on the host and on the device."""
        images = features = counts = None
        if any(batch.pipeline.needs_images for batch in takers):
            images = torch.stack([example.eval_image for example in there])
        if users := [batch for batch in takers if batch.pipeline.needs_features]:
            with self._stage("features_s", users):
                features = self.features.of(there)
        if any("class_counts" in batch.pipeline.segmenter.needs for batch in takers):
            counts = [max(len(example.label[example.label >= 0].unique()), 1) for example in group]
        framing = self.features.framing
        rescale = [partial(prepare_prediction, frame=example.frame, framing=framing) for example in group]
        sizes = [(example.label.shape[0], example.label.shape[1]) for example in group]
        ids, grids = [example.id for example in group], [example.grid for example in group]
        return Inputs(features, images, counts, ids, rescale, sizes, labels, grids)

    def _compared(self, takers: Sequence[Batch], there: Sequence[Example], features: Tensor | None) -> Tensor | None:
        """Features by which linkers compare segments; None where there is no linker."""
        linking = [batch for batch in takers if batch.pipeline.linker is not None]
        if not linking:
            return None
        if self.linked_by is None:
            compared, source = features, self.features
        else:
            source = self.linked_by
            with self._stage("features_s", linking):
                compared = source.of([replace(example, features=()) for example in there])
        # The class token's attention says where the object is, not what.
        return None if compared is None else compared[:, : compared.shape[1] - source.backbone.attention_channels]

    def _score(self, batch: Batch, group: _Group, prediction: Tensor, segments: Tensor) -> list[Outcome]:
        """From label maps and their numbers of segments to outcomes, on the device up to the contingency tables."""
        pipeline, protocol, classes = batch.pipeline, batch.pipeline.protocol, self.dataset.num_classes
        prediction, tables = self._finished(batch, group, prediction)
        with self._stage("evaluate_s", [batch]):
            prototypes: Sequence[Tensor | None] = [None] * len(group.examples)
            if group.annotators is None:
                tables = tables or contingency_tables(prediction, group.labels, classes)
                scored = self._against_classes(protocol, group.labels, prediction, tables)
                if pipeline.linker is not None and group.compared is not None:
                    present = pad_sequence([table.any(dim=0) for table in tables], batch_first=True)
                    prototypes = segment_prototypes(group.compared, prediction, present)
            else:
                scored = group.annotators.scored(prediction)
            return [
                Outcome(
                    example,
                    prediction[i],
                    segments=int(segments[i]),
                    # Of annotators' segments there are no classes to count.
                    counts=_counts(images[0].table[:classes], images[0].clusters),
                    pixels=int(images[0].table.sum()),
                    assignment=protocol.assignment,
                    # One matching for the data set has to wait for all tables.
                    table=images[0].table if protocol.matching == "dataset" else None,
                    prototypes=prototypes[i],
                    named=pipeline.namer is not None,
                    measured=measure_image(images, vars(protocol)),
                )
                for i, (example, images) in enumerate(zip(group.examples, scored, strict=True))
            ]

    def _finished(self, batch: Batch, group: _Group, prediction: Tensor) -> tuple[Tensor, list[Tensor] | None]:
        """Label maps after background rule, refiner, speckles and namer, and their contingency tables if known."""
        pipeline, labels = batch.pipeline, group.labels
        background, protocol, tables = self.dataset.background, pipeline.protocol, None
        with self._stage("evaluate_s", [batch]):
            prediction = _numbered(pipeline, prediction)
            if background is not None and pipeline.namer is None:
                choices = (self.dataset.num_classes, background, protocol.background_rule)
                prediction, tables = merge_and_count(prediction, labels, *choices, **protocol.assignment)
        if pipeline.refiner is not None and group.inputs.images is not None:
            tables = None  # they are of what was refined
            with self._stage("refine_s", [batch]):
                refined = pipeline.refiner(group.inputs.images, prediction)
                prediction = check_label_map("refiner", refined, labels.shape)
        if pipeline.smallest_segment:
            tables = None
            with self._stage("refine_s", [batch]):
                prediction = _without_speckles(pipeline, prediction, group.inputs)
        if pipeline.namer is not None:  # after the refiner, which works on segments
            with self._stage("segment_s", [batch]):
                # It sees what the backbone sees, of a better resolution than what may be scored.
                seen = torch.stack([example.image for example in group.there])
                prediction = check_label_map("namer", pipeline.namer(seen, prediction).labels, labels.shape)
        return prediction, tables

    def _against_classes(
        self, protocol: Protocol, labels: Tensor, prediction: Tensor, tables: Sequence[Tensor]
    ) -> list[list[ScoredImage]]:
        """Predictions against labels of classes, as `Annotators.scored` sets them beside several people's."""
        clusters = max(table.shape[1] for table in tables)
        boundaries = count_boundaries(prediction, labels[:, None], self.dataset.num_classes, clusters)
        background = self.dataset.background
        return [
            [ScoredImage(prediction[i], labels[i], table, background, _clusters(table, protocol), boundaries[i][0])]
            for i, table in enumerate(tables)
        ]

    @contextmanager
    def _stage(self, name: str, takers: Sequence[Batch], limited: Sequence[Example] = ()) -> Iterator[None]:
        """Adds the seconds to each taker's share; waits for the accelerator, so that the work is the stage's own."""
        start = time.perf_counter()
        with time_limit(takers[0].pipeline.max_seconds, [example.id for example in limited], len(takers)):
            yield
            synchronize(self.device)
        for batch in takers:
            batch.seconds[name] = batch.seconds.get(name, 0.0) + (time.perf_counter() - start) / len(takers)
