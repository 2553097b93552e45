"""Jobs of Hydra's sweeper and launcher: one after the other in here, or in processes that a launcher starts; and what
each leaves in the folder of its sweep."""

import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig

from diffcut_bench.config import RunConfig, quoted
from diffcut_bench.config.overrides import composed, hydra_main
from diffcut_bench.errors import UserError, did_you_mean
from diffcut_bench.extensions import current_folder_importable, named_folders, using_folders
from diffcut_bench.extras import require
from diffcut_bench.heap import keep_freed_memory
from diffcut_bench.interruption import end_with, job, raise_if_interrupted
from diffcut_bench.scoring.events import FinishedCell
from diffcut_bench.scoring.workers import workers
from diffcut_bench.store import Result, read_result, write_atomically
from diffcut_bench.traces import is_debugging

_BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"  # Hydra's own: one job after the other, in here
# Our yaml of a launcher has the plugin's name, so Hydra fills it up from the plugin's own, and warns that it does.
warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against")
_launching = False  # whether this process is the one that asked for jobs


def start_jobs(
    work: Callable[[DictConfig], float | None], folder: Path, words: Sequence[str]
) -> Exception | SystemExit | None:
    """Let Hydra's sweeper give jobs to its launcher, until it has no more; returns what ended them early.

    Args:
        work: a job, from its composed config; a launcher's process is sent it by cloudpickle. What it returns is told
            to the sweeper.
        folder: of the sweep.
        words: what is swept, and settings of launcher and sweeper.
    """
    global _launching

    folders = named_folders()

    def launched(composed: DictConfig) -> float | None:
        with _launched(Path(HydraConfig.get().runtime.cwd), folders):
            return work(composed)

    _launching = True
    try:
        with _loky_follows():
            # Absolute: a cluster's machines work elsewhere.
            hydra_main(launched, ["--multirun", f"hydra.sweep.dir={quoted(str(folder.absolute()))}", *words])
    except (Exception, SystemExit) as error:
        raise_if_interrupted()
        if is_debugging():
            raise
        return error
    finally:
        _launching = False
    return None


def new_folder(config: RunConfig) -> Path:
    """A folder for a sweep, named after the time; the same in all processes."""
    name = workers().on_leader(lambda: datetime.now().strftime("%Y-%m-%d_%H-%M-%S_%f"))
    return Path(config.output_dir) / "sweeps" / name


def write_record(folder: Path, index: int, overrides: Sequence[str], end: FinishedCell | UserError) -> None:
    """Write into the folder of a sweep how one of its cells ended."""
    record: dict[str, object] = {"overrides": list(overrides)}
    if isinstance(end, UserError):
        record["error"] = str(end)
    else:
        record["folder"] = str(end.folder.absolute())
    if workers().leads:
        write_atomically(folder / "cells" / f"{index:05d}.json", json.dumps(record, indent=1) + "\n")


def ended_cells(
    folder: Path, asked: Sequence[Sequence[str]], broken: BaseException | None
) -> tuple[list[tuple[Path, Result]], list[tuple[list[str], str]]]:
    """How the cells of a sweep ended, whatever process scored them.

    Args:
        folder: of the sweep.
        asked: overrides of each cell that was asked for.
        broken: what ended the launcher early.

    Returns:
        Folder and result of each finished cell; overrides and error of each other one.

    Raises:
        UserError: the launcher ended before any cell did.
    """
    records = [json.loads(path.read_text()) for path in sorted((folder / "cells").glob("*.json"))]
    reason = " ".join(f"{type(broken).__name__}: {broken}".split()) if broken else "its job left no word"
    if broken and not records:
        raise UserError(f"the sweep ended early: {reason}", str(folder), "mend this, then run the same command again")
    finished = [Path(record["folder"]) for record in records if "folder" in record]
    errors = [(record["overrides"], record["error"]) for record in records if "error" in record]
    known = [record["overrides"] for record in records]
    lost = UserError(f"the job of this cell ended early: {reason}", str(folder), "the same command goes on")
    errors += [(list(overrides), str(lost)) for overrides in asked if list(overrides) not in known]
    return [(folder, read_result(folder)) for folder in finished], errors


def check_launcher(overrides: Sequence[str]) -> None:
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
    require("launchers", f"hydra/launcher: {target}", target.rpartition(".")[0])


@contextmanager
def _launched(folder: Path, options: Sequence[Path]) -> Iterator[None]:
    """Within, a process that a launcher started is like the one that asked for it: ``folder`` is the one it was in,
    ``options`` those that hold options of the user's own."""
    if _launching:  # by Hydra itself, or joblib with one worker
        yield
        return
    with job():
        os.chdir(folder)
        keep_freed_memory()
        os.environ["TERM"] = "dumb"  # moving bars of several jobs would write over each other
        with using_folders(options), current_folder_importable():
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
