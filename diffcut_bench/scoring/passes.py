"""From checked configs to finished cells: one pass over the images scores all cells that can share it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from diffcut_bench.config import RunConfig, build_protocol, instantiate
from diffcut_bench.datasets import (
    Benchmark,
    SegmentationDataset,
    check_coverage,
    open_benchmark,
    prepared_folder,
    read_manifest,
)
from diffcut_bench.environment import choose_device
from diffcut_bench.errors import UserError
from diffcut_bench.evaluation import known_metrics
from diffcut_bench.interruption import held_back, raise_if_interrupted
from diffcut_bench.naming import ClassNamer
from diffcut_bench.scoring.cell import FinishedCell, RunningCell, ScoredImages
from diffcut_bench.scoring.events import Observer
from diffcut_bench.scoring.features import FeatureSource, open_source
from diffcut_bench.scoring.framing import Framing, framing_choices
from diffcut_bench.scoring.pipeline import score_together
from diffcut_bench.scoring.workers import Workers, workers
from diffcut_bench.store import cell_key


def run_cell(
    config: RunConfig, observer: Observer | None = None, segmenter: Callable[..., Any] | None = None
) -> FinishedCell:
    """Score one cell, or find it finished; an interrupted one continues where it was.

    Args:
        config: checked; see `diffcut_bench.config.load_config`.
        observer: is told what happens.
        segmenter: see `run_cells`.

    Raises:
        UserError: an option is out of range, data or weights are missing, more than ``max_failures`` images failed,
            none could be scored, or the output folder can't be written.
    """
    (ended,) = run_cells([config], observer, segmenter)
    if isinstance(ended, UserError):
        raise ended
    return ended


def run_cells(
    configs: Sequence[RunConfig], observer: Observer | None = None, segmenter: Callable[..., Any] | None = None
) -> list[FinishedCell | UserError]:
    """Score cells in one pass over the images: each is read once and its features are fetched once for all cells.

    Args:
        configs: cells of one `pass_key`.
        observer: is told what happens.
        segmenter: the user's own function or object in the place of the one that the configs would build; their
            ``segmenter`` is what the keys hold and has to tell what it is, as `object_fingerprint` does.

    Returns:
        For each cell how it ended; one that failed does not stop the others.

    Raises:
        UserError: what the cells share is wrong or missing.
    """
    observer = observer or Observer()
    ended: list[FinishedCell | UserError] = []
    observer.begin(configs)
    try:
        opened = workers().together(lambda: open_pass(configs[0], observer))
        ended = _run_opened(opened, configs, segmenter)
    finally:
        observer.end(ended)
    return ended


def _run_opened(
    opened: "OpenedPass", configs: Sequence[RunConfig], segmenter: Callable[..., Any] | None
) -> list[FinishedCell | UserError]:
    ended: dict[int, FinishedCell | UserError] = {}
    cells: dict[int, RunningCell] = {}
    first: dict[str, int] = {}  # of the cells with one key: their settings differ in nothing that changes numbers
    for number, config in enumerate(configs):
        try:
            cells[number] = opened.workers.together(partial(opened.cell, config, segmenter))
            first.setdefault(cells[number].key, number)
        except UserError as error:
            ended[number] = error
    left = {number: cells[number] for number in first.values()}
    try:
        while left:
            # What other processes compute comes last, and is waited for with no other cell in hand: no two processes
            # wait for each other.
            known = _run_unclaimed(left, opened)
            if not known:
                next(iter(left.values())).wait()
            ended |= known
            left = {number: cell for number, cell in left.items() if number not in known}
    finally:
        for cell in cells.values():
            cell.give_back()
    for number, cell in cells.items():
        end = ended.setdefault(number, ended[first[cell.key]])
        if isinstance(end, FinishedCell) and opened.workers.leads:
            opened.observer.finished(end, cell.images.dataset, cell.first_outcomes)
    return [ended[number] for number in range(len(configs))]


def _run_unclaimed(cells: dict[int, RunningCell], opened: "OpenedPass") -> dict[int, FinishedCell | UserError]:
    """How cells ended: found finished, scored, or why not. Those that another process computes now are left out."""
    ended: dict[int, FinishedCell | UserError] = {}
    running: dict[int, RunningCell] = {}
    for number, cell in cells.items():
        try:
            end = cell.found()
            if end is None and cell.claim():
                end = cell.found()  # another process may have finished it before the claim was had
                if end is None:
                    cell.open()
                    running[number] = cell
        except UserError as error:
            ended[number] = error
            continue
        if end is not None:
            ended[number] = end
    if running:
        _check_labels(opened, next(iter(running.values())).config)
        opened.workers.together(lambda: _score_and_close(list(running.values()), opened))
    for number, cell in running.items():
        try:
            ended[number] = cell.finish()
        except UserError as error:
            ended[number] = error
    for number in ended:
        cells[number].give_back()
    return ended


def _check_labels(opened: "OpenedPass", config: RunConfig) -> None:
    """`check_coverage` before anything is computed, unless the user has confirmed that the labels are as they are."""
    if not config.accept_labels:
        images = opened.images
        opened.workers.on_leader(lambda: check_coverage(images.dataset, images.indices))


@dataclass(frozen=True)
class OpenedPass:
    """What the cells of a pass share: images, features, and the processes that work on it."""

    images: ScoredImages
    features: FeatureSource
    workers: Workers
    observer: Observer
    namers: dict[str, ClassNamer | None] = field(default_factory=dict)  # by settings: a network of its own is in each

    def cell(self, config: RunConfig, segmenter: Callable[..., Any] | None = None) -> RunningCell:
        """A cell of the pass; ``segmenter``: see `run_cells`.

        Raises:
            UserError: an option of its own is out of range.
        """
        settings = cell_key(config.namer)
        if settings not in self.namers:
            namer = instantiate("namer", config.namer)
            dataset = self.images.dataset
            classes = (dataset.class_names, dataset.background, self.features.device)
            self.namers[settings] = None if namer is None else namer.for_classes(*classes)
        shared = (self.images, self.features, self.workers)
        return RunningCell(config, *shared, self.namers[settings], self.observer, segmenter)


def open_pass(config: RunConfig, observer: Observer | None = None) -> OpenedPass:
    """Open what the cells of a pass share; nothing is computed.

    Raises:
        UserError: data or weights are missing, or an option is out of range.
    """
    known_metrics()  # a broken one ends the run before anything is computed
    observer = observer or Observer()
    together = workers()
    device = choose_device(config.device, together.local_rank if together.count > 1 else None)
    whole = open_dataset(config, observer.preparing)
    dataset = whole.select(config.limit, config.limit_seed)
    indices = chosen_images(len(dataset), config.shard_of())
    if not indices:
        raise UserError(f"shard {config.shard} holds no image", f"{len(dataset)} images", "use fewer shards")
    features = open_features(config, device)
    try:
        fingerprint = dataset.fingerprint()
    except ValueError as error:
        raise UserError(f"{error}", f"dataset={dataset.name}", "fetch or unpack this file again") from error
    return OpenedPass(ScoredImages(whole, dataset, indices, fingerprint), features, together, observer)


def pass_key(config: RunConfig) -> str:
    """Equal for cells that one pass over the images can score: they differ in what happens after the features."""
    own = {"segmenter", "upsampler", "refiner", "namer", "protocol", "seed", "tracker", "choices"}
    shared = {name: value for name, value in config.to_dict().items() if name not in own}
    return cell_key(shared | framing_choices(config.protocol))


def open_dataset(config: RunConfig, report: Callable[[int, int], None] | None = None) -> SegmentationDataset:
    """The data set of a config: built as it is, or a published benchmark opened in its prepared form.

    Raises:
        UserError: nothing prepared and no originals, or files are missing.
    """
    built = instantiate("dataset", config.dataset)
    if isinstance(built, Benchmark):
        built = open_benchmark(built, Path(config.data_dir), config.prepared, config.num_proc, report)
    return replace(built, max_pixels=config.max_pixels)


def without_preparing(config: RunConfig) -> RunConfig:
    """The config with the prepared form that is on this disk, or else the originals, in the place of ``prepared=auto``:
    for a look, which prepares nothing."""
    built = instantiate("dataset", config.dataset)
    if not isinstance(built, Benchmark) or config.prepared != "auto":
        return config
    folder = prepared_folder(built, Path(config.data_dir).expanduser().absolute())
    there = "::" not in str(folder) and read_manifest(folder) is not None  # fsspec reads a::b as an address
    return replace(config, prepared=str(folder) if there else "never")


def open_features(config: RunConfig, device: torch.device) -> FeatureSource:
    """The backbone of a config on its device, behind the feature store of the config.

    Raises:
        UserError: weights are missing, an option is out of range, or the store's folder holds something else.
    """
    backbone = instantiate("backbone", config.backbone).to(device)
    framing = Framing.of(build_protocol(config.protocol), backbone)
    return open_source(backbone, config.backbone, framing, device, instantiate("features", config.features))


def chosen_images(images: int, shard: tuple[int, int] | None) -> range:
    """Places of the images that a shard ``(i, n)`` scores: every n-th from the i-th on; all without a shard."""
    return range(images) if shard is None else range(shard[0] - 1, images, shard[1])


def _score_and_close(cells: Sequence[RunningCell], opened: OpenedPass) -> None:
    """`_score`; whatever ends it, features that were computed are written."""
    try:
        _score(cells, opened)
    finally:
        with held_back():
            lines = opened.features.close()
        for line in lines:
            opened.observer.say(line)


def _score(cells: Sequence[RunningCell], opened: OpenedPass) -> None:
    """Score what the journals do not hold yet; of several processes each its share."""
    images, observer = opened.images, opened.observer
    todo = sorted(set().union(*(cell.todo for cell in cells)))
    looking = [cell.todo for cell in cells if "features" in cell.pipeline.segmenter.needs]
    for line in opened.features.announce(images.dataset, sorted(set().union(*looking))):
        observer.say(line)
    share = len(range(opened.workers.rank, len(images.indices), opened.workers.count))
    total = max(share, len(todo))
    done = total - len(todo)
    observer.scored(done, total)
    config = cells[0].config
    start = time.perf_counter()
    for batches in score_together(
        [cell.pipeline for cell in cells],
        images.dataset,
        [cell.todo for cell in cells],
        batch_size=config.batch_size,
        num_workers=config.num_workers,
    ):
        # The wall clock of a batch runs from the end of the one before: reading, drawing and writing are in it.
        wall, start = time.perf_counter() - start, time.perf_counter()
        counted = sum(batch.timings.wall_s for batch in batches)
        seen: set[int] = set()
        for cell, batch in zip(cells, batches, strict=True):
            seen |= {outcome.example.index for outcome in batch.outcomes} | set(batch.failures)
            cell.take(batch, wall * batch.timings.wall_s / counted)
        raise_if_interrupted()
        done += len(seen)
        observer.scored(done, total)
        if not any(cell.todo for cell in cells):
            break
