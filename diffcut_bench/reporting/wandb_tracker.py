"""Finished cells and sweeps as runs of Weights & Biases. Results on disk stay the truth: whatever fails here becomes
one line, and nothing here writes to the terminal or to the current directory."""

import hashlib
import itertools
import json
import math
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from diffcut_bench.datasets import SegmentationDataset
from diffcut_bench.evaluation import contingency_table
from diffcut_bench.reporting.pictures import matched_classes
from diffcut_bench.reporting.settings import heading, is_number, settings_of, varying_names
from diffcut_bench.scoring.pipeline import Outcome
from diffcut_bench.store import ImageRow, Result, read_rows, write_atomically

if TYPE_CHECKING:
    import wandb  # at run time only where it is used: it takes half a second

Mode = Literal["online", "offline"]
Rows = tuple[list[str], list[list[Any]]]  # headings, and rows of values

_RECORD = "wandb.json"
_ID_DIGITS = 12
_FINISH_S = 300.0  # for what is left to upload at the end of a run; W&B itself would wait for ever
_TAGGED = ("dataset", "backbone", "segmenter")


@dataclass(frozen=True)
class WandbTracker:
    """``tracker=wandb``; docs/tracking.md shows what it logs.

    Attributes:
        folder: that everything of W&B's is written to.
        project, entity: where the runs go; without an entity, to the login's own.
        mode: ``auto`` is online where there is a login and offline elsewhere; ``online``; ``offline``.
        group: of all runs; None: each sweep is a group.
        tags: of all runs, beside the names of data set, backbone and segmenter.
        examples: images of a cell that are shown with their masks.

    Raises:
        ValueError: a value is out of range.
    """

    folder: str
    project: str = "diffcut_bench"
    entity: str | None = None
    mode: str = "auto"
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    examples: int = 4

    def __post_init__(self) -> None:
        if self.mode not in ("auto", "online", "offline"):
            raise ValueError(f"mode must be auto, online or offline, not {self.mode!r}")
        if self.examples < 0:
            raise ValueError(f"examples must be at least 0, not {self.examples}")

    def log_cell(
        self,
        folder: Path,
        result: Result,
        dataset: SegmentationDataset,
        outcomes: Callable[[int], Iterable[Outcome]],
        group: str | None = None,
    ) -> list[str]:
        """Log a finished cell, unless that was done before.

        Args:
            folder: of the cell; ``wandb.json`` in it says that it was logged, and where to.
            result: of the cell.
            dataset: that was scored.
            outcomes: gives up to so many scored images; where it fails, the cell is logged without examples.
            group: name of the sweep that the cell belongs to.

        Returns:
            Lines for the user: how to sync, where the run is, or what failed. Nothing is raised.
        """

        def log() -> list[str]:
            if _logged(folder):
                return []
            rows = read_rows(folder)
            shown, missing = self._outcomes(outcomes)
            choices = [name for choice in _TAGGED if (name := result.config.get("choices", {}).get(choice))]
            with self._run(
                id=result.key[:_ID_DIGITS],
                name=folder.name,
                job_type="cell",
                group=self.group or group,
                tags=list(dict.fromkeys([*self.tags, *choices])),
                config=_config(result),
                commit=result.environment.git.get("commit"),
            ) as (run, mode):
                run.log({**_metrics(result), "classes": _table(_class_rows(result, rows))})
                try:
                    images = _images(shown, dataset, rows)
                    if images:
                        run.log({"examples": images})
                except Exception as error:
                    missing = _in_one_line(error)
                directory, url = Path(run.dir).parent, run.url
            record = {"id": result.key[:_ID_DIGITS], "mode": mode, "directory": str(directory), "url": url}
            write_atomically(folder / _RECORD, json.dumps(record, indent=1) + "\n")
            lines = [f"wandb: {folder.name} has no example segmentations there ({missing})"] if missing else []
            return [*lines, _where(mode, directory, url)]

        return _failure_as_line(folder.name, log)

    def log_sweep(self, name: str, results: Sequence[Result]) -> list[str]:
        """Log a sweep as one more run of its group: mIoU against what was varied, and the table of its cells.

        Args:
            name: of the sweep; logging it again goes to the same run.
            results: of its cells.

        Returns:
            Lines for the user, as in `log_cell`.
        """

        def log() -> list[str]:
            if not results:
                return []
            with self._run(
                id=hashlib.sha256(name.encode()).hexdigest()[:_ID_DIGITS],
                name=name,
                job_type="sweep",
                group=self.group or name,
                tags=self.tags,
                config={"cells": [result.key for result in results]},
                commit=results[0].environment.git.get("commit"),
            ) as (run, mode):
                run.log({"cells": _table(_cell_rows(results)), **_curves(results)})
                directory, url = Path(run.dir).parent, run.url
            return [_where(mode, directory, url)]

        return _failure_as_line(f"sweep {name}", log)

    def _outcomes(self, outcomes: Callable[[int], Iterable[Outcome]]) -> tuple[list[Outcome], str]:
        """Scored images, and what kept further ones away."""
        shown: list[Outcome] = []
        try:
            if self.examples:
                for outcome in itertools.islice(outcomes(self.examples), self.examples):
                    shown.append(outcome)
        except Exception as error:
            return shown, _in_one_line(error)
        return shown, ""

    @contextmanager
    def _run(
        self,
        *,
        id: str,
        name: str,
        job_type: str,
        group: str | None,
        tags: Sequence[str],
        config: dict[str, Any],
        commit: str | None,
    ) -> Iterator[tuple["wandb.Run", Mode]]:
        """A run that is finished at the end; nothing goes to it but what it is given."""
        import wandb

        folder = Path(self.folder).absolute()
        with _kept_to(folder):
            session = wandb.setup(wandb.Settings(silent=True)).settings
            mode = self._mode(session)
            settings = wandb.Settings(
                console="off",
                reinit="create_new",  # a run that the caller has open is left alone
                finish_timeout=session.finish_timeout or _FINISH_S,
                finish_timeout_raises=True,
                allow_offline_artifacts=False,  # tables lie in the run's folder, which can be synced from anywhere
                # The commit is the one that the numbers were made with, not the one checked out now.
                git_commit=commit,
                disable_git=True,
                disable_code=True,
                save_code=False,
                host="",
                x_disable_meta=True,
                x_disable_machine_info=True,
                x_disable_stats=True,
                x_save_requirements=False,
            )
            with wandb.init(
                dir=str(folder),
                project=self.project,
                entity=self.entity,
                mode=mode,
                id=id,
                resume="allow",
                name=name,
                job_type=job_type,
                group=group,
                tags=tags,
                config=config,
                settings=settings,
            ) as run:
                yield run, mode

    def _mode(self, session: "wandb.Settings") -> Mode:
        """Online where that is wanted and there is a login: a key in environment, settings or netrc, or a token."""
        if self.mode == "offline" or (self.mode == "auto" and session.mode not in ("online", "run")):
            return "offline"
        from wandb.sdk.lib import wbauth

        # The library's own look-up; it asks nobody, neither the network nor the user.
        login = wbauth.authenticate_session(
            host=session.base_url, source="diffcut-bench", prompt=False, update_session=False
        )
        if login is None and self.mode == "online":
            raise ValueError("no login; use `wandb login`, or tracker.mode=offline")
        return "online" if login else "offline"


def _failure_as_line(what: str, log: Callable[[], list[str]]) -> list[str]:
    """The lines of ``log``, or one on why it failed."""
    try:
        return log()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a SystemExit of the library must not end a run whose results are complete
        return [f"wandb: {what} is not logged ({_in_one_line(error)}); its results on disk are complete"]


def _in_one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


@contextmanager
def _kept_to(folder: Path) -> Iterator[None]:
    """The library's logs and staged tables go to ``folder``, not to the home directory, and it reports nothing on
    itself, which it would do even offline; what the user's environment says comes first."""
    wanted = {"WANDB_CACHE_DIR": str(folder), "WANDB_DATA_DIR": str(folder), "WANDB_ERROR_REPORTING": "false"}
    ours = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def _logged(folder: Path) -> bool:
    """Whether a cell is on the server, or lies ready to be synced."""
    path = folder / _RECORD
    if not path.is_file():
        return False
    record = json.loads(path.read_text())
    return record["mode"] == "online" or Path(record["directory"]).is_dir()


def _where(mode: Mode, directory: Path, url: str | None) -> str:
    return f"wandb sync {shlex.quote(str(directory))}" if mode == "offline" else f"wandb    {url}"


def _config(result: Result) -> dict[str, Any]:
    """The cell's config, with the protocol in force in place of the one asked for."""
    return {
        **result.config,
        "protocol": result.protocol or result.config.get("protocol") or {},
        "key": result.key,
        "limited": result.limited,
        "environment": asdict(result.environment),
    }


def _metrics(result: Result) -> dict[str, float]:
    """Every number of a result by a name such as ``iou/aeroplane``; fractions and seconds, as in result.json."""
    scores = result.metrics
    found: dict[str, float | None] = {"miou": scores.miou, "pixel_accuracy": scores.pixel_accuracy}
    for name, ends in (("miou", scores.miou_ci95), ("pixel_accuracy", scores.pixel_accuracy_ci95)):
        found[f"{name}_low"], found[f"{name}_high"] = ends
    found |= {f"iou/{name}": iou for name, iou in scores.iou_per_class.items()}
    for name, interval in scores.iou_per_class_ci95.items():
        found[f"iou_low/{name}"], found[f"iou_high/{name}"] = interval or (None, None)
    found |= {f"segments/{name}": value for name, value in asdict(result.segments_per_image).items()}
    found |= {f"timings/{name}": value for name, value in asdict(result.timings).items()}
    found |= {"images": result.dataset.n_images - len(result.failures), "failures": len(result.failures)}
    return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}


def _table(content: Rows) -> "wandb.Table":
    import wandb

    return wandb.Table(columns=list(content[0]), data=content[1])


def _class_rows(result: Result, rows: Sequence[ImageRow]) -> Rows:
    """Score, interval and pixels of each class."""
    counts = [np.sum([getattr(row, name) for row in rows], axis=0).tolist() for name in ("tp", "fp", "fn")]
    intervals = result.metrics.iou_per_class_ci95
    return ["class", "iou", "iou_low", "iou_high", "tp", "fp", "fn"], [
        [name, iou, *(intervals.get(name) or (None, None)), *(count[place] for count in counts)]
        for place, (name, iou) in enumerate(result.metrics.iou_per_class.items())
    ]


def _images(outcomes: Sequence[Outcome], dataset: SegmentationDataset, rows: Sequence[ImageRow]) -> list["wandb.Image"]:
    """Images with two masks of classes; what matched no class and what has no annotation are classes of their own."""
    import wandb

    unmatched, void = dataset.num_classes, dataset.num_classes + 1
    names = dict(enumerate([*dataset.class_names, "unmatched", "void"]))
    matched_once = _matched_once(outcomes, dataset, rows)
    images = []
    for outcome in outcomes:
        label, prediction = outcome.example.label.numpy(), outcome.prediction.numpy()
        matched = matched_once
        if matched is None:
            table = contingency_table(outcome.prediction, outcome.example.label, dataset.num_classes)
            matched = matched_classes(table, outcome.criterion, outcome.surplus, named=outcome.named)
        classes = np.where(prediction < len(matched), matched.take(prediction, mode="clip"), -1)
        masks = {
            "prediction": {"mask_data": np.where(classes < 0, unmatched, classes), "class_labels": names},
            "ground_truth": {"mask_data": np.where(label < 0, void, label), "class_labels": names},
        }
        pixels = (outcome.example.eval_image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        caption = f"{outcome.example.id}, {len(np.unique(prediction))} segments"
        images.append(wandb.Image(Image.fromarray(pixels), masks=masks, caption=caption))
    return images


def _matched_once(
    outcomes: Sequence[Outcome], dataset: SegmentationDataset, rows: Sequence[ImageRow]
) -> NDArray[np.int64] | None:
    """Class of each cluster where clusters were matched once for the data set; None where each image has its own."""
    if not outcomes or outcomes[0].table is None:
        return None
    entries = [entry for row in rows for entry in row.table or ()]
    clusters = max((cluster + 1 for _, cluster, _ in entries), default=0)
    table = torch.zeros(dataset.num_classes, max(dataset.num_classes, clusters), dtype=torch.long)
    for class_id, cluster, pixels in entries:
        table[class_id, cluster] += pixels
    return matched_classes(table, outcomes[0].criterion, outcomes[0].surplus)


def _cell_rows(results: Sequence[Result]) -> Rows:
    """The settings that differ between cells, and the scores of each."""
    settings = [settings_of(result) for result in results]
    names = varying_names(settings)
    scores = ["miou", "miou_low", "miou_high", "pixel_accuracy", "segments", "images", "failures", "key"]
    return [*map(heading, names), *scores], [
        [
            *(_as_number(values, name, settings) for name in names),
            *(result.metrics.miou, *result.metrics.miou_ci95, result.metrics.pixel_accuracy),
            *(result.segments_per_image.mean, result.dataset.n_images - len(result.failures), len(result.failures)),
            result.key,
        ]
        for result, values in zip(results, settings, strict=True)
    ]


def _as_number(values: dict[str, Any], name: str, settings: Sequence[dict[str, Any]]) -> float | str:
    """A setting as a column of a table takes it: a number where all are numbers, else text."""
    return float(values[name]) if _is_numeric(name, settings) else str(values.get(name, ""))


def _is_numeric(name: str, settings: Sequence[dict[str, Any]]) -> bool:
    found = [values.get(name) for values in settings]
    return all(map(is_number, found))


def _curves(results: Sequence[Result]) -> dict[str, Any]:
    """A chart of mIoU in % against the number that was varied most, a line for each combination of the rest."""
    import wandb

    settings = [settings_of(result) for result in results]
    names = varying_names(settings)
    numeric = [name for name in names if _is_numeric(name, settings)]
    if not numeric:
        return {}
    abscissa = max(numeric, key=lambda name: len({values[name] for values in settings}))
    lines: dict[str, list[tuple[float, float]]] = {}
    for result, values in zip(results, settings, strict=True):
        own = [f"{heading(name)}={values.get(name, '–')}" for name in names if name != abscissa]
        lines.setdefault(", ".join(own) or "mIoU", []).append((float(values[abscissa]), 100 * result.metrics.miou))
    points = [list(zip(*sorted(line), strict=True)) for line in lines.values()]
    return {
        "miou_curves": wandb.plot.line_series(
            xs=[list(x) for x, _ in points],
            ys=[list(y) for _, y in points],
            keys=list(lines),
            title=f"mIoU (%) by {heading(abscissa)}",
            xname=heading(abscissa),
        )
    }
