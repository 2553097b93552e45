"""One cell while it is scored: its stages, its key, its journal, and at the end its result."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from diffcut_bench.config import RunConfig, instantiate
from diffcut_bench.datasets import SegmentationDataset
from diffcut_bench.environment import environment, installed_packages
from diffcut_bench.errors import UserError
from diffcut_bench.evaluation import Protocol, choices_in_force
from diffcut_bench.naming import ClassNamer
from diffcut_bench.paths import portable, portable_text
from diffcut_bench.scoring.events import FinishedCell, Observer
from diffcut_bench.scoring.features import FeatureSource
from diffcut_bench.scoring.identity import cell_identity
from diffcut_bench.scoring.pipeline import Batch, Outcome, score_together
from diffcut_bench.scoring.stages import Pipeline
from diffcut_bench.scoring.summary import count_rows, summarise_cell
from diffcut_bench.scoring.workers import Workers
from diffcut_bench.store import (
    Cell,
    DatasetRecord,
    Failure,
    ImageRow,
    Linking,
    Progress,
    Reference,
    Result,
    Timings,
    cell_key,
    join_progress,
    log_trace,
    pack_prototypes,
    republish,
)
from diffcut_bench.traces import CodeError, Trace


@dataclass(frozen=True)
class CellState:
    """How far a cell is.

    Attributes:
        result: of a finished one.
        done: images scored.
        images: that the cell scores.
    """

    result: Result | None
    done: int
    images: int


@dataclass(frozen=True)
class OpenedPass:
    """What the cells of a pass share.

    Attributes:
        whole, dataset: the data set, and what ``limit`` leaves of it.
        indices: of the images in ``dataset`` that are scored; all, unless there are shards.
        fingerprint: of ``dataset``.
        features: of its images.
        workers: the processes that work on it.
        observer: is told what happens.
        linked_by: features that linkers compare, where they are not ``features``.
        namers: by their settings, since each holds a network of its own.
    """

    whole: SegmentationDataset
    dataset: SegmentationDataset
    indices: Sequence[int]
    fingerprint: str
    features: FeatureSource
    workers: Workers
    observer: Observer
    linked_by: FeatureSource | None = None
    namers: dict[str, ClassNamer | None] = field(default_factory=dict)

    def cell(self, config: RunConfig, segmenter: Callable[..., Any] | None = None) -> "RunningCell":
        """A cell of the pass; ``segmenter``: the user's own, in the place of the one that the config would build.

        Raises:
            UserError: an option of its own is out of range.
        """
        settings = cell_key(config.namer)
        if settings not in self.namers:
            namer, dataset = instantiate("namer", config.namer), self.dataset
            if namer is not None:
                namer = namer.for_classes(dataset.class_names, dataset.background, self.features.device)
            self.namers[settings] = namer
        return RunningCell(config, self, self.namers[settings], segmenter)


@dataclass(frozen=True)
class Bug:
    """An exception in a stage or data set, with the first image that met it.

    Attributes:
        index, id: of the image.
        trace: of the exception.
        log: file that holds the traceback; None where it could not be written.
    """

    index: int
    id: str
    trace: Trace
    log: Path | None

    def error(self, what: str) -> CodeError:
        """What ends a run, and that it came of this."""
        return CodeError(f"{what}: {self.trace.error}", f"image {self.id}", self.trace.hint, self.trace, self.log)

    @property
    def line(self) -> str:
        """What is said where other images could be scored."""
        return f"failed   {self.id}: {self.trace.error}\n{self.trace.told(self.log)}"


class RunningCell:
    """A cell of a pass: its stages, its folder on disk, what this process still has to score of it."""

    def __init__(
        self,
        config: RunConfig,
        opened: OpenedPass,
        namer: ClassNamer | None = None,
        segmenter: Callable[..., Any] | None = None,
    ) -> None:
        self.config, self.opened, self.dataset = config, opened, opened.dataset
        self.workers, self.observer = opened.workers, opened.observer
        self.pipeline = Pipeline.of(config, opened.features, namer, segmenter, opened.linked_by)
        _check_matching(config, self.pipeline, self.dataset)
        self.identity = cell_identity(config, self.pipeline, self.dataset, opened.fingerprint)
        self.key = cell_key(self.identity)
        title = "-".join(config.choices.get(group, "own") for group in ("dataset", "backbone", "segmenter"))
        self.cell = Cell(Path(config.output_dir), title, self.key, self.workers.rank)
        ids: list[str] = self.dataset.ids
        self.ids = {index: ids[index] for index in opened.indices}
        self.cell.about = {"images": len(self.ids), "config": portable(config.to_dict(), config.output_dir)}
        self.shown = {index for index in self.ids if self.observer.draws and index < config.visualise}
        self.todo: set[int] = set()
        self.failures: list[Failure] = []  # those of an interrupted run are tried again
        self.bugs: dict[str, Bug] = {}  # by their origin
        self.error: UserError | None = None
        self.progress = Progress([], {}, Timings())  # of all processes, once all have done their part
        self.reference: Reference | None = None

    def found(self) -> FinishedCell | None:
        """The cell if it is finished already and nothing is to be done anew, its missing pictures drawn."""
        finished, lines = self.workers.on_leader(self._find_finished)
        for line in lines:
            self.observer.say(line)
        if finished is None:
            return None
        check_failures(finished.failures, self.config.max_failures)
        self.workers.on_leader(lambda: self._draw_missing(self.cell.finished_dir / "pictures"))
        return FinishedCell(self.cell.finished_dir, finished, skipped=True)

    def _find_finished(self) -> tuple[Result | None, list[str]]:
        """The finished result that is to be kept, and lines on what a reader of it must know."""
        result, damage, if_exists = self.cell.result(), self.cell.damage, self.config.if_exists
        if damage is not None:
            return None, [f"damaged  {damage.where}: {damage.what}; this cell is computed again"]
        if result is None or if_exists == "overwrite" or (if_exists == "resume" and result.failures):
            return None, []
        return result, _changed_packages(result)

    def claim(self) -> bool:
        """Become the one process that computes this cell; False while another one is."""
        return self.workers.on_leader(self.cell.claim)

    def wait(self) -> None:
        """`claim`, as soon as the process that computes this cell has ended; who that is is said."""

        def say(holder: str) -> None:
            self.observer.say(f"waiting  {self.cell.finished_dir.name} is being computed by {holder}")

        self.workers.on_leader(lambda: self.cell.wait(say))

    def give_back(self) -> None:
        """Let another process compute this cell, if this one is computing it."""
        if self.workers.leads:
            self.cell.give_back()

    def open(self) -> None:
        """Continue where the cell was; `claim` has said yes."""
        self.workers.on_leader(self._prepare)
        progress = self.cell.progress()
        if progress.damaged:
            lines = f"{progress.damaged} lines of {self.cell.work_dir.name}"
            self.observer.say(f"journal  {lines} were cut off or damaged: their images are computed again")
        done = set().union(*self.workers.gather({row.index for row in progress.of(self.ids).rows}))
        left = [index for index in self.ids if index not in done]
        self.todo = set(left[self.workers.rank :: self.workers.count])
        # Written before any work, so that an unwritable folder costs nothing.
        self.workers.together(lambda: self.cell.append([], {}, Timings()))

    def _prepare(self) -> None:
        """Begin anew, or again with the images of a finished cell that failed, where that was asked for."""
        if self.config.if_exists == "overwrite":
            self.cell.start_over()
        elif self.config.if_exists == "resume" and self.cell.result() is not None:
            self.cell.reopen()

    def state(self) -> CellState:
        """Where the cell stands on disk; nothing is written."""
        result = self.cell.result()
        done = len(self.ids) if result else len(self.cell.progress().of(self.ids).rows)
        return CellState(result, done, len(self.ids))

    def outcomes(self, indices: Sequence[int]) -> Iterator[Outcome]:
        """Score images of the data set (again) to look at what comes out, pictures and all; nothing is counted or
        written."""
        at_once, workers = self.config.batch_size, self.config.num_workers
        for (batch,) in score_together([self.pipeline], self.dataset, [indices], at_once, workers, shown=indices):
            yield from batch.outcomes

    def first_outcomes(self, images: int) -> Iterator[Outcome]:
        """`outcomes` of so many images, from the first on."""
        return self.outcomes(self.opened.indices[:images])

    def take(self, batch: Batch, wall_s: float) -> None:
        """Keep a batch; a cell with too many failures wants no more images."""
        if not batch.indices:
            return
        for outcome in batch.outcomes:
            if outcome.example.index in self.shown:
                self._draw(outcome, self.cell.work_dir / "pictures")
        rows = [image_row(outcome) for outcome in batch.outcomes]
        self.cell.append(rows, batch.failures, replace(batch.timings, wall_s=wall_s))
        self.todo -= batch.indices
        self.failures += batch.failures.values()
        for index, trace in sorted(batch.traces.items()):
            if trace.origin not in self.bugs:
                log = log_trace(Path(self.config.output_dir), trace, f"image {self.ids[index]}")
                self.bugs[trace.origin] = Bug(index, self.ids[index], trace, log)
        try:
            check_failures(self.failures, self.config.max_failures, list(self.bugs.values()))
        except UserError as error:
            self.error = error
            self.todo.clear()

    def gather(self) -> None:
        """Bring together what all processes did, once each has done its part.

        Raises:
            UserError: too many images failed.
        """
        errors = [error for error in self.workers.gather(self.error) if error is not None]
        if errors:
            raise errors[0]
        self.bugs = {origin: bug for bugs in reversed(self.workers.gather(self.bugs)) for origin, bug in bugs.items()}
        own = [part.of(self.ids) for part in self.cell.parts()]
        self.progress = join_progress([part for parts in self.workers.gather(own) for part in parts])

    @cached_property
    def counted(self) -> tuple[list[ImageRow], Linking | None]:
        """Rows of all images with their counts, and what the linker gave; on the leader, after `gather`."""
        return count_rows(self.progress.rows, self.dataset.num_classes, self.pipeline.protocol, self.pipeline.linker)

    def finish(self) -> FinishedCell:
        """Write the finished folder; `gather` was called."""
        result = self.workers.on_leader(lambda: self._write(self.progress))
        if not self.workers.leads:
            self.cell.discard()
        return FinishedCell(self.cell.finished_dir, result, skipped=False)

    def _write(self, progress: Progress) -> Result:
        config, protocol = self.config, self.pipeline.protocol
        bugs = sorted(self.bugs.values(), key=lambda bug: bug.index)
        _check_scored(progress, self.dataset, protocol, bugs)
        check_failures(list(progress.failures.values()), config.max_failures, bugs)
        for bug in bugs:
            self.observer.say(bug.line)
        self._draw_missing(self.cell.work_dir / "pictures")
        whole, images = self.opened.whole, len(self.ids)
        record = DatasetRecord(self.dataset.name, self.opened.fingerprint, images, whole.n_expected, len(whole))
        names = self.dataset.class_names
        rows, linking = self.counted
        summary = summarise_cell(rows, record, names, protocol, config.seed, progress.timings, linking)
        noise = self.pipeline.features.backbone.fingerprint().get("noise_generator", "none")
        # As others may see them: without paths of this machine.
        failures = [
            replace(failure, error=portable_text(failure.error, config.to_dict(), config.output_dir), index=index)
            for index, failure in sorted(progress.failures.items())
        ]
        result = Result(
            key=self.key,
            config=portable(config.to_dict(), config.output_dir),
            failures=failures,
            environment=environment(self.opened.features.device, config.seed, noise),
            protocol=choices_in_force(asdict(protocol)),
            identity=self.identity,
            reference=self.reference,
            **summary,
        )
        self.cell.finish(result, rows, OmegaConf.to_yaml(OmegaConf.create(result.config)), self.ids)
        return result

    def fill_in(self) -> Result | None:
        """Add the reference to a finished result that was written without one, its numbers untouched; on the leader.

        Returns:
            What is on disk then; None where another process is writing the cell.
        """
        if not self.cell.claim():
            return None
        result = self.cell.result()
        if result is not None and result.reference is None:
            result = replace(result, reference=self.reference)
            republish(self.cell.finished_dir, result)
        return result

    def _draw_missing(self, folder: Path) -> None:
        """Pictures that a cell lacks; its numbers are left alone."""
        missing = [
            index
            for index in sorted(self.shown)
            if not all(path.is_file() for path in self._files_of(picture_path(folder, self.ids[index])))
        ]
        for outcome in self.outcomes(missing) if missing else ():
            self._draw(outcome, folder)

    def _draw(self, outcome: Outcome, folder: Path) -> None:
        picture, *pages = self._files_of(picture_path(folder, outcome.example.id))
        self.observer.draw(outcome, self.dataset, picture)
        for page in pages:
            self.observer.explore(outcome, self.pipeline, self.dataset, page)

    def _files_of(self, picture: Path) -> list[Path]:
        """A picture, and its page where the config wants one and the segments at every tau come from one tree."""
        wanted = self.config.explore and self.pipeline.tree_method is not None
        return [picture, picture.with_suffix(".html")] if wanted else [picture]


def _changed_packages(result: Result) -> list[str]:
    """A line where a finished result was made with other versions than are installed."""
    here = installed_packages()
    changed = [
        f"{name} {version} (now {here.get(name, 'none')})"
        for name, version in result.environment.packages.items()
        # A result of old may name torch without its build.
        if name != "diffcut_bench" and version not in (here.get(name), here.get(name, "").partition("+")[0])
    ]
    if not changed:
        return []
    return [f"versions  this result was made with {', '.join(changed)}; if_exists=overwrite computes it again"]


def check_failures(failures: Sequence[Failure], allowed: int | None, bugs: Sequence[Bug] = ()) -> None:
    """Raise a UserError for more failures than are allowed; None: any number is."""
    if allowed is not None and len(failures) > allowed:
        what = f"{len(failures)} failed, more than max_failures={allowed}"
        if bugs:
            raise bugs[-1].error(f"{what}; the last of this kind") from bugs[-1].trace.cause
        raise UserError(
            f"{what}; the last: {failures[-1].error}", failures[-1].id, "mend the data, or raise max_failures"
        )


def _check_scored(
    progress: Progress, dataset: SegmentationDataset, protocol: Protocol, bugs: Sequence[Bug] = ()
) -> None:
    """Raise a UserError where nothing could be scored."""
    if not progress.rows and bugs:
        raise bugs[0].error("no image could be scored; the first") from bugs[0].trace.cause
    if not progress.rows and progress.failures:
        first = next(iter(progress.failures.values()))
        alike = len({failure.error for failure in progress.failures.values()}) == 1 < len(progress.failures)
        what = f"no image could be scored; the first: {first.error}"
        wrong = "the backbone's or segmenter's options" if alike else "the data"
        raise UserError(what, first.id, f"mend {wrong}, then run again")
    if not any(row.pixels for row in progress.rows):
        where, hint = f"dataset={dataset.name}, void={protocol.void}", "check the label values"
        if protocol.void == "ignore" and dataset.background is not None:
            hint += ", or use protocol.void=background"
        raise UserError("no pixel could be scored: every label is void", where, hint)


def picture_path(folder: Path, image_id: str) -> Path:
    """Path of an image's picture in a cell's folder of pictures; two ids never share one."""
    return folder / f"{image_id.replace('%', '%25').replace('/', '%2F')}.png"


def _check_matching(config: RunConfig, pipeline: Pipeline, dataset: SegmentationDataset) -> None:
    """Raise a UserError for stages that do not go with the matching of the protocol."""
    segmenter, protocol = pipeline.segmenter, pipeline.protocol
    if dataset.annotators and protocol.matching != "regions":
        what = f"labels of dataset={dataset.name} are segments of annotators, which no class is matched with"
        where = f"protocol={config.choices.get('protocol')}, matching={protocol.matching}"
        others = [f" {group}=none" for group in ("namer", "linker") if getattr(pipeline, group) is not None]
        raise UserError(what, where, "".join(["use protocol=bsds", *others]))
    if protocol.matching == "regions" and not dataset.annotators:
        what = "matching=regions is of segments that annotators drew"
        raise UserError(what, f"dataset={dataset.name} has classes", "use protocol=strict, or dataset=bsds500")
    if protocol.matching == "regions" and "class_counts" in segmenter.needs:
        where = f"segmenter={config.choices.get('segmenter')} counts annotated classes"
        raise UserError("matching=regions knows no classes", where, "give it a number of its own")
    if protocol.matching == "named" and pipeline.namer is None:
        raise UserError("matching=named scores names", "namer=none", "add namer=clip_b16, or choose a matching")
    if protocol.matching != "dataset" or pipeline.linker is not None:
        return
    # One matching for the data set: cluster ids have to mean the same in all images, and to reach it unchanged.
    where = f"segmenter={config.choices.get('segmenter')}"
    if not segmenter.consistent_ids:
        what = "matching=dataset needs cluster ids that mean the same in every image"
        where = f"{where} numbers the segments of each image anew"
        raise UserError(what, where, "use protocol.matching=per_image, or add linker=kmeans (docs/linking.md)")
    if pipeline.refiner is not None:
        raise UserError("matching=dataset: a refiner numbers segments anew", where, "add refiner=none")
    if dataset.background is not None and protocol.background_rule != "one_to_one":
        what = "matching=dataset: a background rule merges clusters image by image"
        where = f"{where}, background_rule={protocol.background_rule}"
        raise UserError(what, where, "add protocol.background_rule=one_to_one")


def image_row(outcome: Outcome) -> ImageRow:
    """What is kept of an outcome."""
    tp, fp, fn = (counts.tolist() for counts in outcome.counts)
    table = None
    if outcome.table is not None:
        entries = outcome.table.nonzero()
        table = torch.cat([entries, outcome.table[entries[:, 0], entries[:, 1]][:, None]], dim=1).tolist()
    example, pixels = outcome.example, outcome.pixels
    void = example.label.numel() - pixels
    measured = outcome.measured
    packed = None if outcome.prototypes is None else pack_prototypes(outcome.prototypes.numpy())
    return ImageRow(example.index, example.id, outcome.segments, pixels, tp, fp, fn, table, void, measured, packed)
