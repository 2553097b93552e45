"""The schema of conf/reproduction/: a table or figure as rows × columns of cells, each with its published value."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from diffcut_bench.config import is_searchpath, known_options, quote_if_needed
from diffcut_bench.config.overrides import composed
from diffcut_bench.errors import UserError, did_you_mean
from diffcut_bench.evaluation import known_metrics
from diffcut_bench.reproduction.verdict import known_measures

OF_CURVES = ("above", "best", "within")  # kinds of claims


@dataclass
class Tuning:
    """A setting is chosen on training images first (table 10).

    Attributes:
        images: of the training split, drawn at random; all where there are fewer.
        grid: values to choose from.
        setting: key that is chosen.
        draw: seed of the draw.
        train: overrides that make the training split; None: the data set's own suggestion.
    """

    images: int
    grid: list[float]
    setting: str = "segmenter.tau"
    draw: int = 42
    train: list[str] | None = None


@dataclass
class ReleasedFile:
    """A file of the released code that the published row was run with, and that is not ours to ship.

    Attributes:
        option: that takes it.
        what: it holds.
        sha256: of its bytes, by column.
    """

    option: str
    what: str
    sha256: dict[str, str]


@dataclass
class Row:
    """A method of the table.

    Attributes:
        name: as printed.
        overrides: that make its cells, after the column's.
        published: value of each column, in the table's unit; absent where the paper has none.
        not_run: why its cells can't be run here; it can still be scored from its predictions.
        needs: option that it is run with all the same where the user sets it, such as a file of trained weights.
        trained: it was published with one matching for the whole data set.
        source: of its values, where it is another than the table's.
        tune: a setting is chosen before the cells are run.
        chosen: what the paper chose, by column.
        of_column: further overrides of its cell in one column, such as a value tuned for a data set.
        sweep: comma lists and ranges of its own; its value is the best over every combination, as the measure says
            (``covering_ods``: of one for the data set, ``covering_ois``: of each image's own).
        files: without them, or with others, its cells are not the published ones.
    """

    name: str
    overrides: list[str] = field(default_factory=list)
    published: dict[str, float] = field(default_factory=dict)
    not_run: str | None = None
    trained: bool = False
    source: str | None = None
    tune: Tuning | None = None
    chosen: dict[str, float] = field(default_factory=dict)
    of_column: dict[str, list[str]] = field(default_factory=dict)
    files: list[ReleasedFile] = field(default_factory=list)
    sweep: list[str] = field(default_factory=list)
    needs: str = ""


@dataclass
class Claim:
    """What the text says about a curve, or about a row beside others, in numbers that can be checked.

    Attributes:
        text: the statement.
        kind: of a curve ``above``: the score lies above ``value`` for ``axis`` from ``low`` to ``high`` (and nowhere
            else with ``only``), or over a stretch of at least ``span``; ``best``: the best score lies from ``low`` to
            ``high``; ``within``: all scores lie from ``low`` to ``high``. Of a table ``exceeds``: ``row`` is ahead of
            the best of ``others``, in the mean over ``columns`` or in each.
        where: settings of the curve.
        row, others: rows by name.
        columns: that the statement is about; none: all that the row has.
        by: how far ahead; None: by whatever.
        each_column: it is ahead in every one of the columns.
    """

    text: str
    kind: str
    axis: str = ""
    where: dict[str, float] = field(default_factory=dict)
    value: float | None = None
    low: float | None = None
    high: float | None = None
    span: float | None = None
    only: bool = False
    row: str = ""
    others: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    by: float | None = None
    each_column: bool = False


@dataclass
class Reproduction:
    """A table or figure.

    Attributes:
        title, source: of the table, and where its values stand.
        name: of the option.
        measure: name of a metric (``miou``, ``jaccard`` …), ``auc`` or ``images_per_s``; or a metric's name and
            ``_ods`` or ``_ois``, for the best of a row's sweep. ``column``: each column is of the measure that it is
            named by, and all of them are of the same cells unless their overrides differ.
        columns: overrides of each column.
        common: overrides of all cells.
        rows: methods.
        trained: overrides that score a trained row as it was published.
        sweep: comma lists; every combination is a point of a row's curves.
        axis: swept setting along which curves are drawn.
        references: horizontal lines of the figure.
        claims: the text's statements about curves or rows.
        notes: under the table.
    """

    title: str
    source: str
    name: str = ""
    measure: str = "miou"
    columns: dict[str, list[str]] = field(default_factory=dict)
    common: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    trained: list[str] = field(default_factory=list)
    sweep: list[str] = field(default_factory=list)
    axis: str | None = None
    references: dict[str, float] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def by_column(self) -> bool:
        """Whether columns differ in their measure."""
        return self.measure == "column"

    def measure_of(self, column: str) -> str:
        """Name of the measure of a column."""
        return column if self.by_column else self.measure

    def problems(self) -> list[str]:
        """What is wrong with it, one line each."""
        found = [] if self.rows and self.columns else ["it has no rows or no columns"]
        known, measures = known_measures(), list(dict.fromkeys(map(self.measure_of, self.columns)))
        if unknown := [name for name in measures if name not in known]:
            found.append(f"measure must be {' | '.join(known)}, not {', '.join(map(repr, unknown))}")
        if self.by_column and (self.sweep or "auc" in measures):
            found.append("measure: column is of tables of scores")
        best = not unknown and all(known[name].optimum for name in measures)
        names = [row.name for row in self.rows]
        found += [f"two rows are named {name}" for name in dict.fromkeys(names) if names.count(name) > 1]
        for row in self.rows:
            if row.tune is not None and self.measure == "auc":
                found.append(f"{row.name}: tune is of tables of scores")
            if row.sweep and (row.tune is not None or self.sweep or not best):
                found.append(f"{row.name}: sweep takes measures of the best, such as miou_ods, and no tune")
            numbers = {**row.published, **row.chosen}
            found += [f"{row.name}: {name} is {value}" for name, value in numbers.items() if not math.isfinite(value)]
            named = {*row.published, *row.chosen, *row.of_column}
            found += [f"{row.name} has no column {name}" for name in named - {*self.columns}]
        return found + [f"claim {claim.text!r}: {what}" for claim in self.claims for what in self._wrong_in(claim)]

    def _wrong_in(self, claim: Claim) -> list[str]:
        numbers = {name: getattr(claim, name) for name in ("value", "low", "high", "span", "by")}
        odd = [f"{name} is {n}" for name, n in numbers.items() if n is not None and not math.isfinite(n)]
        if odd:
            return odd
        if claim.kind in OF_CURVES:
            return [] if claim.axis and self.sweep else ["a curve needs sweep, and axis"]
        if claim.kind != "exceeds":
            return [f"kind must be {' | '.join((*OF_CURVES, 'exceeds'))}"]
        rows = {row.name for row in self.rows}
        found = [f"there is no row {name!r}" for name in (claim.row, *claim.others) if name not in rows]
        found += [f"there is no column {name!r}" for name in claim.columns if name not in self.columns]
        found += [] if claim.others else ["others names no row"]
        if len({claim.row, *claim.others}) <= len(claim.others):
            found.append("others names a row twice, or the claim's own")
        if claim.by is not None and claim.by <= 0:
            found.append("by must lie above 0: it is how far the row is ahead")
        found += [] if claim.by is None or not claim.each_column else ["by is of the mean, and not of each_column"]
        if self.sweep or self.measure not in known_metrics():
            found.append(f"rows are compared in tables of {' | '.join(known_metrics())}")
        return found


def load_reproduction(name: str, overrides: Sequence[str] = ()) -> Reproduction:
    """A table or figure by name.

    Args:
        name: a file of conf/reproduction/, or of ``reproduction/`` in a folder of ``hydra.searchpath``.
        overrides: of which ``hydra.searchpath`` is looked at.

    Raises:
        UserError: there is none of this name, or it holds something else than a reproduction.
    """
    search = [quote_if_needed(override) for override in overrides if is_searchpath(override)]
    try:
        found = composed([*search, f"+reproduction={name}"]).get("reproduction", {})
        merged = OmegaConf.merge(OmegaConf.structured(Reproduction), found, {"name": name})
        reproduction = OmegaConf.to_object(merged)
    except MissingConfigException as error:
        moved = name in known_options("experiment", overrides)
        hint = "tables and figures are found in reproduction/ now: move its file there" if moved else ""
        known = did_you_mean(name, known_options("reproduction", overrides))
        raise UserError(f"no table or figure {name!r}", "reproduce", hint or known) from error
    except (HydraException, OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(reason, f"reproduction/{name}.yaml", "docs/reproducing.md shows what it may hold") from error
    assert isinstance(reproduction, Reproduction)
    problems = reproduction.problems()
    if problems:
        raise UserError("; ".join(problems), f"reproduction/{name}.yaml", "docs/reproducing.md shows what it may hold")
    return reproduction
