"""From an experiment to the cells of a run: overrides, configs, published values, and what makes them other cells."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffcut_bench.config import GROUPS, RunConfig, build_protocol, conf_dir, expand_sweep, load_config
from diffcut_bench.errors import UserError, did_you_mean
from diffcut_bench.reproduction.spec import Experiment, Row

RULES = ("unmatched", "overlap", "one_to_one")
# Settings that say where things lie or how fast they are computed, not what is computed.
_PLACES = {
    "dataset": {"root"},
    "backbone": {"model", "variant", "compile", "channels_last"},
    "segmenter": {"folder", "pattern", "max_memory_gib"},
    "namer": {"model"},
}
# What the released computation used where an option's default depends on the machine: asking for it is no deviation.
_RELEASED = {"backbone": {"prompt_dtype": "float16"}}
_COMMIT = re.compile("[0-9a-f]{40}")
_MAKING = ("segmenter", "backbone", "upsampler", "features")  # what makes a segmentation, not what scores it
_SETTINGS_OF_DATA = ("limit", "shard", "seed")


@dataclass(frozen=True)
class PlannedCell:
    """A cell of the table, before it is run.

    Attributes:
        row: its method.
        column: its column.
        under: protocol or background rule that it is scored under; empty where the experiment's own is.
        overrides: that compose it; none where it is not run.
        published: in the table's unit.
        config: None where it can't be composed, or is not to be run.
        not_run: why it is not run.
        deviations: settings of the user's that make it another cell than the published one.
        weights: overrides of the user's that say where the backbone's weights come from.
        point: swept settings, for a figure.
    """

    row: Row
    column: str
    under: str
    overrides: tuple[str, ...]
    published: float | None
    config: RunConfig | None
    not_run: str = ""
    deviations: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    point: Mapping[str, float] | None = None

    @property
    def name(self) -> str:
        """Method and protocol."""
        return f"{self.row.name} [{self.under}]" if self.under else self.row.name


def resolve_under(names: Sequence[str]) -> dict[str, list[str]]:
    """Overrides of each name of ``--under``: protocols of conf/protocol/, background rules of the released protocol.

    ``all`` stands for the three protocols, and the background rules that ``released`` has not.

    Raises:
        UserError: a name is neither.
    """
    protocols = sorted(path.stem for path in (conf_dir() / "protocol").glob("*.yaml"))
    found: dict[str, list[str]] = {}
    for name in names:
        if name == "all":
            found |= resolve_under(["released", "paper", "strict", *RULES[1:]])
        elif name in RULES:
            found[name] = ["protocol=released", f"protocol.background_rule={name}"]
        elif name in protocols:
            found[name] = [f"protocol={name}"]
        else:
            raise UserError(f"no protocol or rule {name!r}", "--under", did_you_mean(name, [*protocols, *RULES, "all"]))
    return found


def plan_cells(
    experiment: Experiment,
    overrides: Sequence[str] = (),
    *,
    under: Mapping[str, Sequence[str]] | None = None,
    predictions: Mapping[str, Path] | None = None,
    of_part: Mapping[str, Sequence[str]] | None = None,
) -> list[PlannedCell]:
    """Every cell of an experiment, in the order of its rows, protocols and columns.

    Args:
        experiment: see `load_experiment`.
        overrides: the user's own, which win.
        under: overrides by name (`resolve_under`); None: the experiment's own protocol.
        predictions: folder of a row's segmentations, one sub-folder a column.
        of_part: overrides of the user's for the cells of one column or row, such as where originals or weights lie.

    Raises:
        UserError: a row or column is unknown, or an override can't be composed with any cell.
    """
    rows, columns = {row.name: row for row in experiment.rows}, experiment.columns
    _check_names(predictions or {}, rows, "--predictions")
    _check_names(of_part or {}, {**columns, **rows}, "--for")
    cells: list[PlannedCell] = []
    errors: list[UserError] = []
    points = expand_sweep(experiment.sweep)
    for row in experiment.rows:
        folder = (predictions or {}).get(row.name)
        scored = folder is not None or not row.not_run
        for name, protocol in (under if under and scored else {"": []}).items():
            for column in columns:
                if column not in row.published and row.published:
                    continue
                base = [*experiment.common, *columns[column], *row.overrides, *row.of_column.get(column, [])]
                if folder is not None:
                    given = [f"segmenter.folder={folder / column}"]
                    # What a row's segmentations go through is its own; how they were made is not asked.
                    after = [word for word in row.overrides if word.startswith(("refiner", "protocol"))]
                    shared = [word for word in (*experiment.common, *columns[column]) if not word.startswith(_MAKING)]
                    base = [*shared, "segmenter=precomputed", *given, *after]
                    base += experiment.trained if row.trained else []
                base += protocol
                own = [word for part in (column, row.name) for word in (of_part or {}).get(part, [])]
                own += overrides
                if not scored:
                    why = row.not_run or ""
                    cells.append(PlannedCell(row, column, name, (), row.published.get(column), None, why))
                    continue
                cells += _plan_points(row, column, name, base, points, own, errors)
    if cells and errors and len(errors) == sum(1 for cell in cells if cell.overrides):
        raise errors[0]  # a mistake of the user's, not the fate of one cell
    _check_weights(cells, overrides)
    return cells


def _check_weights(cells: Sequence[PlannedCell], overrides: Sequence[str]) -> None:
    """One folder of weights is of one network; given to rows of several it would be scored under their names."""
    given = [word for word in overrides if word.startswith("backbone.model=")]
    backbones = {cell.config.choices["backbone"]: cell.row.name for cell in cells if cell.config is not None}
    if given and len(backbones) > 1:
        row = next(iter(backbones.values()))
        hint = f'--for "{row}" {given[0]} gives it to one row'
        raise UserError(f"rows have the backbones {', '.join(backbones)}", given[0], hint)


def _plan_points(
    row: Row,
    column: str,
    under: str,
    base: Sequence[str],
    points: Sequence[Sequence[str]],
    own: Sequence[str],
    errors: list[UserError],
) -> list[PlannedCell]:
    """The cells of a row and column: one, or one a point of a figure's sweep."""
    cells = []
    published = row.published.get(column)
    first: tuple[RunConfig, tuple[str, ...]] | None = None
    for point in points:
        swept = {key: float(value) for key, _, value in (word.partition("=") for word in point)}
        overrides = (*base, *point, *own)
        try:
            if first is not None and _are_plain(first[0], swept, own):
                config, deviations = _at_point(first[0], swept), first[1]
            else:
                config = load_config(overrides)
                build_protocol(config.protocol)
                deviations = _deviations(load_config([*base, *point]), config) if own else ()
                first = config, deviations
        except UserError as error:
            errors.append(error)
            cells.append(PlannedCell(row, column, under, overrides, published, None, error.what, point=swept or None))
            continue
        weights = tuple(word for word in own if word.startswith(("backbone.model=", "backbone.revision=")))
        given = (config, "", deviations, weights, swept or None)
        cells.append(PlannedCell(row, column, under, overrides, published, *given))
    return cells


def _are_plain(config: RunConfig, point: Mapping[str, float], own: Sequence[str]) -> bool:
    """Whether settings can be put into a composed config: nothing refers to them, and the user has not set them."""
    places = [key.partition(".") for key in point]
    return all(
        group in ("segmenter", "backbone") and name in getattr(config, group) for group, _, name in places
    ) and not any(override.partition("=")[0] in point for override in own)


def _at_point(config: RunConfig, point: Mapping[str, float]) -> RunConfig:
    """A composed config with other numbers: composing each point of a sweep anew takes Hydra a tenth of a second."""
    groups: dict[str, Any] = {}
    for key, value in point.items():
        group, _, name = key.partition(".")
        number = int(value) if value.is_integer() else value
        groups[group] = {**groups.get(group, getattr(config, group)), name: number}
    return replace(config, **groups)


def _deviations(planned: RunConfig, actual: RunConfig) -> tuple[str, ...]:
    """What the user's overrides changed of what decides the value."""
    found = []
    for group in (group for group in GROUPS if group not in ("features", "tracker")):
        if planned.choices.get(group) != actual.choices.get(group):
            found.append(f"{group}={actual.choices.get(group)}")
            continue
        before, after = getattr(planned, group), getattr(actual, group)
        for name in sorted({*before, *after} - _PLACES.get(group, set())):
            if name == "revision" and _says_more(before.get(name), after.get(name)):
                continue
            if after.get(name) not in (before.get(name), _RELEASED.get(group, {}).get(name, before.get(name))):
                found.append(f"{group}.{name}={after.get(name)}")
    for name in _SETTINGS_OF_DATA:
        value: Any = getattr(actual, name)
        if value != getattr(planned, name):
            found.append(f"{name}={value}")
    return tuple(found)


def _says_more(planned: object, actual: object) -> bool:
    """Whether a revision is a commit in the place of a branch or tag: no other weights are known to be meant."""
    return bool(_COMMIT.fullmatch(str(actual))) and not _COMMIT.fullmatch(str(planned))


def _check_names(given: Mapping[str, Any], known: Mapping[str, Any], flag: str) -> None:
    for name in given:
        if name not in known:
            raise UserError(f"no {name!r} in this table", flag, did_you_mean(name, known))
