"""Finished cells and sweeps as runs of Weights & Biases. Nothing here writes to the terminal or to the current
directory."""

import hashlib
import io
import itertools
import json
import math
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from PIL import Image

from diffcut_bench.datasets import SegmentationDataset
from diffcut_bench.escaping import one_line
from diffcut_bench.evaluation import contingency_table
from diffcut_bench.extras import require
from diffcut_bench.reporting.figures import encode_figure
from diffcut_bench.reporting.pictures import matched_classes
from diffcut_bench.reporting.sweeps import sweep_figures
from diffcut_bench.reporting.tables import scored_images
from diffcut_bench.reporting.tracker import Tracker
from diffcut_bench.scoring.pipeline import Outcome
from diffcut_bench.scoring.ranking import leading_metric
from diffcut_bench.settings import compare_settings, heading, is_number
from diffcut_bench.store import ImageRow, Result, read_rows, write_atomically

if TYPE_CHECKING:
    import wandb  # at run time only where it is used: it takes half a second

_RECORD = "wandb.json"
_ID_DIGITS = 12
_FINISH_S = 300.0  # for what is left to upload at the end of a run; W&B itself would wait for ever


@dataclass(frozen=True)
class WandbTracker(Tracker):
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
        UserError: wandb is not installed.
    """

    folder: str
    project: str = "diffcut_bench"
    entity: str | None = None
    mode: str = "auto"
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    examples: int = 4

    def __post_init__(self) -> None:
        require("wandb", "tracker=wandb", "wandb")
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
        """Log a finished cell, unless ``wandb.json`` in its folder says that this was done before.

        Where its scored images can't be had, the cell is logged without examples.
        """
        if _is_logged(folder):
            return []
        rows = read_rows(folder)
        images, missing = self._images(outcomes, dataset, rows)
        choices = result.config.get("choices", {})
        named = [choices[group] for group in ("dataset", "backbone", "segmenter") if choices.get(group)]
        record = self._log(
            {**_numbers(result), "classes": _table(_class_rows(result, rows)), **images},
            id=result.key[:_ID_DIGITS],
            name=folder.name,
            job_type="cell",
            group=self.group or group,
            tags=list(dict.fromkeys([*self.tags, *named])),
            config=_config(result),
            commit=result.environment.git.get("commit"),
        )
        write_atomically(folder / _RECORD, json.dumps(record, indent=1) + "\n")
        lines = [f"wandb: {folder.name} has no example segmentations there ({missing})"] if missing else []
        return [*lines, _where(record)]

    def log_sweep(self, name: str, results: Sequence[Result]) -> list[str]:
        """Log a sweep as one more run of its group, always the same: its figures, and the table of its cells."""
        if not results:
            return []
        record = self._log(
            {"cells": _table(_cell_rows(results)), **_figures(results)},
            id=hashlib.sha256(name.encode()).hexdigest()[:_ID_DIGITS],
            name=name,
            job_type="sweep",
            group=self.group or name,
            tags=self.tags,
            config={"cells": [result.key for result in results]},
            commit=results[0].environment.git.get("commit"),
        )
        return [_where(record)]

    def _images(
        self, outcomes: Callable[[int], Iterable[Outcome]], dataset: SegmentationDataset, rows: Sequence[ImageRow]
    ) -> tuple[dict[str, list["wandb.Image"]], str]:
        """Scored images with their masks, and what kept further ones away."""
        images: list[wandb.Image] = []
        missing = ""
        try:
            for outcome in itertools.islice(outcomes(self.examples) if self.examples else (), self.examples):
                images.append(_image(outcome, dataset, rows))
        except Exception as error:
            missing = f"{type(error).__name__}: {one_line(str(error))[:300]}"
        return {"examples": images} if images else {}, missing

    def _log(self, content: Mapping[str, Any], *, commit: str | None, **of_run: Any) -> dict[str, Any]:
        """Log to a run of its own, and finish it. Nothing goes to it but what it is given.

        Returns:
            Id, mode, directory and url of the run.
        """
        import wandb

        folder = Path(self.folder).absolute()
        with _kept_to(folder):
            session = wandb.setup(wandb.Settings(silent=True)).settings
            settings = wandb.Settings(
                console="off",
                reinit="create_new",  # a run that the caller has open is left alone
                finish_timeout=session.finish_timeout or _FINISH_S,
                finish_timeout_raises=True,
                allow_offline_artifacts=False,  # tables lie in the run's folder, which can be synced from anywhere
                # The commit is the one that the numbers were made with, not the one checked out now.
                git_commit=commit,
                disable_git=True,
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
                mode=self._mode(session.mode),
                resume="allow",
                settings=settings,
                **of_run,
            ) as run:
                run.log(dict(content))
            where = {"mode": "offline", "url": None} if run.offline else {"mode": "online", "url": run.url}
            return {"id": run.id, "directory": str(Path(run.dir).parent), **where}

    def _mode(self, of_session: str) -> Literal["online", "offline"]:
        """Online where that is wanted and there is a login."""
        import wandb

        if self.mode == "offline" or (self.mode == "auto" and of_session not in ("online", "run")):
            return "offline"
        # It looks for a key in environment, settings and netrc, or for a token, and asks neither network nor user.
        # While the caller has a run open, it does not look.
        if not wandb.run.offline if wandb.run else wandb.login(prompt=False, verify=False):
            return "online"
        if self.mode == "online":
            raise ValueError("no login; use `wandb login`, or tracker.mode=offline")
        return "offline"


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


def _is_logged(folder: Path) -> bool:
    """Whether a cell is on the server, or lies ready to be synced."""
    path = folder / _RECORD
    if not path.is_file():
        return False
    record = json.loads(path.read_text())
    return record["mode"] == "online" or Path(record["directory"]).is_dir()


def _where(record: Mapping[str, Any]) -> str:
    offline = record["mode"] == "offline"
    return f"wandb sync {shlex.quote(record['directory'])}" if offline else f"wandb    {record['url']}"


def _config(result: Result) -> dict[str, Any]:
    """The cell's config, with the protocol in force in place of the one asked for."""
    return {
        **result.config,
        "protocol": result.protocol or result.config.get("protocol") or {},
        "key": result.key,
        "limited": result.limited,
        "environment": asdict(result.environment),
    }


def _of_class(metric: str) -> str:
    """What scores of classes are named by: IoU where their mean is mIoU."""
    return "iou" if metric == "miou" else metric


def _with_ends(name: str, score: float | None, interval: Sequence[float] | None, of: str = "") -> dict[str, Any]:
    """A score and the ends of its interval by name."""
    low, high = interval or (None, None)
    return {f"{name}{of}": score, f"{name}_low{of}": low, f"{name}_high{of}": high}


def _numbers(result: Result) -> dict[str, float]:
    """Every number of a result by a name such as ``iou/aeroplane``; fractions and seconds, as in result.json."""
    found: dict[str, float | None] = {}
    for name, score in result.scores.items():
        found |= _with_ends(name, score.value, score.ci95)
        for own, value in score.per_class.items():
            found |= _with_ends(_of_class(name), value, score.per_class_ci95.get(own), of=f"/{own}")
    found |= {f"segments/{name}": value for name, value in asdict(result.segments_per_image).items()}
    found |= {f"timings/{name}": value for name, value in asdict(result.timings).items()}
    found |= {"images": scored_images(result), "failures": len(result.failures)}
    return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}


def _class_rows(result: Result, rows: Sequence[ImageRow]) -> list[dict[str, Any]]:
    """Scores, intervals and pixels of each class."""
    by_class = {_of_class(name): score for name, score in result.scores.items() if score.per_class}
    counts = {name: np.sum([getattr(row, name) for row in rows], axis=0).tolist() for name in ("tp", "fp", "fn")}
    table: list[dict[str, Any]] = []
    for index, own in enumerate(result.class_names):
        table.append({"class": own})
        for name, score in by_class.items():
            table[-1] |= _with_ends(name, score.per_class.get(own), score.per_class_ci95.get(own))
        table[-1] |= {name: count[index] for name, count in counts.items()}
    return table


def _cell_rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """The settings that differ between cells, and the scores of each."""
    told = compare_settings(results)
    numeric = [name for name in told.names if all(is_number(own.get(name)) for own in told.settings)]
    table: list[dict[str, Any]] = []
    for result, values, texts in zip(results, told.settings, told.texts, strict=True):
        # A column of a table holds numbers or texts.
        table.append({heading(name): float(values[name]) if name in numeric else texts[name] for name in told.names})
        table[-1] |= {name: value for name, value in _numbers(result).items() if "/" not in name}
        table[-1] |= {"key": result.key}
    return table


def _table(rows: Sequence[Mapping[str, Any]]) -> "wandb.Table":
    import wandb

    names = list(dict.fromkeys(name for row in rows for name in row))
    return wandb.Table(columns=[*names], data=[[row.get(name) for name in names] for row in rows])


def _figures(results: Sequence[Result]) -> dict[str, "wandb.Image"]:
    """The figures of a sweep."""
    import wandb

    pictures, leading = {}, leading_metric(results=results).name
    for drawn in sweep_figures(results):
        png = Image.open(io.BytesIO(encode_figure(drawn.figure, "png")))
        pictures[f"{leading}_{drawn.name}"] = wandb.Image(png, caption=drawn.title)
    return pictures


def _image(outcome: Outcome, dataset: SegmentationDataset, rows: Sequence[ImageRow]) -> "wandb.Image":
    """An image with two masks of classes; what matched no class and what has no annotation are classes of their own."""
    import wandb

    if dataset.annotators:  # of whose segments there are no classes to tell
        colours = (outcome.example.eval_image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        caption = f"{outcome.example.id}, {outcome.segments} segments"
        return wandb.Image(Image.fromarray(colours), caption=caption)
    unmatched, void = dataset.num_classes, dataset.num_classes + 1
    names = dict(enumerate([*dataset.class_names, "unmatched", "void"]))
    if outcome.table is None:
        pixels = contingency_table(outcome.prediction, outcome.example.label, dataset.num_classes)
    else:  # clusters were matched once for the data set
        entries = np.array([entry for row in rows for entry in row.table or ()], dtype=np.int64).reshape(-1, 3)
        pixels = torch.zeros(dataset.num_classes, int(entries[:, 1].max(initial=dataset.num_classes - 1)) + 1).long()
        np.add.at(pixels.numpy(), (entries[:, 0], entries[:, 1]), entries[:, 2])
    matched = matched_classes(pixels, outcome.assignment, named=outcome.named)
    class_of = np.append(np.where(matched < 0, unmatched, matched), unmatched)
    label, prediction = outcome.example.label.numpy(), outcome.prediction.numpy()
    masks = {
        "prediction": {"mask_data": class_of[np.minimum(prediction, len(matched))], "class_labels": names},
        "ground_truth": {"mask_data": np.where(label < 0, void, label), "class_labels": names},
    }
    colours = (outcome.example.eval_image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    caption = f"{outcome.example.id}, {len(np.unique(prediction))} segments"
    return wandb.Image(Image.fromarray(colours), masks=masks, caption=caption)
