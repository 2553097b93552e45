"""A sweep: every combination of comma lists and ranges, in as few passes over the images as can be.

Each pass is one job of Hydra's launcher: one after the other in here, or in processes that a launcher starts.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from omegaconf import DictConfig

from diffcut_bench.config import (
    RunConfig,
    build_protocol,
    expand_sweep,
    is_launcher,
    is_searchpath,
    load_config,
    quote_if_needed,
)
from diffcut_bench.errors import UserError
from diffcut_bench.escaping import counted
from diffcut_bench.scoring.events import FinishedCell, Observer
from diffcut_bench.scoring.failures import logged_error
from diffcut_bench.scoring.launching import (
    check_launcher,
    ended_cells,
    new_folder,
    start_jobs,
    write_record,
)
from diffcut_bench.scoring.passes import pass_key, run_cells
from diffcut_bench.store import Result, cell_key, write_atomically
from diffcut_bench.traces import CodeError, is_debugging

# What is done once for all values of tau.
_TREES = {
    "diffcut_bench.segmenters.DiffCut": ("cosines, and", "recursion"),
    "diffcut_bench.segmenters.Agglomerative": ("and", "merging"),
}
_READ_FROM_TREE = ("tau", "label_codes")  # settings that do not change it
_PASS = "sweep_pass"  # the key by which a launcher's job is told its pass


@dataclass(frozen=True)
class SweptCell:
    """A cell of a sweep: the words that make it, and their config."""

    overrides: list[str]
    config: RunConfig


@dataclass(frozen=True)
class Sweep:
    """Cells that are scored together, all of them checked.

    Attributes:
        folder: of the sweep. Its ``cells.json`` holds what was asked for, its ``cells/`` how each cell ended.
        passes: cells by the pass over the images that scores them.
        twins: combinations that were left out because their settings equal another one's.
        launcher: overrides that choose and set Hydra's launcher.
    """

    folder: Path
    passes: list[list[SweptCell]]
    twins: int
    launcher: list[str]

    @property
    def cells(self) -> list[SweptCell]:
        """Of all passes, in their order."""
        return [cell for cells in self.passes for cell in cells]

    @property
    def summary(self) -> str:
        """How many cells and passes, in one line."""
        twins = f"; {self.twins} more equal one of these" if self.twins else ""
        size = f"{counted(len(self.cells), 'cell')} in {counted(len(self.passes), 'pass', 'es')} over images"
        return f"sweep of {size}; a pass shares reading and features{twins}"

    def run(self, observer: Observer) -> Exception | SystemExit | None:
        """Score all passes, each as one job of the launcher; returns what ended the launcher early.

        A launcher's process is sent sweep and observer by cloudpickle.
        """

        def score(composed: DictConfig) -> None:
            self.score_pass(int(composed[_PASS]), observer)

        passes = f"+{_PASS}={','.join(map(str, range(len(self.passes))))}"
        return start_jobs(score, self.folder, [*self.launcher, passes])

    def score_pass(self, number: int, observer: Observer) -> None:
        """Score the cells of one pass; how each ended is written into the sweep's folder."""
        cells = self.passes[number]
        first = sum(map(len, self.passes[:number]))
        shared = [word for word in cells[0].overrides if all(word in cell.overrides for cell in cells)]
        everywhere = set.intersection(*(set(cell.overrides) for cell in self.cells))
        heading = f"pass {number + 1} of {len(self.passes)}, {counted(len(cells), 'cell')}"
        observer.say(f"{heading}: {' '.join(shared) or 'the default'}")
        configs = [cell.config for cell in cells]
        ended: Sequence[FinishedCell | UserError]
        try:
            observer.say(_shared_work(configs))
            ended = run_cells(configs, observer)
        except UserError as error:
            ended = [error] * len(cells)
        except Exception as error:  # the other passes are still scored; the error is listed at the end
            ended = [logged_error(error, cells[0].overrides, Path(configs[0].output_dir))] * len(cells)
        for end in ended:
            if is_debugging() and isinstance(end, CodeError):
                raise end
        for index, (cell, end) in enumerate(zip(cells, ended, strict=True), start=first):
            if isinstance(end, FinishedCell):
                own = " ".join(word for word in cell.overrides if word not in everywhere) or "as above"
                observer.say(f"cell {index + 1}: {own}{', skipped: finished before' if end.skipped else ''}")
            write_record(self.folder, index, cell.overrides, end)

    def ended(self, broken: BaseException | None) -> tuple[list[tuple[Path, Result]], list[tuple[list[str], str]]]:
        """How the cells ended, whatever process scored them.

        Args:
            broken: what ended the launcher early.

        Returns:
            Folder and result of each finished cell; overrides and error of each other one.

        Raises:
            UserError: the launcher ended before any cell did.
        """
        return ended_cells(self.folder, [cell.overrides for cell in self.cells], broken)


def plan_sweep(overrides: Sequence[str]) -> Sweep:
    """Check every combination, and sort the cells by the pass that scores them.

    Of cells with equal settings (``tau=0.5,0.50``) the first is taken.

    Raises:
        UserError: an override is wrong, the launcher can't be used, or the output folder can't be written.
    """
    launcher = [quote_if_needed(word) for word in overrides if is_launcher(word) or is_searchpath(word)]
    check_launcher(launcher)
    combinations = expand_sweep([word for word in overrides if not is_launcher(word)])
    cells: dict[str, SweptCell] = {}
    for words in combinations:
        config = load_config(words)
        build_protocol(config.protocol)
        cells.setdefault(cell_key(config.to_dict()), SweptCell(words, config))
    passes: dict[str, list[SweptCell]] = {}
    for cell in cells.values():
        passes.setdefault(pass_key(cell.config), []).append(cell)
    folder = new_folder(next(iter(cells.values())).config)
    asked = [[asdict(cell) for cell in each] for each in passes.values()]
    # By every process: they may be on machines without a common disk.
    write_atomically(folder / "cells.json", json.dumps(asked, indent=1) + "\n")
    return Sweep(folder, list(passes.values()), len(combinations) - len(cells), launcher)


def _shared_work(configs: Sequence[RunConfig]) -> str:
    """What the cells of a pass do once for all of them."""
    trees = {json.dumps({n: v for n, v in c.segmenter.items() if n not in _READ_FROM_TREE}) for c in configs}
    targets = {str(config.segmenter.get("_target_")) for config in configs}
    if len(targets) == 1 and targets <= _TREES.keys() and len(trees) < len(configs):
        before, made = _TREES[targets.pop()]
        return f"  once an image: reading, features, {before} {counted(len(trees), made)}, from which every tau is read"
    return "  once an image: reading and features"
