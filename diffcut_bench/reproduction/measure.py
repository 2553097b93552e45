"""The cells of a reproduction are run, whatever kind they are of, and give values in its table's unit."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from diffcut_bench.coherence import Measurement, SamplingOptions, measure_coherence
from diffcut_bench.config import RunConfig
from diffcut_bench.errors import UserError
from diffcut_bench.reproduction.plan import PlannedCell
from diffcut_bench.reproduction.spec import Reproduction, Tuning
from diffcut_bench.reproduction.tuning import tune_setting
from diffcut_bench.reproduction.verdict import Measured
from diffcut_bench.scoring.events import Observer
from diffcut_bench.scoring.passes import pass_key, run_cells


def measure_cells(
    reproduction: Reproduction,
    cells: Sequence[PlannedCell],
    observer: Observer,
    show: Callable[[Measurement], None] = lambda measurement: None,
) -> tuple[dict[int, Measured], dict[int, str]]:
    """Run what can be run; cells that one pass over the images can score share it.

    Args:
        reproduction: of the table.
        cells: as planned.
        observer: is told what happens.
        show: is given what was measured for a table of AUCs.

    Returns:
        Our value of every cell that could be run, and why the others could not, by index in ``cells``.
    """
    measured: dict[int, Measured] = {}
    failed: dict[int, str] = {}
    passes: dict[str, dict[int, RunConfig]] = {}
    for index, cell in enumerate(cells):
        if cell.config is None:
            continue
        try:
            if cell.row.tune is not None:
                measured[index] = _tuned(cell, cell.row.tune, observer)
            elif reproduction.measure == "auc":
                sampling = SamplingOptions(seed=cell.config.seed)
                coherence = measure_coherence([cell.config], sampling, observer=observer)
                show(coherence)
                measured[index] = _area(cell, coherence)
            else:
                passes.setdefault(pass_key(cell.config), {})[index] = cell.config
        except UserError as error:
            failed[index] = _reason(error)
    for configs in passes.values():
        try:
            ended = dict(zip(configs, run_cells(list(configs.values()), observer), strict=True))
        except UserError as error:  # what the cells share can't be had
            ended = dict.fromkeys(configs, error)
        for index, end in ended.items():
            if isinstance(end, UserError):
                failed[index] = _reason(end)
            else:
                deviations = cells[index].deviations_with(end.result.identity.get("backbone", {}))
                measured[index] = Measured.of(end.result, deviations, reproduction.measure, end.folder)
    return measured, failed


def _tuned(cell: PlannedCell, tuning: Tuning, observer: Observer) -> Measured:
    tuned = tune_setting(cell.overrides, tuning, observer)
    setting, paper = tuning.setting.rpartition(".")[2], cell.row.chosen.get(cell.column)
    remark = f"{setting} {tuned.chosen:g} chosen" + (f", published {paper:g}" if paper is not None else "")
    deviations = cell.deviations_with(tuned.cell.result.identity.get("backbone", {}))
    measured = Measured.of(tuned.cell.result, deviations, folder=tuned.cell.folder)
    searched = min(each.result.dataset.n_images - len(each.result.failures) for each in tuned.training)
    few = (f"{searched} of {tuning.images} training images",) if searched < tuning.images else ()
    return replace(measured, limits=(*few, *measured.limits), remark=remark)


def _area(cell: PlannedCell, coherence: Measurement) -> Measured:
    (backbone,), dataset = coherence.record["backbones"], coherence.record["dataset"]
    limits = list(cell.deviations_with(backbone["fingerprint"]))
    if dataset["n_expected"] and dataset["n_images"] < dataset["n_expected"]:
        limits.insert(0, f"{dataset['n_images']} of {dataset['n_expected']} images")
    low, high = backbone["auc_ci95"]
    return Measured(backbone["auc"], (low, high), tuple(limits))


def _reason(error: UserError) -> str:
    return f"{error.what} ({error.where})"
