"""``diffcut-bench tune``: choose a setting on training images, report on the validation split (table 10)."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffcut_bench.commands.passes import TerminalObserver, say_cell, say_failures
from diffcut_bench.commands.terminal import console, say
from diffcut_bench.config import RunConfig, load_config
from diffcut_bench.errors import UserError
from diffcut_bench.reporting import results_table
from diffcut_bench.scoring.cell import FinishedCell
from diffcut_bench.scoring.passes import run_cells
from diffcut_bench.store import cell_key, write_atomically

_SETTING, _GRID, _IMAGES, _SEED = "segmenter.tau", (0.35, 0.55, 0.75), 200, 42


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own flags."""
    grid = ",".join(f"{value:g}" for value in _GRID)
    parser.add_argument("--setting", default=_SETTING, help=f"what is chosen (default {_SETTING})")
    parser.add_argument("--grid", default=grid, metavar="A,B", help=f"values to choose from (default {grid})")
    parser.add_argument("--images", type=int, default=_IMAGES, help=f"training images, drawn at random ({_IMAGES})")
    parser.add_argument("--draw", type=int, default=_SEED, metavar="SEED", help=f"seed of the draw (default {_SEED})")
    parser.add_argument(
        "--train", action="append", metavar="KEY=VALUE", help="override that makes the training split; the data set's"
    )


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Attributes:
        values: that were tried.
        training: cell of each on the training images.
        chosen: of the greatest mIoU there; the first of equals.
        cell: with it, on the data set itself.
    """

    values: tuple[float, ...]
    training: tuple[FinishedCell, ...]
    chosen: float
    cell: FinishedCell


def tune(options: argparse.Namespace) -> int:
    """Search, print both tables, keep the record."""
    try:
        grid = [float(value) for value in options.grid.split(",")]
    except ValueError as error:
        raise UserError(f"{options.grid!r} are no numbers", "--grid", "write --grid 0.35,0.55,0.75") from error
    tuned = tune_setting(options.overrides, options.setting, grid, options.images, options.draw, options.train)
    title = f"{options.setting} on {options.images} training images"
    results_table([(cell.folder, cell.result) for cell in tuned.training], "training", title).print(console)
    say(f"chosen   {options.setting}={tuned.chosen:g}")
    say_cell(tuned.cell)
    results_table([(tuned.cell.folder, tuned.cell.result)]).print(console)
    say_failures([cell.result for cell in (*tuned.training, tuned.cell)])
    record = {
        **{"schema_version": 1, "setting": options.setting, "chosen": tuned.chosen},
        "training": [
            {"value": value, "key": cell.result.key, "miou": cell.result.metrics.miou}
            for value, cell in zip(tuned.values, tuned.training, strict=True)
        ],
        "validation": {"key": tuned.cell.result.key, "miou": tuned.cell.result.metrics.miou},
    }
    path = Path(load_config(options.overrides).output_dir) / "tuned" / f"{cell_key(record)[:12]}.json"
    write_atomically(path, json.dumps(record, indent=1) + "\n")
    say(f"record   {path}")
    return 0


def tune_setting(
    overrides: Sequence[str],
    setting: str,
    grid: Sequence[float],
    images: int,
    draw: int = _SEED,
    train: Sequence[str] | None = None,
) -> Tuned:
    """Choose a setting on training images and score the data set with it.

    Args:
        overrides: of the cell.
        setting: key that is chosen, such as ``segmenter.tau``.
        grid: values to choose from.
        images: training images, drawn at random; all where there are fewer.
        draw: seed of the draw.
        train: overrides that make the training split; None: the data set's own suggestion.

    Raises:
        UserError: there is no training split, its data are missing, or a cell failed.
    """
    if images < 1 or not grid:
        raise UserError("nothing to choose from", f"--images {images}, {len(grid)} values", "give both at least one")
    training = _score(training_configs(overrides, setting, grid, images, draw, train))
    scores = [cell.result.metrics.miou for cell in training]
    chosen = grid[scores.index(max(scores))]
    (cell,) = _score([load_config([*overrides, f"{setting}={chosen}"])])
    return Tuned(tuple(grid), tuple(training), chosen, cell)


def training_configs(
    overrides: Sequence[str],
    setting: str,
    grid: Sequence[float],
    images: int,
    draw: int = _SEED,
    train: Sequence[str] | None = None,
) -> list[RunConfig]:
    """The cells of a search, see `tune_setting`."""
    split = list(train) if train else _training_split(load_config(overrides))
    few = [f"limit={images}", f"limit_seed={draw}"]
    return [load_config([*overrides, *split, *few, f"{setting}={value}"]) for value in grid]


def _training_split(config: RunConfig) -> list[str]:
    suggests = config.dataset.get("suggests")
    suggested = suggests.get("train") if isinstance(suggests, dict) else None
    if not isinstance(suggested, list):
        raise UserError(
            "no training split is known of this data set",
            f"dataset={config.choices.get('dataset')}",
            "name one, such as --train dataset.root=DIR",
        )
    return [str(word) for word in suggested]


def _score(configs: Sequence[RunConfig]) -> list[FinishedCell]:
    cells = []
    for end in run_cells(configs, TerminalObserver()):
        if isinstance(end, UserError):
            raise end
        cells.append(end)
    return cells
