"""A sweep: every combination of comma lists and ranges, in as few passes over the images as can be.

Each pass is one job of Hydra's launcher: one after the other in here, or in processes that a launcher starts.
"""

import importlib.util
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig

from diffcut_bench.config import (
    RunConfig,
    build_protocol,
    conf_dir,
    expand_sweep,
    is_launcher,
    is_searchpath,
    load_config,
    quote_if_needed,
    quoted,
)
from diffcut_bench.config.overrides import composed
from diffcut_bench.errors import UserError, did_you_mean
from diffcut_bench.escaping import counted
from diffcut_bench.heap import keep_freed_memory
from diffcut_bench.interruption import end_with, job, raise_if_interrupted
from diffcut_bench.scoring.events import FinishedCell, Observer
from diffcut_bench.scoring.passes import pass_key, run_cells
from diffcut_bench.scoring.workers import workers
from diffcut_bench.store import Result, cell_key, read_result, write_atomically

_RECURSIVE = "diffcut_bench.segmenters.DiffCut"
_READ_FROM_TREE = ("tau", "label_codes")  # settings of it that do not change the recursion
_BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"  # Hydra's own: one pass after the other, in here
_PASS = "sweep_pass"  # the key by which a launcher's job is told its pass
# Our yaml of a launcher has the plugin's name, so Hydra fills it up from the plugin's own, and warns that it does.
warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against")
_launching = False  # whether this process is the one that asked for jobs


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
        global _launching

        def score(composed: DictConfig) -> None:
            with _launched(Path(HydraConfig.get().runtime.cwd)):
                self.score_pass(int(composed[_PASS]), observer)

        before = sys.argv
        # Absolute: a cluster's machines work elsewhere.
        where = f"hydra.sweep.dir={quoted(str(self.folder.absolute()))}"
        passes = f"+{_PASS}={','.join(map(str, range(len(self.passes))))}"
        sys.argv = ["diffcut-bench", "--multirun", where, *self.launcher, passes]
        os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # raise what went wrong; the caller says it
        _launching = True
        try:
            with _loky_follows():
                hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(score)()
        except (Exception, SystemExit) as error:
            raise_if_interrupted()
            return error
        finally:
            _launching = False
            sys.argv = before
        return None

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
            raise_if_interrupted()
            what, where = f"{type(error).__name__}: {error}", " ".join(cells[0].overrides)
            ended = [UserError(what, where, "run this cell alone to see more")] * len(cells)
        for index, (cell, end) in enumerate(zip(cells, ended, strict=True), start=first):
            record: dict[str, object] = {"overrides": cell.overrides}
            if isinstance(end, UserError):
                record["error"] = str(end)
            else:
                record["folder"] = str(end.folder.absolute())
                own = " ".join(word for word in cell.overrides if word not in everywhere) or "as above"
                observer.say(f"cell {index + 1}: {own}{', skipped: finished before' if end.skipped else ''}")
            if workers().leads:
                write_atomically(self.folder / "cells" / f"{index:05d}.json", json.dumps(record, indent=1) + "\n")

    def ended(self, broken: BaseException | None) -> tuple[list[tuple[Path, Result]], list[tuple[list[str], str]]]:
        """How the cells ended, whatever process scored them.

        Args:
            broken: what ended the launcher early.

        Returns:
            Folder and result of each finished cell; overrides and error of each other one.

        Raises:
            UserError: the launcher ended before any cell did.
        """
        records = [json.loads(path.read_text()) for path in sorted((self.folder / "cells").glob("*.json"))]
        where = str(self.folder)
        reason = " ".join(f"{type(broken).__name__}: {broken}".split()) if broken else "its job left no word"
        if broken and not records:
            raise UserError(f"the sweep ended early: {reason}", where, "mend this, then run the same command again")
        finished = [Path(record["folder"]) for record in records if "folder" in record]
        errors = [(record["overrides"], record["error"]) for record in records if "error" in record]
        known = [record["overrides"] for record in records]
        lost = UserError(f"the job of this cell ended early: {reason}", where, "the same command goes on")
        errors += [(cell.overrides, str(lost)) for cell in self.cells if cell.overrides not in known]
        return [(folder, read_result(folder)) for folder in finished], errors


def plan_sweep(overrides: Sequence[str]) -> Sweep:
    """Check every combination, and sort the cells by the pass that scores them.

    Of cells with equal settings (``tau=0.5,0.50``) the first is taken.

    Raises:
        UserError: an override is wrong, the launcher can't be used, or the output folder can't be written.
    """
    launcher = [quote_if_needed(word) for word in overrides if is_launcher(word) or is_searchpath(word)]
    _check_launcher(launcher)
    combinations = expand_sweep([word for word in overrides if not is_launcher(word)])
    cells: dict[str, SweptCell] = {}
    for words in combinations:
        config = load_config(words)
        build_protocol(config.protocol)
        cells.setdefault(cell_key(config.to_dict()), SweptCell(words, config))
    passes: dict[str, list[SweptCell]] = {}
    for cell in cells.values():
        passes.setdefault(pass_key(cell.config), []).append(cell)
    name = workers().on_leader(lambda: datetime.now().strftime("%Y-%m-%d_%H-%M-%S_%f"))
    folder = Path(next(iter(cells.values())).config.output_dir) / "sweeps" / name
    asked = [[asdict(cell) for cell in each] for each in passes.values()]
    # By every process: they may be on machines without a common disk.
    write_atomically(folder / "cells.json", json.dumps(asked, indent=1) + "\n")
    return Sweep(folder, list(passes.values()), len(combinations) - len(cells), launcher)


def _check_launcher(overrides: Sequence[str]) -> None:
    """Refuse a launcher that is not known, not installed or not needed, before anything is started."""
    try:
        target = str(composed(overrides, with_hydra=True).hydra.launcher._target_)
    except MissingConfigException as error:
        group, _, name = (error.missing_cfg_file or "").rpartition("/")
        if group != "hydra/launcher":
            raise
        where, hint = f"{group}={name}", did_you_mean(name, error.options or ())
        raise UserError(f"unknown launcher {name}", where, hint) from error
    except HydraException as error:
        named = any(override.startswith("hydra/launcher=") for override in overrides)
        hint = "see conf/hydra/launcher/ for its keys" if named else "choose one first: hydra/launcher=joblib"
        raise UserError("the launcher has no such setting", " ".join(overrides), hint) from error
    if target == _BASIC:
        return
    if workers().count > 1:
        raise UserError("torchrun and a launcher would both start processes", target, "use one of the two")
    try:
        installed = importlib.util.find_spec(target.rpartition(".")[0]) is not None
    except ModuleNotFoundError:
        installed = False
    if not installed:
        raise UserError("this launcher is not installed", target, "pip install 'diffcut_bench[launchers]'")


@contextmanager
def _launched(folder: Path) -> Iterator[None]:
    """Within, a process that a launcher started is like the one that asked for it; ``folder`` is the one it was in."""
    if _launching:  # by Hydra itself, or joblib with one worker
        yield
        return
    with job():
        os.chdir(folder)
        keep_freed_memory()
        os.environ["TERM"] = "dumb"  # moving bars of several jobs would write over each other
        yield


@contextmanager
def _loky_follows() -> Iterator[None]:
    """Within, joblib's workers end with this process, also those that wait for a pass."""
    try:
        from joblib.parallel import BACKENDS, register_parallel_backend  # type: ignore[import-untyped, unused-ignore]
    except ImportError:  # it comes with its launcher
        yield
        return
    loky = BACKENDS["loky"]

    class Following(loky):  # type: ignore[misc, valid-type]
        def configure(self, *args: Any, **settings: Any) -> Any:
            return super().configure(*args, initializer=end_with, initargs=(os.getpid(),), **settings)

    register_parallel_backend("loky", Following)
    try:
        yield
    finally:
        register_parallel_backend("loky", loky)


def _shared_work(configs: Sequence[RunConfig]) -> str:
    """What the cells of a pass do once for all of them."""
    trees = {json.dumps({n: v for n, v in c.segmenter.items() if n not in _READ_FROM_TREE}) for c in configs}
    if all(config.segmenter.get("_target_") == _RECURSIVE for config in configs) and len(trees) < len(configs):
        recursions = counted(len(trees), "recursion")
        return f"  once an image: reading, features, cosines, and {recursions}, from which every tau is read"
    return "  once an image: reading and features"
