"""From checked configs to finished cells: one pass over the images scores all cells that can share it."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from diffcut_bench.config import RunConfig, instantiate
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
from diffcut_bench.interruption import raise_if_interrupted
from diffcut_bench.scoring.cell import OpenedPass, RunningCell
from diffcut_bench.scoring.events import FinishedCell, Observer
from diffcut_bench.scoring.features import open_features, open_linked
from diffcut_bench.scoring.framing import framing_choices
from diffcut_bench.scoring.pipeline import score_together
from diffcut_bench.scoring.reference import add_references
from diffcut_bench.scoring.workers import workers
from diffcut_bench.store import cell_key, log_error


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
        for end in ended:
            log_error(Path(configs[0].output_dir), end if isinstance(end, UserError) else None)
    except UserError as error:
        log_error(Path(configs[0].output_dir), error)
        raise
    finally:
        observer.end(ended)
    return ended


def _run_opened(
    opened: OpenedPass, configs: Sequence[RunConfig], segmenter: Callable[..., Any] | None
) -> list[FinishedCell | UserError]:
    keys: list[str | UserError] = []
    cells: dict[str, RunningCell] = {}  # settings of cells with one key differ in nothing that changes numbers
    for config in configs:
        try:
            cell = opened.workers.together(partial(opened.cell, config, segmenter))
            cells.setdefault(cell.key, cell)
            keys.append(cell.key)
        except UserError as error:
            keys.append(error)
    ended: dict[str, FinishedCell | UserError] = {}
    try:
        while left := [cell for cell in cells.values() if cell.key not in ended]:
            # What other processes compute comes last, and is waited for with no other cell in hand: no two processes
            # wait for each other.
            known = _run_unclaimed(left, opened)
            if not known:
                left[0].wait()
            ended |= known
    finally:
        for cell in cells.values():
            cell.give_back()
    for key in keys:
        end = None if isinstance(key, UserError) else ended[key]
        if isinstance(end, FinishedCell) and opened.workers.leads:
            opened.observer.finished(end, opened.dataset, cells[end.result.key].first_outcomes)
    return [key if isinstance(key, UserError) else ended[key] for key in keys]


def _run_unclaimed(cells: Sequence[RunningCell], opened: OpenedPass) -> dict[str, FinishedCell | UserError]:
    """How cells ended: found finished, scored, or why not. Those that another process computes now are left out."""
    ended: dict[str, FinishedCell | UserError] = {}
    running: list[RunningCell] = []
    for cell in cells:
        try:
            end = cell.found()
            if end is None and cell.claim():
                end = cell.found()  # another process may have finished it before the claim was had
                if end is None:
                    cell.open()
                    running.append(cell)
            if end is not None:
                ended[cell.key] = end
        except UserError as error:
            ended[cell.key] = error
    if running:
        if not running[0].config.accept_labels:
            opened.workers.on_leader(lambda: check_coverage(opened.dataset, opened.indices))
        opened.workers.together(lambda: _score(running, opened))
    for cell in running:
        try:
            cell.gather()
        except UserError as error:
            ended[cell.key] = error
    scored = [cell for cell in running if cell.key not in ended]
    found = [(cell, known) for cell in cells if isinstance(known := ended.get(cell.key), FinishedCell)]
    filled = opened.workers.on_leader(lambda: add_references(scored, found, opened))
    ended |= {cell.key: replace(end, result=filled.get(cell.key, end.result)) for cell, end in found}
    for cell in scored:
        try:
            ended[cell.key] = cell.finish()
        except UserError as error:
            ended[cell.key] = error
    for cell in cells:
        if cell.key in ended:
            cell.give_back()
    return ended


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
    linked = open_linked(config, device)
    return OpenedPass(whole, dataset, indices, data_fingerprint(dataset), features, together, observer, linked)


def pass_key(config: RunConfig) -> str:
    """Equal for cells that one pass over the images can score: they differ in what happens after the features."""
    own = {"segmenter", "upsampler", "refiner", "smallest_segment", "namer", "linker", "protocol"}
    own |= {"seed", "score", "tracker", "choices"}
    shared = {name: value for name, value in config.to_dict().items() if name not in own}
    return cell_key({**shared, **framing_choices(config.protocol), "linked_by": config.linker.get("backbone")})


def open_dataset(config: RunConfig, report: Callable[[int, int], None] | None = None) -> SegmentationDataset:
    """The data set of a config: built as it is, or a published benchmark opened in its prepared form.

    Raises:
        UserError: nothing prepared and no originals, or files are missing.
    """
    built = instantiate("dataset", config.dataset)
    if isinstance(built, Benchmark):
        built = open_benchmark(built, Path(config.data_dir), config.prepared, config.num_proc, report)
    return replace(built, max_pixels=config.max_pixels)


def data_fingerprint(dataset: SegmentationDataset) -> str:
    """SHA-256 of the ids, files and label meaning of a data set.

    Raises:
        UserError: a file can't be read.
    """
    try:
        return dataset.fingerprint()
    except ValueError as error:
        raise UserError(f"{error}", f"dataset={dataset.name}", "fetch or unpack this file again") from error


def without_preparing(config: RunConfig) -> RunConfig:
    """The config with the prepared form that is on this disk, or else the originals, in the place of ``prepared=auto``:
    for a look, which prepares nothing."""
    built = instantiate("dataset", config.dataset)
    if not isinstance(built, Benchmark) or config.prepared != "auto":
        return config
    folder = prepared_folder(built, Path(config.data_dir).expanduser().absolute())
    there = "::" not in str(folder) and read_manifest(folder) is not None  # fsspec reads a::b as an address
    return replace(config, prepared=str(folder) if there else "never")


def chosen_images(images: int, shard: tuple[int, int] | None) -> range:
    """Indices of the images that a shard ``(i, n)`` scores: every n-th from the i-th on; all without a shard."""
    return range(images) if shard is None else range(shard[0] - 1, images, shard[1])


def _score(cells: Sequence[RunningCell], opened: OpenedPass) -> None:
    """Score what the journals do not hold yet; of several processes each its share."""
    observer, workers, config = opened.observer, opened.workers, cells[0].config
    todo = set().union(*(cell.todo for cell in cells))
    looked_at = set().union(*(cell.todo for cell in cells if cell.pipeline.needs_features))
    total = max(len(opened.indices[workers.rank :: workers.count]), len(todo))
    done = total - len(todo)
    with ExitStack() as in_use:
        in_use.enter_context(opened.features.in_use(opened.dataset, sorted(looked_at), observer.say))
        if opened.linked_by is not None:
            linked = set().union(*(cell.todo for cell in cells if cell.pipeline.linker is not None))
            in_use.enter_context(opened.linked_by.in_use(opened.dataset, sorted(linked), observer.say))
        observer.scored(done, total)
        pipelines, wanted = [cell.pipeline for cell in cells], [cell.todo for cell in cells]
        shown = set().union(*(cell.shown for cell in cells))
        at_once, num_workers = config.batch_size, config.num_workers
        start, spent = time.perf_counter(), dict[str, float]()
        for batches in score_together(pipelines, opened.dataset, wanted, at_once, num_workers, shown):
            # The wall clock of a batch runs from the end of the one before: reading, drawing and writing are in it.
            wall, start = time.perf_counter() - start, time.perf_counter()
            counted = sum(batch.timings.wall_s for batch in batches)
            for cell, batch in zip(cells, batches, strict=True):
                cell.take(batch, wall * batch.timings.wall_s / counted)
            raise_if_interrupted()
            done += len(set().union(*(batch.indices for batch in batches)))
            for stage, seconds in (each for batch in batches for each in batch.seconds.items() if each[0] != "wall_s"):
                spent[stage] = spent.get(stage, 0.0) + seconds
            observer.stages(spent)
            observer.scored(done, total)
            if not any(wanted):
                break
