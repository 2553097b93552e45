"""The cells of a reproduction are run, whatever kind they are of, and give values in its table's unit."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from diffcut_bench.coherence import Measurement, SamplingOptions, measure_coherence
from diffcut_bench.config import RunConfig
from diffcut_bench.errors import UserError
from diffcut_bench.reporting import scored_images
from diffcut_bench.reproduction.optimum import images_of, measure_optimum
from diffcut_bench.reproduction.outcome import Outcome
from diffcut_bench.reproduction.plan import PlannedCell
from diffcut_bench.reproduction.spec import Reproduction, Tuning
from diffcut_bench.reproduction.tuning import tune_setting
from diffcut_bench.reproduction.verdict import Measured, known_measures
from diffcut_bench.scoring.events import FinishedCell, Observer
from diffcut_bench.scoring.failures import logged_error
from diffcut_bench.scoring.passes import pass_key, run_cells
from diffcut_bench.store import cell_key
from diffcut_bench.traces import CodeError, is_debugging


def measure_cells(
    reproduction: Reproduction,
    cells: Sequence[PlannedCell],
    observer: Observer,
    show: Callable[[Measurement], None] = lambda measurement: None,
) -> list[Outcome]:
    """Run what can be run; cells that one pass over the images can score share it.

    Args:
        reproduction: of the table.
        cells: as planned.
        observer: is told what happens.
        show: is given what was measured for a table of AUCs.

    Returns:
        What became of each cell, in the order of ``cells``.
    """
    outcomes = [Outcome(cell, why=cell.not_run) for cell in cells]
    passes: dict[str, dict[str, RunConfig]] = {}
    keys: dict[int, list[str]] = {}  # of the configs of each cell; columns may differ in their measure alone
    for index, cell in enumerate(cells):
        if cell.config is None:
            continue
        try:
            if cell.row.tune is not None:
                outcomes[index] = Outcome(cell, _tuned(cell, cell.row.tune, reproduction.measure, observer))
            elif reproduction.measure == "auc":
                sampling = SamplingOptions(seed=cell.config.seed)
                coherence = measure_coherence([cell.config], sampling, observer=observer)
                show(coherence)
                outcomes[index] = Outcome(cell, _area(cell, coherence))
            else:
                keys[index] = [cell_key(config.to_dict()) for config in cell.configs]
                for key, config in zip(keys[index], cell.configs, strict=True):
                    passes.setdefault(pass_key(config), {})[key] = config
        except UserError as error:
            outcomes[index] = _failed(cell, error)
        except Exception as error:  # the other rows are still run
            outcomes[index] = _failed(cell, logged_error(error, cell.overrides, Path(cell.config.output_dir)))
    ended: dict[str, FinishedCell | UserError] = {}
    for configs in passes.values():
        try:
            ended |= zip(configs, run_cells(list(configs.values()), observer), strict=True)
        except UserError as error:  # what the cells share can't be had
            ended |= dict.fromkeys(configs, error)
        except Exception as error:
            first = next(iter(configs.values()))
            shared = [f"{group}={first.choices.get(group)}" for group in ("dataset", "backbone")]
            ended |= dict.fromkeys(configs, logged_error(error, shared, Path(first.output_dir)))
    images, known = cache(images_of), known_measures()  # one reading for all columns
    for index, own in keys.items():
        cell, measure = cells[index], reproduction.measure_of(cells[index].column)
        ends = [end for end in (ended[key] for key in own) if isinstance(end, FinishedCell)]
        errors = [end for end in (ended[key] for key in own) if isinstance(end, UserError)]
        if errors:
            outcomes[index] = _failed(cell, errors[0])
        elif known[measure].optimum:
            deviations = cell.deviations_with(ends[0].result.identity.get("backbone", {}))
            outcomes[index] = measure_optimum(cell, ends, known[measure], deviations, images)
        else:
            outcomes[index] = Outcome(cell, _scored(cell, ends[0], measure))
    return outcomes


def _failed(cell: PlannedCell, error: UserError) -> Outcome:
    """Why a cell has no value; under ``--debug`` what code of the user's raised is raised."""
    if is_debugging() and isinstance(error, CodeError):
        raise error
    return Outcome(cell, why=error.line if isinstance(error, CodeError) else f"{error.what} ({error.where})")


def _scored(cell: PlannedCell, end: FinishedCell, measure: str) -> Measured:
    deviations = cell.deviations_with(end.result.identity.get("backbone", {}))
    return Measured.of(end.result, measure, deviations, end.folder)


def _tuned(cell: PlannedCell, tuning: Tuning, measure: str, observer: Observer) -> Measured:
    tuned = tune_setting(cell.overrides, tuning, observer)
    setting, paper = tuning.setting.rpartition(".")[2], cell.row.chosen.get(cell.column)
    remark = f"{setting} {tuned.chosen:g} chosen" + (f", published {paper:g}" if paper is not None else "")
    measured = _scored(cell, tuned.cell, measure)
    searched = min(scored_images(each.result) for each in tuned.training)
    few = (f"{searched} of {tuning.images} training images",) if searched < tuning.images else ()
    return replace(measured, limits=(*few, *measured.limits), remark=remark)


def _area(cell: PlannedCell, coherence: Measurement) -> Measured:
    (backbone,), dataset = coherence.record["backbones"], coherence.record["dataset"]
    limits = list(cell.deviations_with(backbone["fingerprint"]))
    if dataset["n_expected"] and dataset["n_images"] < dataset["n_expected"]:
        limits.insert(0, f"{dataset['n_images']} of {dataset['n_expected']} images")
    low, high = backbone["auc_ci95"]
    return Measured(backbone["auc"], (low, high), tuple(limits))
