"""A study (``hydra/sweeper=optuna``): Hydra's Optuna sweeper chooses each next cell by the scores of those before."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig

from diffcut_bench.config import RunConfig, is_launcher, is_searchpath, is_sweeper, load_config, split_swept
from diffcut_bench.config.mistakes import entries
from diffcut_bench.config.overrides import composed, with_parts
from diffcut_bench.errors import UserError
from diffcut_bench.escaping import counted
from diffcut_bench.evaluation import Metric, known_metrics
from diffcut_bench.extras import is_installed
from diffcut_bench.scoring.events import Observer
from diffcut_bench.scoring.failures import logged_error
from diffcut_bench.scoring.launching import (
    check_launcher,
    ended_cells,
    new_folder,
    start_jobs,
    write_record,
)
from diffcut_bench.scoring.passes import run_cell
from diffcut_bench.scoring.workers import workers
from diffcut_bench.store import Result, Score

_PLUGIN = "hydra_plugins.hydra_optuna_sweeper"


@dataclass(frozen=True)
class Study:
    """Trials over some settings, each of which is a cell.

    Attributes:
        folder: of the sweep. Its ``cells/`` holds how each trial ended, ``optimization_results.yaml`` the best one.
        config: of a cell with the first value of each setting.
        words: for Hydra: sweeper, launcher, what is fixed and what varies.
        keys: of what varies.
        summary: what is looked for, in one line.
    """

    folder: Path
    config: RunConfig
    words: list[str]
    keys: list[str]
    summary: str

    @property
    def metric(self) -> Metric:
        """What is to be best."""
        return known_metrics()[self.config.score]

    def run(self, observer: Observer) -> Exception | SystemExit | None:
        """Score the trials; returns what ended them early. A launcher's process is sent study and observer."""
        search = [word for word in self.words if is_searchpath(word)]

        def score(_: DictConfig) -> float:
            job = HydraConfig.get()
            return self.score_trial(int(job.job.num), [*search, *job.overrides.task], observer)

        importlib.import_module("optuna.logging").set_verbosity(30)  # warnings: each trial has its line here
        return start_jobs(score, self.folder, self.words)

    def score_trial(self, number: int, overrides: Sequence[str], observer: Observer) -> float:
        """The score of one trial; how it ended is written into the study's folder.

        Raises:
            UserError: it could not be scored.
        """
        try:
            cell = run_cell(load_config(overrides), observer)
            value = self.value(cell.result)
        except UserError as error:
            write_record(self.folder, number, overrides, error)
            raise
        except Exception as error:
            told = logged_error(error, overrides, Path(self.config.output_dir))
            write_record(self.folder, number, overrides, told)
            raise told from error
        write_record(self.folder, number, overrides, cell)
        varied = " ".join(word for word in overrides if word.partition("=")[0] in self.keys)
        before = ", finished before" if cell.skipped else ""
        observer.say(f"trial {number + 1}: {varied}: {self.metric.heading} {self.metric.text(value)}{before}")
        return value

    def value(self, result: Result) -> float:
        """What is to be best, of a cell.

        Raises:
            UserError: the cell has no such score.
        """
        value = result.scores.get(self.metric.name, Score(None)).value
        if value is None:
            raise UserError(
                f"a trial has no {self.metric.heading}", f"score={self.metric.name}", "choose another score"
            )
        return value

    def settings(self, result: Result) -> str:
        """What varies, as a cell has it: overrides, for its command line."""
        values: dict[str, Any] = {**dict(entries(result.config)), **result.config["choices"]}
        return " ".join(f"{key}={values[key]}" for key in self.keys if key in values)

    def ended(self, broken: BaseException | None) -> tuple[list[tuple[Path, Result]], list[tuple[list[str], str]]]:
        """Folder and result of each finished cell, the best first; overrides and error of each trial without one.

        Args:
            broken: what ended the study early.

        Raises:
            UserError: it ended before any trial did.
        """
        found, failed = ended_cells(self.folder, [], broken)
        if broken is not None and not failed:
            what = f"the study ended early: {' '.join(f'{broken}'.split())}"
            failed = [([], str(UserError(what, str(self.folder), "mend this, then run the same command again")))]
        best = sorted(dict(found).items(), key=lambda cell: self.metric.merit(self.value(cell[1])), reverse=True)
        return best, failed


def plan_study(overrides: Sequence[str]) -> Study:
    """Check all that is known before the first trial.

    Raises:
        UserError: an override is wrong, nothing varies, or the sweeper is not known or not installed.
    """
    own = [word for word in overrides if is_sweeper(word) or is_launcher(word)]
    fixed, swept = split_swept([word for word in overrides if word not in own])
    search = [word for word in fixed if is_searchpath(word)]
    check_launcher([*search, *(word for word in own if is_launcher(word))])
    config = load_config([*fixed, *swept.values()])
    metric = known_metrics()[config.score]
    if metric.higher_is_better is None:
        raise UserError(
            f"neither more nor less {metric.heading} is better", f"score={config.score}", "such as score=miou"
        )
    if not any(word.startswith("hydra.sweeper.direction=") for word in own):
        own = [*own, f"hydra.sweeper.direction={'maximize' if metric.higher_is_better else 'minimize'}"]
    if workers().count > 1:
        raise UserError("torchrun and a sweeper would both start processes", "hydra/sweeper", "use one of the two")
    sweeper = _sweeper([*search, *own])
    if not swept and not sweeper.get("params"):
        raise UserError("a study over nothing", " ".join(overrides), "such as 'segmenter.tau=interval(0.3,0.8)'")
    keys = [*(word.partition("=")[0] for word in swept), *map(str, sweeper.get("params") or ())]
    direction = str(sweeper.direction).removeprefix("Direction.")
    summary = f"study of {counted(int(sweeper.n_trials), 'trial')} over {', '.join(keys)}: {direction} {metric.heading}"
    return Study(new_folder(config), config, [*own, *with_parts(fixed), *swept], keys, summary)


def _sweeper(words: Sequence[str]) -> DictConfig:
    """The settings of the sweeper that words choose."""
    where = " ".join(word for word in words if is_sweeper(word))
    if not any(word.lstrip("+") == "hydra/sweeper=optuna" for word in words):
        raise UserError("this sweeper is not known here", where, "hydra/sweeper=optuna, or leave it out")
    if not is_installed(_PLUGIN):
        hint = "pip install 'diffcut_bench[sweepers]'; without it, run -m segmenter.tau=0.3,0.4,0.5 takes every value"
        raise UserError("this sweeper is not installed", where, hint)
    try:
        settings: DictConfig = composed(words, with_hydra=True).hydra.sweeper
    except MissingConfigException as error:
        raise UserError(f"there is no {error.missing_cfg_file}", where, f"one of {error.options}") from error
    except HydraException as error:
        hint = "hydra.sweeper.n_trials, .n_jobs, .direction, .storage, .study_name, .sampler.seed …"
        raise UserError("the sweeper has no such setting", where, hint) from error
    return settings
