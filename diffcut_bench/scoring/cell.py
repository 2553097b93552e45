"""One cell while it is scored: its stages, its key, its journal, and at the end its result."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from diffcut_bench.config import RunConfig, build_protocol, instantiate
from diffcut_bench.datasets import SegmentationDataset
from diffcut_bench.environment import environment, installed_packages
from diffcut_bench.errors import UserError
from diffcut_bench.evaluation import (
    Protocol,
    choices_in_force,
)
from diffcut_bench.naming import ClassNamer
from diffcut_bench.paths import portable, portable_text
from diffcut_bench.scoring.events import Observer
from diffcut_bench.scoring.features import FeatureSource
from diffcut_bench.scoring.identity import cell_identity
from diffcut_bench.scoring.pipeline import Batch, Outcome, Pipeline, score_together
from diffcut_bench.scoring.summary import match_rows, segments_per_image, summarise, with_coverage
from diffcut_bench.scoring.workers import ALONE, Workers
from diffcut_bench.segmenters import as_segmenter
from diffcut_bench.store import (
    Cell,
    DatasetRecord,
    Failure,
    ImageRow,
    Progress,
    Result,
    Timings,
    cell_key,
    join_progress,
)


@dataclass(frozen=True)
class FinishedCell:
    """Where a cell lies, its result, and whether it had been finished before."""

    folder: Path
    result: Result
    skipped: bool


@dataclass(frozen=True)
class CellState:
    """How far a cell is.

    Attributes:
        folder, result: of a finished one.
        done: images scored.
        images: that the cell scores.
    """

    folder: Path | None
    result: Result | None
    done: int
    images: int


@dataclass(frozen=True)
class ScoredImages:
    """What the cells of a pass score."""

    whole: SegmentationDataset
    dataset: SegmentationDataset
    indices: Sequence[int]
    fingerprint: str


class RunningCell:
    """A cell of a pass: its stages, its place on disk, what this process still has to score of it.

    ``segmenter`` is the user's own in the place of the one that the config would build: see `run_cells`.
    """

    def __init__(
        self,
        config: RunConfig,
        images: ScoredImages,
        features: FeatureSource,
        workers: Workers = ALONE,
        namer: ClassNamer | None = None,
        observer: Observer | None = None,
        segmenter: Callable[..., Any] | None = None,
    ) -> None:
        self.config, self.images, self.workers = config, images, workers
        self.observer = observer or Observer()
        protocol = _effective_protocol(config, build_protocol(config.protocol), namer)
        method = instantiate("segmenter", config.segmenter) if segmenter is None else segmenter
        self.pipeline = Pipeline(
            features=features,
            segmenter=as_segmenter(method),
            upsampler=instantiate("upsampler", config.upsampler),
            refiner=instantiate("refiner", config.refiner),
            protocol=protocol,
            device=features.device,
            namer=namer,
            max_seconds=config.max_seconds,
        )
        _check_attention(config, self.pipeline)
        if protocol.matching == "dataset":
            _check_dataset_matching(config, self.pipeline, images.dataset)
        if protocol.matching == "named" and namer is None:
            raise UserError("matching=named scores names", "namer=none", "add namer=clip_b16, or choose a matching")
        self.identity = cell_identity(config, self.pipeline, images.dataset, images.fingerprint)
        self.key = cell_key(self.identity)
        title = "-".join(config.choices.get(group, "own") for group in ("dataset", "backbone", "segmenter"))
        self.cell = Cell(Path(config.output_dir), title, self.key, workers.rank)
        ids: list[str] = images.dataset.records["id"][:]
        self.ids = {index: ids[index] for index in images.indices}
        self.todo: set[int] = set()
        self.failed = 0  # failures of an interrupted run are tried again
        self.error: UserError | None = None

    def found(self) -> FinishedCell | None:
        """The cell if it is finished already and nothing is to be done anew, its missing pictures drawn."""
        finished, lines = self.workers.on_leader(self._find_finished)
        for line in lines:
            self.observer.say(line)
        if finished is None:
            return None
        if finished.failures:
            _check_failures(len(finished.failures), finished.failures[-1], self.config.max_failures)
        self.workers.on_leader(lambda: self._draw_missing(self.cell.finished_dir / "pictures"))
        return FinishedCell(self.cell.finished_dir, finished, skipped=True)

    def _find_finished(self) -> tuple[Result | None, list[str]]:
        """The finished result that is to be kept, and lines on what a reader of it must know."""
        result = self.cell.result()
        if self.cell.damage is not None:
            damage = self.cell.damage
            return None, [f"damaged  {damage.where}: {damage.what}; this cell is computed again"]
        if result is None or self.config.if_exists == "overwrite":
            return None, []
        if self.config.if_exists == "resume" and result.failures:
            return None, []
        return result, _changed_packages(result)

    def claim(self) -> bool:
        """Become the one process that computes this cell; False while another one is."""
        return self.workers.on_leader(self.cell.claim)

    def wait(self) -> None:
        """`claim`, as soon as the process that computes this cell has ended; who that is is said."""
        what = self.cell.finished_dir.name
        self.workers.on_leader(
            lambda: self.cell.wait(lambda holder: self.observer.say(f"waiting  {what} is being computed by {holder}"))
        )

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
        left = [index for index in self.images.indices if index not in done]
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
        done = len(self.images.indices) if result else len(self.cell.progress().of(self.ids).rows)
        return CellState(self.cell.finished_dir if result else None, result, done, len(self.images.indices))

    def outcomes(self, indices: Sequence[int]) -> Iterator[Outcome]:
        """Score images of the data set (again) to look at what comes out; nothing is counted or written."""
        for (batch,) in score_together(
            [self.pipeline],
            self.images.dataset,
            [indices],
            batch_size=self.config.batch_size,
            num_workers=self.config.num_workers,
        ):
            yield from batch.outcomes

    def first_outcomes(self, images: int) -> Iterator[Outcome]:
        """`outcomes` of so many images, from the first on."""
        return self.outcomes(self.images.indices[:images])

    def take(self, batch: Batch, wall_s: float) -> None:
        """Keep a batch; a cell with too many failures wants no more images."""
        if not batch.outcomes and not batch.failures:
            return
        for outcome in batch.outcomes:
            if self.observer.draws and outcome.example.index < self.config.visualise:
                path = picture_path(self.cell.work_dir / "pictures", outcome.example.id)
                self.observer.draw(outcome, self.images.dataset, path)
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

    def finish(self) -> FinishedCell:
        """Write the finished folder, once all processes have done their part."""
        errors = [error for error in self.workers.gather(self.error) if error is not None]
        if errors:
            raise errors[0]
        own = [part.of(self.ids) for part in self.cell.parts()]
        parts = [part for parts in self.workers.gather(own) for part in parts]
        result = self.workers.on_leader(lambda: self._write(join_progress(parts)))
        if not self.workers.leads:
            self.cell.discard()
        return FinishedCell(self.cell.finished_dir, result, skipped=False)

    def _write(self, progress: Progress) -> Result:
        config, dataset, protocol = self.config, self.images.dataset, self.pipeline.protocol
        if not progress.rows and progress.failures:
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
                "check the label values"
                + (
                    ", or use protocol.void=background"
                    if protocol.void == "ignore" and dataset.background is not None
                    else ""
                ),
            )
        if config.max_failures is not None and progress.failures:
            _check_failures(len(progress.failures), list(progress.failures.values())[-1], config.max_failures)
        self._draw_missing(self.cell.work_dir / "pictures")
        rows = progress.rows
        if protocol.matching == "dataset":
            rows = match_rows(rows, dataset.num_classes, protocol)
        wall = progress.timings.wall_s
        images, whole = len(self.images.indices), self.images.whole
        noise = self.pipeline.features.backbone.fingerprint().get("noise_generator", "none")
        result = Result(
            key=self.key,
            config=portable(config.to_dict(), config.output_dir),
            limited=images < max(len(whole), whole.n_expected or 0),
            dataset=with_coverage(
                DatasetRecord(dataset.name, self.images.fingerprint, images, whole.n_expected, len(whole)),
                rows,
                dataset.class_names,
            ),
            scores=summarise(rows, dataset.class_names, asdict(protocol), config.seed),
            segments_per_image=segments_per_image(rows),
            failures=[_portable(progress.failures[index], index, config) for index in sorted(progress.failures)],
            timings=replace(progress.timings, images_per_s=len(progress.rows) / wall if wall else 0.0),
            environment=environment(self.pipeline.device, config.seed, noise),
            protocol=choices_in_force(asdict(protocol)),
            identity=self.identity,
        )
        self.cell.finish(result, rows, OmegaConf.to_yaml(OmegaConf.create(result.config)), self.images.indices)
        return result

    def _draw_missing(self, folder: Path) -> None:
        """Pictures that a cell lacks; its numbers are left alone."""
        shown = [index for index in self.images.indices if index < self.config.visualise]
        missing = [index for index in shown if not picture_path(folder, self.ids[index]).is_file()]
        if not self.observer.draws or not missing:
            return
        for outcome in self.outcomes(missing):
            self.observer.draw(outcome, self.images.dataset, picture_path(folder, outcome.example.id))


def _changed_packages(result: Result) -> list[str]:
    """A line where a finished result was made with other versions than are installed."""
    here = installed_packages()
    then = {name: version for name, version in result.environment.packages.items() if name != "diffcut_bench"}
    changed = [f"{name} {version} (now {here.get(name, 'none')})" for name, version in then.items()]
    changed = [text for text, name in zip(changed, then, strict=True) if here.get(name) != then[name]]
    if not changed:
        return []
    return [f"versions  this result was made with {', '.join(changed)}; if_exists=overwrite computes it again"]


def _portable(failure: Failure, index: int, config: RunConfig) -> Failure:
    """With its place in the data set, without places of this machine."""
    return replace(failure, error=portable_text(failure.error, config.to_dict(), config.output_dir), index=index)


def _check_failures(failed: int, latest: Failure, allowed: int | None) -> None:
    if allowed is not None and failed > allowed:
        raise UserError(
            f"{failed} failed, more than max_failures={allowed}; the last: {latest.error}",
            latest.id,
            "mend the data, or raise max_failures",
        )


def picture_path(folder: Path, image_id: str) -> Path:
    """Where the picture of an image lies in a cell's folder of pictures."""
    return folder / f"{_file_name(image_id)}.png"


def _check_attention(config: RunConfig, pipeline: Pipeline) -> None:
    """Channels that a segmenter takes for attention have to be what the backbone appended."""
    taken = pipeline.segmenter.attention_channels
    given = pipeline.features.backbone.attention_channels
    if taken is not None and taken != given:
        raise UserError(
            f"the segmenter takes the last {taken} channels for attention, and the backbone gives {given} of it",
            f"segmenter={config.choices.get('segmenter')} backbone={config.choices.get('backbone')}",
            f"segmenter.attention_channels={given}",
        )


def _check_dataset_matching(config: RunConfig, pipeline: Pipeline, dataset: SegmentationDataset) -> None:
    """One matching for the data set wants cluster ids that mean the same everywhere, and reach it unchanged."""
    where = f"segmenter={config.choices.get('segmenter')}"
    if not pipeline.segmenter.consistent_ids:
        raise UserError(
            "matching=dataset needs cluster ids that mean the same in every image",
            f"{where} numbers the segments of each image anew",
            "use protocol.matching=per_image",
        )
    if pipeline.refiner is not None:
        raise UserError("matching=dataset: a refiner numbers segments anew", where, "add refiner=none")
    if dataset.background is not None and pipeline.protocol.background_rule != "one_to_one":
        rule = f"background_rule={pipeline.protocol.background_rule}"
        raise UserError(
            "matching=dataset: a background rule merges clusters image by image",
            f"{where}, {rule}",
            "add protocol.background_rule=one_to_one",
        )


def _file_name(image_id: str) -> str:
    """A name for each id: two ids never share one."""
    return image_id.replace("%", "%25").replace("/", "%2F")


def _row(outcome: Outcome) -> ImageRow:
    tp, fp, fn = (counts.tolist() for counts in outcome.counts)
    table = None
    if outcome.table is not None:
        places = outcome.table.nonzero()
        table = torch.cat([places, outcome.table[places[:, 0], places[:, 1]][:, None]], dim=1).tolist()
    example, void = outcome.example, outcome.example.label.numel() - outcome.pixels
    return ImageRow(
        example.index, example.id, outcome.segments, outcome.pixels, tp, fp, fn, table, void, outcome.measured
    )


def _effective_protocol(config: RunConfig, protocol: Protocol, namer: ClassNamer | None) -> Protocol:
    """The protocol with what the stages' own options say in its place. Names need no matching, and merge what is
    background by themselves."""
    overridden: dict[str, Any] = {
        name: stage[name]
        for stage, names in ((config.segmenter, ("label_codes", "zero_affinity")), (config.upsampler, ("similarity",)))
        for name in names
        if name in stage
    }
    if namer is not None:
        overridden |= {"matching": "named", "background_rule": "one_to_one"}
        overridden |= {"name_pooling": namer.pooling, "name_input": namer.encoder.input}
    return build_protocol({**asdict(protocol), **overridden})
