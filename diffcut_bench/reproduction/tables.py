"""The paper's table redrawn: published, ours, interval, difference, tolerance and verdict of every cell; its files."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from diffcut_bench.evaluation import FEWEST_IMAGES
from diffcut_bench.reporting import (
    Column,
    Table,
    lift_text,
    linking_text,
    number_columns,
    protocols_in_force,
    scored_images,
    stored_curves,
    write_figure,
)
from diffcut_bench.reproduction.claims import Checked, check_claims
from diffcut_bench.reproduction.outcome import Outcome
from diffcut_bench.reproduction.plan import LINKED, PlannedCell
from diffcut_bench.reproduction.spec import Reproduction
from diffcut_bench.reproduction.verdict import Measure, Measured, Verdict, known_measures
from diffcut_bench.store import Bracket, Result, write_atomically

_BETWEEN = "floor – ceiling"


def redraw(reproduction: Reproduction, outcomes: Sequence[Outcome]) -> dict[str, Table]:
    """All that is told of a reproduction: its ``table``, its ``cells``, and the ``claims`` about a table's rows.

    Args:
        reproduction: a table or figure.
        outcomes: of its cells, without seeds of the noise (`average_seeds`).
    """
    checked = check_claims(reproduction, outcomes)
    cells = {"cells": _cells_table(reproduction, outcomes)}
    if reproduction.sweep:
        return {"table": _curves_table(reproduction, checked, outcomes), **cells}
    claims = {"claims": _claims_table(reproduction, checked)} if checked else {}
    return {"table": _redrawn_table(reproduction, outcomes), **claims, **cells}


def write_reproduction(
    folder: Path, reproduction: Reproduction, tables: Mapping[str, Table], curves: dict[str, Any] | None
) -> list[Path]:
    """Write reproduction.json, the tables and the figure.

    Args:
        folder: that they are written to.
        reproduction: whose.
        tables: by name, see `redraw`.
        curves: of a figure, see `figure_curves`.

    Returns:
        Paths of the tables and the figure.
    """
    record = {"schema_version": 1, "name": reproduction.name, "title": reproduction.title, "curves": curves}
    record |= {name: table.to_dict() for name, table in tables.items()}
    write_atomically(folder / "reproduction.json", json.dumps(record, indent=1) + "\n")
    paths = [path for table in tables.values() for path in table.write(folder)]
    figure = stored_curves(curves)
    if figure is not None:
        paths += write_figure(figure, folder, reproduction.name)
    return paths


def _redrawn_table(reproduction: Reproduction, outcomes: Sequence[Outcome]) -> Table:
    """The table in the paper's shape: a block of lines for each method that was run, one line for the others."""
    measures = _measures(reproduction)
    reasons: dict[str, str] = {}
    rows: list[tuple[str, ...]] = []
    for name in dict.fromkeys(each.cell.name for each in outcomes):
        own = {each.cell.column: each for each in outcomes if each.cell.name == name}
        rows += _block(name, own, measures, reasons)
    headings = [measure.name if reproduction.by_column else column for column, measure in measures.items()]
    columns = (Column("method"), Column(""), *number_columns(*headings))
    notes = [f"({letter}) {why}" for why, letter in reasons.items()] + _notes(reproduction, outcomes)
    shared = "" if reproduction.by_column else known_measures()[reproduction.measure].name
    return Table(reproduction.name, reproduction.title, columns, tuple(rows), tuple(notes), shared)


def _measures(reproduction: Reproduction) -> dict[str, Measure]:
    """The measure of each column."""
    known = known_measures()
    return {column: known[reproduction.measure_of(column)] for column in reproduction.columns}


def _cells_table(reproduction: Reproduction, outcomes: Sequence[Outcome]) -> Table:
    """A line a cell, with the whole verdict and all that it was made from: for spreadsheets and plots.

    A mean over seeds of the noise is followed by the cell of each.
    """
    swept = list(dict.fromkeys(name for each in outcomes for name in each.cell.point))
    seeded = any(each.ours is not None and each.ours.seeds for each in outcomes)
    settled = any(each.ours is not None and each.ours.at for each in outcomes)
    names = ["method", "under", "column", *swept, *(["seed"] if seeded else []), *(["best at"] if settled else [])]
    numeric = ["published", "ours", "low", "high", *(["deviation"] if seeded else []), "difference", "tolerance"]
    measures = _measures(reproduction)
    of_scores = any(measure.metric is not None and not measure.optimum for measure in measures.values())
    placed = ["floor", "ceiling", "lift", "lift low", "lift high"] if of_scores else []
    columns = (*map(Column, names), *number_columns(*numeric, *placed), Column("verdict"))
    rows = []

    def line(cell: PlannedCell, ours: Measured | None, seed: str, tolerance: float | None, verdict: str) -> None:
        low, high = ours.interval if ours is not None and ours.interval else (None, None)
        measure = measures[cell.column]
        difference = None if ours is None or cell.published is None else ours.value - cell.published
        deviation = [None if ours is None else ours.deviation] if seeded else []
        numbers = [cell.published, None if ours is None else ours.value, low, high, *deviation, difference, tolerance]
        bracket = None if ours is None else ours.bracket
        numbers += _place(bracket, measure) if bracket is not None else [None] * len(placed)
        swept_to = [f"{cell.point[name]:g}" if name in cell.point else "" for name in swept]
        which = (cell.row.name, cell.under, cell.column)
        at = [ours.at if ours is not None else ""] if settled else []
        rows.append((*which, *swept_to, *([seed] if seeded else []), *at, *map(measure.plain, numbers), verdict))

    for each in outcomes:
        cell, ours = each.cell, each.ours
        measure = measures[cell.column]
        seeds = ours.seeds if ours is not None else ()
        tolerance = (
            None if ours is None or cell.published is None else measure.tolerance(cell.published, ours.deviation)
        )
        line(cell, ours, f"mean of {len(seeds)}" if seeds else "", tolerance, str(each.verdict(measure)))
        for one in seeds:
            line(cell, one, str(one.seed), None, f"one of {len(seeds)} seeds")
    return Table(f"{reproduction.name}_cells", f"{reproduction.title}, cell by cell", columns, tuple(rows))


def _curves_table(reproduction: Reproduction, checked: Sequence[Checked], outcomes: Sequence[Outcome]) -> Table:
    """What the text says about a figure, what ours do, and the verdict."""
    columns = tuple(map(Column, ("the text", "ours", "verdict")))
    rows = tuple((each.text, each.ours, str(each.verdict)) for each in checked)
    notes = (*protocols_in_force(_results(outcomes)), *_about(reproduction, outcomes))
    return Table(reproduction.name, reproduction.title, columns, rows, notes)


def _claims_table(reproduction: Reproduction, checked: Sequence[Checked]) -> Table:
    """The same about rows of a table, beside which it stands."""
    columns = tuple(map(Column, ("claim", "set beside", "ours", "verdict")))
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
    return Table(f"{reproduction.name}_claims", f"{reproduction.title}: claims", columns, rows, notes)


def _block(
    name: str, own: Mapping[str, Outcome], measures: Mapping[str, Measure], reasons: dict[str, str]
) -> list[tuple[str, ...]]:
    """The lines of one method; a line without any text is left out."""
    ran = [each.ours for each in own.values() if each.ours is not None]
    stated = any(each.cell.published is not None for each in own.values())
    deviation = f"deviation over {max((len(ours.seeds) for ours in ran), default=0)} seeds"
    texts = {column: _texts(each, measures[column], deviation) for column, each in own.items()}
    verdicts = {
        column: each.verdict(measures[column])
        for column, each in own.items()
        if stated or each.ours is None or each.cell.unstated
    }

    def letter(verdict: Verdict) -> str:
        return reasons.setdefault(str(verdict), _letter(len(reasons)))

    def line(what: str) -> tuple[str, ...]:
        return tuple(texts[column].get(what, "") if column in texts else "" for column in measures)

    if not ran and len(set(verdicts.values())) == 1:
        return [(name, f"published ({letter(verdicts.popitem()[1])})", *line("published"))]
    for column, verdict in verdicts.items():
        texts[column]["verdict"] = f"{verdict.word} ({letter(verdict)})" if verdict.why else verdict.word
    names = ["ours", deviation, "95 % over images", "best at", _BETWEEN, "lift", "difference", "tolerance", "verdict"]
    if stated or not ran:
        names.insert(0, "published")
    lines = [(what, *line(what)) for what in names if any(line(what))]
    return [("" if number else name, *each) for number, each in enumerate(lines)]


def _texts(outcome: Outcome, measure: Measure, deviation: str) -> dict[str, str]:
    """What the table tells of a cell beside its verdict, by the name of the line."""
    ours, published = outcome.ours, outcome.cell.published
    texts = {"published": measure.text(published, more=measure.more_stated(published or 0.0))}
    if ours is None:
        return texts
    texts["ours"] = measure.text(ours.value, more=1)
    if ours.at:
        texts["best at"] = ours.at
    if ours.seeds:
        texts[deviation] = measure.text(ours.deviation, more=1)
    if ours.interval and (ours.result is None or scored_images(ours.result) >= FEWEST_IMAGES):
        texts["95 % over images"] = " – ".join(map(measure.text, ours.interval))
    if ours.bracket is not None:
        floor, ceiling, *_ = _place(ours.bracket, measure)
        texts[_BETWEEN] = f"{measure.text(floor)} – {measure.text(ceiling)}"
        texts["lift"] = lift_text(ours.bracket.lift, with_interval="95 % over images" in texts)
    if published is not None:
        texts["difference"] = measure.text(ours.value - published, signed=True, more=1)
        tolerance = measure.tolerance(published, ours.deviation)
        texts["tolerance"] = f"{'−' if measure.at_least else '±'}{tolerance:.3g}"
    return texts


def _place(bracket: Bracket, measure: Measure) -> list[float | None]:
    """Floor and ceiling in the table's unit, lift and the ends of its interval as fractions."""
    sides = [score.value for score in (bracket.floor, bracket.ceiling)]
    ends = bracket.lift.ci95 or (None, None)
    return [*(None if value is None else measure.scale * value for value in sides), bracket.lift.value, *ends]


def _letter(number: int) -> str:
    """Numbers as letters: a … z, aa, ab …"""
    last = ascii_lowercase[number % 26]
    return last if number < 26 else _letter(number // 26 - 1) + last


def _results(outcomes: Sequence[Outcome]) -> list[Result]:
    return [each.ours.result for each in outcomes if each.ours is not None and each.ours.result is not None]


def _notes(reproduction: Reproduction, outcomes: Sequence[Outcome]) -> list[str]:
    """Where values come from, what the matching was, and the protocols of what was run."""
    notes = _about(reproduction, outcomes)
    rows = list({each.cell.row.name: each.cell.row for each in outcomes}.values())
    for source in dict.fromkeys(row.source for row in rows if row.source):
        notes.append(f"{', '.join(row.name for row in rows if row.source == source)}: {source}")
    trained = [row.name for row in rows if row.trained]
    linked = list(dict.fromkeys(each.cell.name for each in outcomes if each.cell.under == LINKED and each.ours))
    if linked:
        notes.append(
            f"{', '.join(linked)}: one matching for the whole data set; segments that an image numbers anew are linked "
            "by their mean features first (docs/linking.md). This is the rule that trained rows were published under"
        )
    results = [(each.cell, each.ours.result) for each in outcomes if each.ours is not None]
    spread = [(cell, linking_text(result)) for cell, result in results if result is not None]
    notes += [f"{cell.name}, {cell.column}: {text}" for cell, text in spread if text]
    if trained:
        unless = f" where they are not marked [{LINKED}]" if linked else ""
        notes.append(
            f"{', '.join(trained)}: trained, and published with one matching of clusters to classes for the whole "
            f"data set; the others match in each image{unless}. The two are not comparable."
        )
    ran = [(each.cell, each.ours) for each in outcomes if each.ours is not None]
    notes += [f"{cell.name}, {cell.column}: {ours.remark}" for cell, ours in ran if ours.remark]
    drawn: dict[str, dict[str, None]] = {}  # rows whose noise is another draw than the released code's, by its device
    for cell, ours in ran:
        if (
            cell.published is not None
            and ours.result is not None
            and ours.result.config.get("backbone", {}).get("noise")
        ):
            drawn.setdefault(ours.result.environment.noise_generator, {})[cell.row.name] = None
    notes += [
        f"{', '.join(names)}: noise drawn on the {device}; the released code drew on CUDA, where the same seed gives "
        "another map. --seeds N measures what that moves"
        for device, names in drawn.items()
        if device not in ("cuda", "none")
    ]
    if any(ours.bracket is not None for _, ours in ran):
        notes.append(
            "floor: a grid of as many segments in each image, which looks at no picture; ceiling: the annotation cut "
            "to the patches, not refined; lift: how far from floor to ceiling ours is, with its 95 % interval over "
            "images"
        )
    notes += dict.fromkeys(f"{each.cell.row.name}: {word}" for each in outcomes for word in each.cell.weights)
    limits = dict.fromkeys(
        (cell.column, ours.limits) for cell, ours in ran if cell.published is None and ours.limits and not cell.unstated
    )
    notes += [f"limited, {column}: {'; '.join(why)}" for column, why in limits]
    return [*notes, *protocols_in_force(_results(outcomes))]


def _about(reproduction: Reproduction, outcomes: Sequence[Outcome]) -> list[str]:
    measure = next(iter(_measures(reproduction).values()))
    unstated = any(each.cell.unstated for each in outcomes)
    judged = not unstated and (any(row.published for row in reproduction.rows) or reproduction.claims)
    noise = f" and {measure.noise:g}" if measure.noise else ""
    meant = (
        f"reproduced: ours differs by no more than the tolerance, which is half of the last published digit{noise} "
        "(twice the standard deviation over seeds of the noise, where it was measured and is more)"
    )
    intervals = (
        "95 % over images: what other images of the kind would have given, by resampling; ours and the published value "
        "are of the same images, so it decides no verdict"
    )
    about = [] if not judged or measure.at_least else [meant, intervals]
    if measure.optimum:
        about.append(
            "ODS: all images at the one setting that is best for the data set; OIS: each image at its own best setting "
            "(docs/bsds500.md). In each resample the best setting is chosen anew"
        )
    return [f"published: {reproduction.source}", *about, *reproduction.notes]
