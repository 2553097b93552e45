"""Hydra's launchers: the jobs of a sweep one after the other in here, or in processes that a launcher starts."""

import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig

from diffcut_bench.config import conf_dir, quoted
from diffcut_bench.errors import UserError, did_you_mean
from diffcut_bench.heap import keep_freed_memory
from diffcut_bench.interruption import end_with, job, raise_if_interrupted
from diffcut_bench.scoring.workers import workers

_BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"  # Hydra's own: one job after the other, in here
_NUMBER = "sweep_pass"  # the key by which a job is told which one it is
# Our yaml of a launcher has the plugin's name, so Hydra fills it up from the plugin's own, and warns that it does.
warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against")
_launching = False  # whether this process is the one that asked for jobs


def check_launcher(overrides: Sequence[str]) -> None:
    """Refuse a launcher that is not known, not installed or not needed, before anything is started.

    Args:
        overrides: those for the launcher, and ``hydra.searchpath``.

    Raises:
        UserError: there is one of these.
    """
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            target = str(compose("config", list(overrides), return_hydra_config=True).hydra.launcher._target_)
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


def launch(
    work: Callable[[int], None], jobs: int, folder: Path, overrides: Sequence[str]
) -> Exception | SystemExit | None:
    """Do ``work(0)`` to ``work(jobs - 1)``, each as a job of the launcher that the overrides choose.

    Args:
        work: what a job does; a launcher's process is sent it by cloudpickle.
        jobs: how many.
        folder: where the launcher may write.
        overrides: those for the launcher, and ``hydra.searchpath``.

    Returns:
        What ended the launcher early; None: nothing did.
    """
    global _launching

    def task(composed: DictConfig) -> None:
        launched = HydraConfig.get()
        with nullcontext() if launched.launcher._target_ == _BASIC else _launched(Path(launched.runtime.cwd)):
            work(int(composed[_NUMBER]))

    before = sys.argv
    # Absolute: a cluster's machines work elsewhere.
    sys.argv = ["diffcut-bench", "--multirun", f"hydra.sweep.dir={quoted(str(folder.absolute()))}", *overrides]
    sys.argv.append(f"+{_NUMBER}={','.join(map(str, range(jobs)))}")
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # raise what went wrong; the caller says it
    _launching = True
    try:
        with _loky_follows():
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(task)()
    except (Exception, SystemExit) as error:
        raise_if_interrupted()
        return error
    finally:
        _launching = False
        sys.argv = before
    return None


@contextmanager
def _launched(folder: Path) -> Iterator[None]:
    """Within, a process that a launcher started is like the one that asked for it; ``folder`` is the one it was in."""
    if _launching:  # joblib with one worker
        yield
        return
    with job():
        os.chdir(folder)
        keep_freed_memory()
        os.environ["TERM"] = "dumb"  # moving bars of several jobs would write over each other
        yield


@contextmanager
def _loky_follows() -> Iterator[None]:
    """Within, joblib's workers end with this process, also those that wait for a job."""
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
