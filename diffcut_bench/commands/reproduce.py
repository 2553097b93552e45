"""``diffcut-bench reproduce``: a table or figure of the paper: published, ours, interval, verdict."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from diffcut_bench.coherence import SamplingOptions
from diffcut_bench.commands.budget import TFLOPS, print_budget, print_status
from diffcut_bench.commands.coherence import measure_coherence
from diffcut_bench.commands.passes import run_with_progress, say_failures
from diffcut_bench.commands.terminal import console, say
from diffcut_bench.commands.tune import tune_setting
from diffcut_bench.config import RunConfig, load_config
from diffcut_bench.errors import UserError
from diffcut_bench.experiment import pass_key
from diffcut_bench.paths import expanded
from diffcut_bench.reporting import Curve, Table, draw_curves, protocols_in_force, write_figure
from diffcut_bench.reproduction import (
    MEASURES,
    Experiment,
    Measured,
    PlannedCell,
    Point,
    Verdict,
    cells_table,
    check_claim,
    claims_table,
    known_experiments,
    load_experiment,
    plan_cells,
    redrawn_table,
    resolve_under,
)
from diffcut_bench.running import FinishedCell
from diffcut_bench.store import unwritable, write_atomically


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own flags."""
    parser.add_argument("name", metavar="NAME", help=f"one of {', '.join(sorted(known_experiments(), key=_in_order))}")
    parser.add_argument("--dry-run", action="store_true", help="print the cells, what they need and how long it takes")
    parser.add_argument(
        "--tflops", metavar="N", type=float, default=TFLOPS, help="10^12 operations a second of the GPU of --dry-run"
    )
    parser.add_argument("--status", action="store_true", help="print how far each cell is")
    parser.add_argument(
        "--under", metavar="A,B", help="protocols and background rules to score under, side by side; or all"
    )
    parser.add_argument(
        "--predictions", metavar="ROW=DIR", action="append", default=[], help="segmentations of a row: DIR/COLUMN/*.png"
    )
    parser.add_argument(
        *("--for",),
        dest="of_part",
        nargs=2,
        metavar=("PART", "KEY=VALUE"),
        action="append",
        default=[],
        help="override for one column's or row's cells, such as --for voc dataset.root=DIR",
    )


def reproduce(options: argparse.Namespace) -> int:
    """Run what can be run, print the table redrawn, write it and its figures.

    Raises:
        UserError: the name, a row, a column or an override is unknown.
    """
    experiment = load_experiment(options.name, options.overrides)
    of_part: dict[str, list[str]] = {}
    for part, override in options.of_part:
        of_part.setdefault(part, []).append(override)
    cells = plan_cells(
        experiment,
        options.overrides,
        under=resolve_under(options.under.split(",")) if options.under else None,
        predictions=_folders(options.predictions),
        of_part=of_part,
    )
    if options.dry_run or options.status:
        if options.dry_run:
            print_budget(experiment, cells, options.tflops)
        else:
            print_status(experiment, cells)
        return 0
    folder = _output_dir(cells, options.overrides) / "reproductions" / experiment.name
    try:
        folder.mkdir(parents=True, exist_ok=True)  # before any work, so that an unwritable folder costs nothing
    except OSError as error:
        raise unwritable(folder, error) from error
    measured, failed = _measure(experiment, cells)
    table, curves = _tables(experiment, cells, measured, failed)
    table.print(console)
    say_failures([ours.result for ours in measured.values() if ours.result is not None])
    _write(folder, experiment, table, cells_table(experiment, cells, measured, failed), curves)
    runnable = any(not cell.not_run for cell in cells)
    return 2 if runnable and not measured else 0


def _measure(experiment: Experiment, cells: Sequence[PlannedCell]) -> tuple[dict[int, Measured], dict[int, str]]:
    """Our value of every cell that could be run, and why the others could not, by place."""
    measured: dict[int, Measured] = {}
    failed: dict[int, str] = {}
    together: dict[str, list[int]] = {}
    for place, cell in enumerate(cells):
        if cell.config is None:
            continue
        if cell.row.tune is not None or experiment.measure == "auc":
            try:
                measured[place] = _tuned(cell) if cell.row.tune is not None else _coherence(cell)
            except UserError as error:
                failed[place] = _reason(error)
        else:
            together.setdefault(pass_key(cell.config), []).append(place)
    for places in together.values():
        for place, end in zip(places, _run([_config(cells[place]) for place in places], experiment.name), strict=True):
            if isinstance(end, UserError):
                failed[place] = _reason(end)
            elif experiment.measure == "images_per_s":
                measured[place] = Measured(end.result.timings.images_per_s, None, cells[place].deviations, end.result)
            else:
                measured[place] = Measured.of(end.result, cells[place].deviations, experiment.measure)
    return measured, failed


def _run(configs: Sequence[RunConfig], group: str) -> Sequence[FinishedCell | UserError]:
    """One pass; what its cells share and can't be had is the fate of each."""
    try:
        return run_with_progress(configs, group)
    except UserError as error:
        return [error] * len(configs)


def _tuned(cell: PlannedCell) -> Measured:
    assert cell.row.tune is not None
    tuning = cell.row.tune
    tuned = tune_setting(cell.overrides, tuning.setting, tuning.grid, tuning.images)
    setting, paper = tuning.setting.rpartition(".")[2], cell.row.chosen.get(cell.column)
    remark = f"{setting} {tuned.chosen:g} chosen" + (f", published {paper:g}" if paper is not None else "")
    measured = Measured.of(tuned.cell.result, cell.deviations)
    searched = min(each.result.dataset.n_images - len(each.result.failures) for each in tuned.training)
    few = (f"{searched} of {tuning.images} training images",) if searched < tuning.images else ()
    return replace(measured, limits=(*few, *measured.limits), remark=remark)


def _coherence(cell: PlannedCell) -> Measured:
    options = argparse.Namespace(**asdict(SamplingOptions()), mark=None, mark_images=None)
    record = measure_coherence([_config(cell)], options)
    (backbone,), dataset = record["backbones"], record["dataset"]
    limits = list(cell.deviations)
    if dataset["n_expected"] and dataset["n_images"] < dataset["n_expected"]:
        limits.insert(0, f"{dataset['n_images']} of {dataset['n_expected']} images")
    low, high = backbone["auc_ci95"]
    return Measured(backbone["auc"], (low, high), tuple(limits))


def _tables(
    experiment: Experiment, cells: Sequence[PlannedCell], measured: dict[int, Measured], failed: dict[int, str]
) -> tuple[Table, dict[str, Any] | None]:
    """The table to print, and the curves of a figure."""
    if not experiment.sweep:
        return redrawn_table(experiment, cells, measured, failed), None
    measure = MEASURES[experiment.measure]
    checked = []
    for part in _parts(cells):
        for claim in experiment.claims:
            curve = [
                place
                for place, cell in enumerate(cells)
                if _part(cell) == part
                and all((cell.point or {}).get(key) == value for key, value in claim.where.items())
            ]
            points = [Point((cells[p].point or {})[claim.axis], measured[p]) for p in curve if p in measured]
            ours, verdict = check_claim(claim, points, measure, len(curve))
            if not points:
                why = next((failed.get(place, cells[place].not_run) for place in curve), "")
                verdict = Verdict("not run", why)
            checked.append((" ".join([claim.text, *_told_apart(cells, part)]), ours, verdict))
    notes = protocols_in_force([ours.result for ours in measured.values() if ours.result is not None])
    return claims_table(experiment, checked, notes), _curves(experiment, cells, measured)


def _curves(experiment: Experiment, cells: Sequence[PlannedCell], measured: dict[int, Measured]) -> dict[str, Any]:
    """The figure's curves, as reproduction.json keeps them."""
    axis = experiment.axis or next(iter(cells[0].point or {}), "")
    lines: dict[str, list[tuple[float, Measured]]] = {}
    for place, ours in sorted(measured.items()):
        point = dict(cells[place].point or {})
        x = point.pop(axis)
        label = ", ".join(f"{name.rpartition('.')[2]} {value:g}" for name, value in point.items())
        parts = _told_apart(cells, _part(cells[place]))
        lines.setdefault(" ".join([label, *parts]).strip() or cells[place].row.name, []).append((x, ours))
    curves = []
    for label, points in lines.items():
        points.sort(key=lambda point: point[0])
        ends = [ours.interval for _, ours in points if ours.interval is not None]
        curves.append(
            {
                **{"label": label, "x": [x for x, _ in points], "y": [ours.value for _, ours in points]},
                **{"low": [low for low, _ in ends], "high": [high for _, high in ends]},
            }
        )
    return {
        **{"x_label": axis.rpartition(".")[2], "y_label": MEASURES[experiment.measure].name},
        **{"curves": curves, "references": [list(pair) for pair in experiment.references.items()]},
    }


def _part(cell: PlannedCell) -> tuple[str, str, str]:
    """What a curve is of, beside its settings."""
    return cell.row.name, cell.column, cell.under


def _parts(cells: Sequence[PlannedCell]) -> list[tuple[str, str, str]]:
    """What there are curves of; a row that is not run has none, unless nothing has."""
    return list(dict.fromkeys(map(_part, [cell for cell in cells if cell.config is not None] or cells)))


def _told_apart(cells: Sequence[PlannedCell], part: tuple[str, str, str]) -> list[str]:
    """Row, column and protocol of a curve, as far as there are several of them."""
    several = [len(set(names)) > 1 for names in zip(*_parts(cells), strict=True)]
    return [f"[{name}]" for name, needed in zip(part, several, strict=True) if needed]


def _write(folder: Path, experiment: Experiment, table: Table, cells: Table, curves: dict[str, Any] | None) -> None:
    record = {"schema_version": 1, "name": experiment.name, "title": experiment.title}
    record |= {"table": table.to_dict(), "curves": curves}
    write_atomically(folder / "reproduction.json", json.dumps(record, indent=1) + "\n")
    paths = [*table.write(folder), *cells.write(folder)]
    if curves is not None and curves["curves"]:
        drawn = [Curve(**curve) for curve in curves["curves"]]
        references = [(str(name), float(value)) for name, value in curves["references"]]
        figure = draw_curves(drawn, curves["x_label"], curves["y_label"], references)
        paths += write_figure(figure, folder, experiment.name)
    for path in paths:
        say(f"written  {path}")


def _config(cell: PlannedCell) -> RunConfig:
    assert cell.config is not None
    return cell.config


def _reason(error: UserError) -> str:
    return f"{error.what} ({error.where})"


def _output_dir(cells: Sequence[PlannedCell], overrides: Sequence[str]) -> Path:
    for cell in cells:
        if cell.config is not None:
            return Path(cell.config.output_dir)
    # Overrides that only a cell's options know are no matter here.
    return Path(load_config([word for word in overrides if word.startswith(("output_dir=", "hydra."))]).output_dir)


def _folders(texts: Sequence[str]) -> dict[str, Path]:
    """Folder of predictions of each row."""
    folders = {}
    for text in texts:
        row, separator, folder = text.rpartition("=")
        if not separator or not row or not folder:
            raise UserError(f"{text!r} names no folder", "--predictions", 'write --predictions "ROW=DIR"')
        folders[row] = Path(expanded(folder, "--predictions"))
    return folders


def _in_order(name: str) -> tuple[bool, int, str]:
    digits = "".join(character for character in name if character.isdecimal())
    return not name.startswith("table"), int(digits or 0), name
