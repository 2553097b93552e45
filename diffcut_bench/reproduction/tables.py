"""The paper's table redrawn: published, ours, interval, difference and verdict of every cell."""

from collections.abc import Mapping, Sequence

from diffcut_bench.evaluation import FEWEST_IMAGES
from diffcut_bench.reporting import Column, Table, protocols_in_force, scored_images
from diffcut_bench.reproduction.plan import PlannedCell
from diffcut_bench.reproduction.spec import Experiment
from diffcut_bench.reproduction.verdict import MEASURES, Measure, Measured, Verdict, judge

Outcome = tuple[PlannedCell, Measured | None, Verdict]


def redrawn_table(
    experiment: Experiment, cells: Sequence[PlannedCell], measured: Mapping[int, Measured], failed: Mapping[int, str]
) -> Table:
    """The table in the paper's shape: a block of lines for each method that was run, one line for the others.

    Args:
        experiment: of the table.
        cells: as planned.
        measured: values by place in ``cells``.
        failed: why a cell was not run, by place; ``PlannedCell.not_run`` holds what was known before.
    """
    measure = MEASURES[experiment.measure]
    outcomes = judge_cells(cells, measured, failed, measure)
    reasons: dict[str, str] = {}
    rows: list[tuple[str, ...]] = []
    for name in dict.fromkeys(cell.name for cell in cells):
        own = {cell.column: outcome for cell, outcome in zip(cells, outcomes, strict=True) if cell.name == name}
        rows += _block(name, own, list(experiment.columns), measure, reasons)
    columns = [Column("method"), Column("")]
    columns += [Column(name, numeric=True) for name in experiment.columns]
    notes = [f"({letter}) {why}" for why, letter in reasons.items()]
    notes += _notes(experiment, cells, measured)
    return Table(experiment.name, experiment.title, tuple(columns), tuple(rows), tuple(notes), measure.name)


def cells_table(
    experiment: Experiment, cells: Sequence[PlannedCell], measured: Mapping[int, Measured], failed: Mapping[int, str]
) -> Table:
    """A line a cell, with the whole verdict and all that it was made from: for spreadsheets and plots."""
    measure = MEASURES[experiment.measure]
    swept = list(dict.fromkeys(name for cell in cells for name in cell.point or ()))
    names = ["method", "under", "column", *swept]
    numeric = ["published", "ours", "low", "high", "difference"]
    columns = (*map(Column, names), *(Column(name, numeric=True) for name in numeric), Column("verdict"))
    rows = []
    for cell, (_, ours, verdict) in zip(cells, judge_cells(cells, measured, failed, measure), strict=True):
        low, high = ours.interval if ours is not None and ours.interval else (None, None)
        difference = None if ours is None or cell.published is None else ours.value - cell.published
        numbers = (cell.published, None if ours is None else ours.value, low, high)
        rows.append(
            (
                *(cell.row.name, cell.under, cell.column, *(_number(cell.point, name) for name in swept)),
                *(measure.plain(number) for number in (*numbers, difference)),
                str(verdict),
            )
        )
    return Table(f"{experiment.name}_cells", f"{experiment.title}, cell by cell", columns, tuple(rows))


def claims_table(experiment: Experiment, checked: Sequence[tuple[str, str, Verdict]], notes: Sequence[str]) -> Table:
    """What the text says about a figure, what our curves do, and the verdict."""
    columns = (Column("the text"), Column("ours"), Column("verdict"))
    rows = tuple((text, ours, str(verdict)) for text, ours, verdict in checked)
    return Table(experiment.name, experiment.title, columns, rows, (*notes, *_about(experiment)))


def judge_cells(
    cells: Sequence[PlannedCell], measured: Mapping[int, Measured], failed: Mapping[int, str], measure: Measure
) -> list[Outcome]:
    """The verdict of each cell."""
    outcomes: list[Outcome] = []
    for place, cell in enumerate(cells):
        ours = measured.get(place)
        if ours is None:
            outcomes.append((cell, None, Verdict("not run", failed.get(place, cell.not_run))))
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

    published = {column: measure.text(cell.published) for column, (cell, _, _) in own.items()}
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
        column: measure.text(values[column].value - cell.published, signed=True)
        for column, (cell, _, _) in own.items()
        if column in values and cell.published is not None
    }
    numbers = {column: measure.text(ours.value) for column, ours in values.items()}
    if all(cell.published is None for cell, _, _ in own.values()):
        told = {column: verdict_text(verdict) for column, (_, ours, verdict) in own.items() if ours is None}
        lines = [line(name, "ours", numbers), line("", "95 % interval", intervals), line("", "verdict", told)]
        return [each for each in lines if any(each[2:])]
    lines = [
        line(name, "published", published),
        line("", "ours", numbers),
        line("", "95 % interval", intervals),
        line("", "difference", differences),
        line("", "verdict", {column: verdict_text(verdict) for column, (_, _, verdict) in own.items()}),
    ]
    return [each for each in lines if any(each[2:])]


def _told_interval(ours: Measured) -> tuple[float, float] | None:
    """The interval, if it is of images enough to mean something."""
    few = ours.result is not None and scored_images(ours.result) < FEWEST_IMAGES
    return None if few else ours.interval


def _number(point: Mapping[str, float] | None, name: str) -> str:
    return f"{point[name]:g}" if point and name in point else ""


def _letter(place: int) -> str:
    return chr(ord("a") + place) if place < 26 else f"{chr(ord('a') + place // 26 - 1)}{chr(ord('a') + place % 26)}"


def _notes(experiment: Experiment, cells: Sequence[PlannedCell], measured: Mapping[int, Measured]) -> list[str]:
    """Where values come from, what the matching was, and the protocols of what was run."""
    notes = _about(experiment)
    for source in dict.fromkeys(cell.row.source for cell in cells if cell.row.source):
        notes.append(f"{', '.join(dict.fromkeys(c.row.name for c in cells if c.row.source == source))}: {source}")
    trained = list(dict.fromkeys(cell.row.name for cell in cells if cell.row.trained))
    if trained:
        notes.append(
            f"{', '.join(trained)}: trained, and published with one matching of clusters to classes for the whole "
            "data set; the others match in each image. The two are not comparable."
        )
    notes += [
        f"{cells[place].name}, {cells[place].column}: {m.remark}" for place, m in sorted(measured.items()) if m.remark
    ]
    weights = dict.fromkeys((cell.row.name, word) for cell in cells for word in cell.weights)
    notes += [f"{row}: {word}" for row, word in weights]
    unjudged = [place for place, cell in enumerate(cells) if cell.published is None and place in measured]
    limits = dict.fromkeys((cells[place].column, measured[place].limits) for place in unjudged)
    notes += [f"limited, {column}: {'; '.join(why)}" for column, why in limits if why]
    results = [ours.result for ours in measured.values() if ours.result is not None]
    return [*notes, *protocols_in_force(results)]


def _about(experiment: Experiment) -> list[str]:
    measure = MEASURES[experiment.measure]
    widened = f"reproduced: the published value lies in our 95 % interval widened by {measure.tolerance:g}"
    judged = any(row.published for row in experiment.rows) and measure.tolerance
    return [f"published: {experiment.source}", *([widened] if judged else []), *experiment.notes]
