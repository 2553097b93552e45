"""A row of several settings: its value at the best of them, from the rows of images that their cells keep."""

from collections.abc import Callable, Sequence
from pathlib import Path

from diffcut_bench.errors import UserError
from diffcut_bench.evaluation import ImageTable, optimal_scale
from diffcut_bench.reporting import common_images
from diffcut_bench.reproduction.outcome import Outcome
from diffcut_bench.reproduction.plan import PlannedCell
from diffcut_bench.reproduction.verdict import Measure, Measured, missing_of
from diffcut_bench.scoring.events import FinishedCell
from diffcut_bench.scoring.summary import image_table
from diffcut_bench.store import check_published


def images_of(folders: tuple[Path, ...]) -> list[ImageTable]:
    """Images of cells, as far as all of them have them: the same image in the same row.

    Raises:
        UserError: rows of a cell can't be read.
    """
    return [image_table(rows) for rows in common_images([check_published(folder)[1] for folder in folders])]


def measure_optimum(
    cell: PlannedCell,
    ends: Sequence[FinishedCell],
    measure: Measure,
    deviations: Sequence[str],
    images: Callable[[tuple[Path, ...]], list[ImageTable]] = images_of,
) -> Outcome:
    """What became of a cell of several settings (`diffcut_bench.evaluation.optimal_scale`).

    Args:
        cell: as planned.
        ends: how each of its settings ended.
        measure: of the table; one with an ``optimum``.
        deviations: settings that differ from the published cell's.
        images: `images_of`, or what remembers it.
    """
    metric, results = measure.metric, [end.result for end in ends]
    assert metric is not None, "the best of a metric"
    limits = [*dict.fromkeys(limit for result in results for limit in missing_of(result)), *deviations]
    try:
        settings = images(tuple(end.folder for end in ends))
    except UserError as error:
        return Outcome(cell, why=f"{error.what} ({error.where})")
    if not len(settings[0].pixels) or any(metric.missing_in(each, results[0].protocol) for each in settings):
        why = metric.inapplicable(results[0].protocol) or f"no {metric.heading} was measured (if_exists=overwrite)"
        return Outcome(cell, Measured(float("nan"), None, (*limits, why), results[0]))
    found = optimal_scale(metric, settings, results[0].protocol, of_each_image=measure.optimum == "ois")
    at = ""
    if found.setting is not None and cell.settings:
        point = cell.settings[found.setting].point
        at = ", ".join(f"{key.rpartition('.')[2]} {value:g}" for key, value in point.items())
    return Outcome(cell, Measured(found.score, found.interval, tuple(limits), results[0], at=at))
