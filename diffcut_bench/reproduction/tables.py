"""The paper's table redrawn: published, ours, interval, difference, tolerance and verdict of every cell."""

from collections.abc import Mapping, Sequence
from string import ascii_lowercase

from diffcut_bench.evaluation import FEWEST_IMAGES
from diffcut_bench.reporting import Column, Table, protocols_in_force, scored_images
from diffcut_bench.reproduction.claims import Checked, check_claims
from diffcut_bench.reproduction.plan import PlannedCell
from diffcut_bench.reproduction.spec import Reproduction
from diffcut_bench.reproduction.verdict import Measure, Measured, Verdict, judge, known_measures
from diffcut_bench.store import Result

Outcome = tuple[PlannedCell, Measured | None, Verdict]


def redraw(
    reproduction: Reproduction,
    cells: Sequence[PlannedCell],
    measured: Mapping[int, Measured],
    failed: Mapping[int, str],
) -> dict[str, Table]:
    """All that is told of a reproduction: its ``table``, its ``cells``, and the ``claims`` about a table's rows.

    Args:
        reproduction: a table or figure.
        cells: as planned, without seeds of the noise (`average_seeds`).
        measured: values by index in ``cells``.
        failed: why a cell was not run, by index; ``PlannedCell.not_run`` holds what was known before.
    """
    checked = check_claims(reproduction, cells, measured, failed)
    results = [ours.result for ours in measured.values() if ours.result is not None]
    told = {"cells": cells_table(reproduction, cells, measured, failed)}
    if reproduction.sweep:
        return {"table": claims_table(reproduction, checked, results), **told}
    claims = {"claims": claims_table(reproduction, checked)} if checked else {}
    return {"table": redrawn_table(reproduction, cells, measured, failed), **claims, **told}


def redrawn_table(
    reproduction: Reproduction,
    cells: Sequence[PlannedCell],
    measured: Mapping[int, Measured],
    failed: Mapping[int, str],
) -> Table:
    """The table in the paper's shape: a block of lines for each method that was run, one line for the others.

    Args:
        reproduction, cells, measured, failed: see `redraw`.
    """
    measure = known_measures()[reproduction.measure]
    outcomes = judge_cells(cells, measured, failed, measure)
    reasons: dict[str, str] = {}
    rows: list[tuple[str, ...]] = []
    for name in dict.fromkeys(cell.name for cell in cells):
        own = {cell.column: outcome for cell, outcome in zip(cells, outcomes, strict=True) if cell.name == name}
        rows += _block(name, own, list(reproduction.columns), measure, reasons)
    columns = [Column("method"), Column("")]
    columns += [Column(name, numeric=True) for name in reproduction.columns]
    notes = [f"({letter}) {why}" for why, letter in reasons.items()]
    notes += _notes(reproduction, cells, measured)
    return Table(reproduction.name, reproduction.title, tuple(columns), tuple(rows), tuple(notes), measure.name)


def cells_table(
    reproduction: Reproduction,
    cells: Sequence[PlannedCell],
    measured: Mapping[int, Measured],
    failed: Mapping[int, str],
) -> Table:
    """A line a cell, with the whole verdict and all that it was made from: for spreadsheets and plots.

    A mean over seeds of the noise is followed by the cell of each.
    """
    measure = known_measures()[reproduction.measure]
    swept = list(dict.fromkeys(name for cell in cells for name in cell.point or ()))
    seeded = any(ours.seeds for ours in measured.values())
    names = ["method", "under", "column", *swept, *(["seed"] if seeded else [])]
    numeric = ["published", "ours", "low", "high", *(["deviation"] if seeded else []), "difference", "tolerance"]
    columns = (*map(Column, names), *(Column(name, numeric=True) for name in numeric), Column("verdict"))
    rows = []

    def line(cell: PlannedCell, ours: Measured | None, seed: str, tolerance: float | None, verdict: str) -> None:
        low, high = ours.interval if ours is not None and ours.interval else (None, None)
        difference = None if ours is None or cell.published is None else ours.value - cell.published
        deviation = [None if ours is None else ours.deviation] if seeded else []
        numbers = (cell.published, None if ours is None else ours.value, low, high, *deviation, difference, tolerance)
        swept_to = [_number(cell.point, name) for name in swept]
        which = (cell.row.name, cell.under, cell.column, *swept_to, *([seed] if seeded else []))
        rows.append((*which, *map(measure.plain, numbers), verdict))

    for cell, (_, ours, verdict) in zip(cells, judge_cells(cells, measured, failed, measure), strict=True):
        seeds = ours.seeds if ours is not None else ()
        stated = None if ours is None or cell.published is None else measure.tolerance(cell.published, ours.deviation)
        line(cell, ours, f"mean of {len(seeds)}" if seeds else "", stated, str(verdict))
        for each in seeds:
            line(cell, each, str(each.seed), None, f"one of {len(seeds)} seeds")
    return Table(f"{reproduction.name}_cells", f"{reproduction.title}, cell by cell", columns, tuple(rows))


def claims_table(reproduction: Reproduction, checked: Sequence[Checked], results: Sequence[Result] = ()) -> Table:
    """What the text says, what ours do, and the verdict: of a figure its table, of a table one beside it.

    Args:
        reproduction: of the table or figure.
        checked: see `check_claims`.
        results: that a figure is drawn from.
    """
    if reproduction.sweep:
        columns = tuple(map(Column, ("the text", "ours", "verdict")))
        curves = tuple((each.text, each.ours, str(each.verdict)) for each in checked)
        notes = (*protocols_in_force(results), *_about(reproduction))
        return Table(reproduction.name, reproduction.title, columns, curves, notes)
    names = ("claim", "set beside", "ours", "verdict")
    rows = tuple((each.text, each.beside or "–", each.ours, str(each.verdict)) for each in checked)
    noise = known_measures()[reproduction.measure].noise
    notes = (
        "ours: how far the row is ahead of the best of the others, with the 95 % interval of the paired bootstrap over "
        "the images that all of them have; of rows that can't be run here there is the published figure alone, and "
        "over those the lead has no interval",
        "reproduced: the interval lies above 0, each published figure is passed by more than the tolerance, and the "
        f"size, where one is stated, is ours but for it; the tolerance is half of the last digit and {noise:g} (twice "
        "the standard deviation over seeds of the noise, where it was measured and is more)",
    )
    return Table(f"{reproduction.name}_claims", f"{reproduction.title}: claims", tuple(map(Column, names)), rows, notes)


def judge_cells(
    cells: Sequence[PlannedCell], measured: Mapping[int, Measured], failed: Mapping[int, str], measure: Measure
) -> list[Outcome]:
    """The verdict of each cell."""
    outcomes: list[Outcome] = []
    for index, cell in enumerate(cells):
        ours = measured.get(index)
        if ours is None:
            outcomes.append((cell, None, Verdict("not run", failed.get(index, cell.not_run))))
        elif cell.published is None:
            outcomes.append((cell, ours, Verdict("not stated", "; ".join(ours.limits))))
        else:
            outcomes.append((cell, ours, judge(cell.published, ours, measure)))
    return outcomes


def _block(
    name: str, own: Mapping[str, Outcome], columns: Sequence[str], measure: Measure, reasons: dict[str, str]
) -> list[tuple[str, ...]]:
    """The lines of one method."""

    def line(first: str, what: str, texts: Mapping[str, str]) -> tuple[str, ...]:
        return (first, what, *(texts.get(column, "") for column in columns))

    def verdict_text(verdict: Verdict) -> str:
        return f"{verdict.word} ({letter(verdict)})" if verdict.why else verdict.word

    def letter(verdict: Verdict) -> str:
        return reasons.setdefault(str(verdict), _letter(len(reasons)))

    stated = {column: cell.published for column, (cell, _, _) in own.items()}
    published = {
        column: measure.text(value, more=0 if value is None else measure.more_stated(value))
        for column, value in stated.items()
    }
    if not any(ours for _, ours, _ in own.values()):
        alike = {verdict for _, _, verdict in own.values()}
        if len(alike) == 1:
            return [line(name, f"published ({letter(alike.pop())})", published)]
        words = {column: verdict_text(verdict) for column, (_, _, verdict) in own.items()}
        return [line(name, "published", published), line("", "verdict", words)]
    values = {column: ours for column, (_, ours, _) in own.items() if ours is not None}
    ends = {column: _told_interval(ours) for column, ours in values.items()}
    intervals = {column: f"{measure.text(both[0])} – {measure.text(both[1])}" for column, both in ends.items() if both}
    differences = {
        column: measure.text(values[column].value - cell.published, signed=True, more=1)
        for column, (cell, _, _) in own.items()
        if column in values and cell.published is not None
    }
    numbers = {column: measure.text(ours.value, more=1) for column, ours in values.items()}
    seeds = max((len(ours.seeds) for ours in values.values()), default=0)
    spread = {column: measure.text(ours.deviation, more=1) for column, ours in values.items() if ours.seeds}
    measured = [
        line(name, "ours", numbers),
        line("", f"deviation over {seeds} seeds", spread),
        line("", "95 % over images", intervals),
    ]
    if all(cell.published is None for cell, _, _ in own.values()):
        told = {column: verdict_text(verdict) for column, (_, ours, verdict) in own.items() if ours is None}
        return [each for each in [*measured, line("", "verdict", told)] if any(each[2:])]
    sign = "−" if measure.at_least else "±"
    tolerances = {
        column: f"{sign}{measure.tolerance(cell.published, ours.deviation):.3g}"
        for column, (cell, ours, _) in own.items()
        if ours is not None and cell.published is not None
    }
    first, *rest = measured
    lines = [
        line(name, "published", published),
        ("", *first[1:]),
        *rest,
        line("", "difference", differences),
        line("", "tolerance", tolerances),
        line("", "verdict", {column: verdict_text(verdict) for column, (_, _, verdict) in own.items()}),
    ]
    return [each for each in lines if any(each[2:])]


def _told_interval(ours: Measured) -> tuple[float, float] | None:
    """The interval, if it is of images enough to mean something."""
    few = ours.result is not None and scored_images(ours.result) < FEWEST_IMAGES
    return None if few else ours.interval


def _number(point: Mapping[str, float] | None, name: str) -> str:
    return f"{point[name]:g}" if point and name in point else ""


def _letter(number: int) -> str:
    """Numbers as letters: a … z, aa, ab …"""
    last = ascii_lowercase[number % 26]
    return last if number < 26 else _letter(number // 26 - 1) + last


def _notes(reproduction: Reproduction, cells: Sequence[PlannedCell], measured: Mapping[int, Measured]) -> list[str]:
    """Where values come from, what the matching was, and the protocols of what was run."""
    notes = _about(reproduction)
    for source in dict.fromkeys(cell.row.source for cell in cells if cell.row.source):
        notes.append(f"{', '.join(dict.fromkeys(c.row.name for c in cells if c.row.source == source))}: {source}")
    trained = list(dict.fromkeys(cell.row.name for cell in cells if cell.row.trained))
    if trained:
        notes.append(
            f"{', '.join(trained)}: trained, and published with one matching of clusters to classes for the whole "
            "data set; the others match in each image. The two are not comparable."
        )
    notes += [
        f"{cells[index].name}, {cells[index].column}: {m.remark}" for index, m in sorted(measured.items()) if m.remark
    ]
    notes += _drawn_elsewhere(cells, measured)
    weights = dict.fromkeys((cell.row.name, word) for cell in cells for word in cell.weights)
    notes += [f"{row}: {word}" for row, word in weights]
    unjudged = [index for index, cell in enumerate(cells) if cell.published is None and index in measured]
    limits = dict.fromkeys((cells[index].column, measured[index].limits) for index in unjudged)
    notes += [f"limited, {column}: {'; '.join(why)}" for column, why in limits if why]
    results = [ours.result for ours in measured.values() if ours.result is not None]
    return [*notes, *protocols_in_force(results)]


def _drawn_elsewhere(cells: Sequence[PlannedCell], measured: Mapping[int, Measured]) -> list[str]:
    """Rows with a published value whose noise is another draw than the released code's, which is CUDA's."""
    drawn: dict[str, dict[str, None]] = {}
    for index, ours in sorted(measured.items()):
        backbone = ours.result.config.get("backbone", {}) if ours.result is not None else {}
        if ours.result is not None and backbone.get("noise") and cells[index].published is not None:
            drawn.setdefault(ours.result.environment.noise_generator, {})[cells[index].row.name] = None
    return [
        f"{', '.join(rows)}: noise drawn on the {device}; the released code drew on CUDA, where the same seed gives "
        "another map. --seeds N measures what that moves"
        for device, rows in drawn.items()
        if device not in ("cuda", "none")
    ]


def _about(reproduction: Reproduction) -> list[str]:
    measure = known_measures()[reproduction.measure]
    judged = any(row.published for row in reproduction.rows) or reproduction.claims
    meant = (
        "reproduced: ours differs by no more than the tolerance, which is half of the last published digit and "
        f"{measure.noise:g} (twice the standard deviation over seeds of the noise, where it was measured and is more)"
    )
    intervals = (
        "95 % over images: what other images of the kind would have given, by resampling; ours and the published value "
        "are of the same images, so it decides no verdict"
    )
    about = [] if not judged or measure.at_least else [meant, intervals]
    return [f"published: {reproduction.source}", *about, *reproduction.notes]
