"""A setting is chosen on training images, and the data set itself is scored with it (table 10)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffcut_bench.config import RunConfig, load_config
from diffcut_bench.errors import UserError
from diffcut_bench.reporting import leading_metric
from diffcut_bench.reproduction.spec import Tuning
from diffcut_bench.scoring.events import FinishedCell, Observer
from diffcut_bench.scoring.passes import run_cell, run_cells
from diffcut_bench.store import Score, cell_key, write_atomically


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Attributes:
        tuning: what was searched for, and how.
        training: the cell of each value on the training images.
        score: that it was chosen by.
        chosen: value of the best score there; the first of equals.
        cell: with it, on the data set itself.
    """

    tuning: Tuning
    training: tuple[FinishedCell, ...]
    score: str
    chosen: float
    cell: FinishedCell

    def write(self) -> Path:
        """Write the record below the output folder; returns where."""
        training = zip(self.tuning.grid, self.training, strict=True)
        record = {
            "schema_version": 1,
            "setting": self.tuning.setting,
            "chosen": self.chosen,
            "training": [{"value": value, **_told(cell, self.score)} for value, cell in training],
            "validation": _told(self.cell, self.score),
        }
        path = self.cell.folder.parent.parent / "tuned" / f"{cell_key(record)[:12]}.json"
        write_atomically(path, json.dumps(record, indent=1) + "\n")
        return path


def tune_setting(overrides: Sequence[str], tuning: Tuning, observer: Observer | None = None) -> Tuned:
    """Choose a setting on training images and score the data set with it.

    Args:
        overrides: of the cell.
        tuning: what is chosen, from which values, on which images.
        observer: is told what happens.

    Raises:
        UserError: there is no training split, its data are missing, or a cell failed.
    """
    if tuning.images < 1 or not tuning.grid:
        where = f"--images {tuning.images}, {len(tuning.grid)} values"
        raise UserError("nothing to choose from", where, "give both at least one")
    training: list[FinishedCell] = []
    for end in run_cells(training_configs(overrides, tuning), observer):
        if isinstance(end, UserError):
            raise end
        training.append(end)
    metric = leading_metric(load_config(overrides).score, [cell.result for cell in training])
    scores = [metric.merit(cell.result.scores.get(metric.name, Score(None)).value) for cell in training]
    chosen = tuning.grid[scores.index(max(scores))]
    cell = run_cell(load_config([*overrides, f"{tuning.setting}={chosen}"]), observer)
    return Tuned(tuning, tuple(training), metric.name, chosen, cell)


def training_configs(overrides: Sequence[str], tuning: Tuning) -> list[RunConfig]:
    """The cells of a search, one for each value; see `tune_setting`."""
    split = _training_split(load_config(overrides)) if tuning.train is None else tuning.train
    few = [f"limit={tuning.images}", f"limit_seed={tuning.draw}"]
    return [load_config([*overrides, *split, *few, f"{tuning.setting}={value}"]) for value in tuning.grid]


def _training_split(config: RunConfig) -> list[str]:
    suggests = config.dataset.get("suggests")
    suggested = suggests.get("train") if isinstance(suggests, dict) else None
    if not isinstance(suggested, list):
        where, hint = f"dataset={config.choices.get('dataset')}", "name one, such as --train dataset.root=DIR"
        raise UserError("no training split is known of this data set", where, hint)
    return [str(word) for word in suggested]


def _told(cell: FinishedCell, score: str) -> dict[str, object]:
    return {"key": cell.result.key, score: cell.result.scores.get(score, Score(None)).value}
