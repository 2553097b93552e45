"""From a reproduction to the cells of a run: overrides, configs, published values."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from shlex import quote
from typing import Any

from diffcut_bench.config import (
    GROUPS,
    RunConfig,
    build_protocol,
    expand_sweep,
    is_searchpath,
    known_options,
    load_config,
)
from diffcut_bench.errors import UserError, did_you_mean
from diffcut_bench.evaluation import known_metrics
from diffcut_bench.paths import is_hub_id
from diffcut_bench.reproduction.deviations import deviations_of, is_commit, judged_by_content
from diffcut_bench.reproduction.spec import Reproduction, Row

RULES = ("unmatched", "overlap", "one_to_one")
# One matching for the data set, of linked segments; trained rows have ids that mean the same in every image already.
LINKED = "dataset"
_ONE_MATCHING = ["protocol=released", "protocol.matching=dataset", "protocol.background_rule=one_to_one"]
SEED = "backbone.seed"  # of the noise, in a backbone that draws some (``backbone.noise``)
_MAKING = ("segmenter", "backbone", "upsampler", "features")  # what makes a segmentation, not what scores it
# Options that say where trained weights come from.
_OF_WEIGHTS = {"backbone": ("model", "revision"), "namer": ("model", "revision"), "segmenter": ("checkpoint",)}


@dataclass(frozen=True)
class PlannedCell:
    """A cell of the table, before it is run.

    Attributes:
        row: its method.
        column: its column.
        under: protocol or background rule that it is scored under; empty where the reproduction's own is.
        overrides: that compose it; none where it is not run.
        config: None where it can't be composed, or is not to be run.
        error: why it can't be composed.
        deviations: settings of the user's, and files that it was published with and has not, that make it another cell
            than the published one.
        weights: overrides of the user's that say where weights of its stages come from; of a path its name.
        point: swept settings, for a figure.
        seed: of the noise, where a cell is run with several.
        unstated: why nothing is published in the table's measure; empty where something may be.
        pin: hub id and commit of the weights that the table is made from, where one is stated.
        settings: the cell at each point of its row's own sweep, of which the best counts; none without a sweep.
    """

    row: Row
    column: str
    under: str = ""
    overrides: tuple[str, ...] = ()
    config: RunConfig | None = None
    error: UserError | None = None
    deviations: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    point: Mapping[str, float] = field(default_factory=dict)
    seed: int | None = None
    pin: tuple[str, str] | None = None
    unstated: str = ""
    settings: tuple["PlannedCell", ...] = ()

    @property
    def configs(self) -> list[RunConfig]:
        """Of all that is run for it."""
        return [each.config for each in self.settings or (self,) if each.config is not None]

    @property
    def published(self) -> float | None:
        """In the table's unit; None where the paper has no value."""
        return None if self.unstated else self.row.published.get(self.column)

    @property
    def not_run(self) -> str:
        """Why it is not run; empty where it is."""
        if self.config is not None:
            return ""
        return self.error.what if self.error is not None else self.row.not_run or ""

    @property
    def rescored(self) -> bool:
        """Whether it is scored under another protocol than the published value."""
        return any(word.partition("=")[0].partition(".")[0] == "protocol" for word in self.deviations)

    def deviations_with(self, weights: Mapping[str, Any]) -> tuple[str, ...]:
        """The deviations, as far as the revision is concerned by the commit that was found, whatever was asked for.

        Args:
            weights: what the backbone says of itself, such as ``Result.identity["backbone"]``.
        """
        model, pinned = self.pin or ("", "")
        commit = str(weights.get("revision"))
        if weights.get("checkpoint") != model or not is_commit(commit):
            return self.deviations
        others = tuple(word for word in self.deviations if not word.startswith("backbone.revision="))
        return others if commit == pinned else (*others, f"backbone.revision={commit}")

    @property
    def part(self) -> tuple[str, str, str]:
        """What a curve is of, beside its settings: row, column, protocol."""
        return self.row.name, self.column, self.under

    @property
    def name(self) -> str:
        """Method and protocol, and the seed where there are several."""
        name = f"{self.row.name} [{self.under}]" if self.under else self.row.name
        return name if self.seed is None else f"{name}, seed {self.seed}"


def resolve_under(names: Sequence[str]) -> dict[str, list[str]]:
    """Overrides of each name of ``--under``: protocols of conf/protocol/, background rules of the released protocol,
    ``dataset``: one matching for the data set, as trained rows were published.

    ``all`` stands for the three protocols, and the background rules that ``released`` has not.

    Raises:
        UserError: a name is none of these.
    """
    protocols = known_options("protocol")
    found: dict[str, list[str]] = {}
    for name in names:
        if name == "all":
            found |= resolve_under(["released", "paper", "strict", *RULES[1:]])
        elif name in RULES:
            found[name] = ["protocol=released", f"protocol.background_rule={name}"]
        elif name in protocols:
            found[name] = [f"protocol={name}"]
        elif name == LINKED:
            found[name] = [*_ONE_MATCHING, "linker=kmeans"]
        else:
            known = [*protocols, *RULES, LINKED, "all"]
            raise UserError(f"no protocol or rule {name!r}", "--under", did_you_mean(name, known))
    return found


def plan_cells(
    reproduction: Reproduction,
    overrides: Sequence[str] = (),
    *,
    under: Mapping[str, Sequence[str]] | None = None,
    predictions: Mapping[str, Path] | None = None,
    of_part: Mapping[str, Sequence[str]] | None = None,
    seeds: int = 1,
) -> list[PlannedCell]:
    """Every cell of a reproduction, in the order of its rows, protocols and columns.

    Args:
        reproduction: see `load_reproduction`.
        overrides: the user's own, which win. One that sets what only some rows have is for these rows.
        under: overrides by name (`resolve_under`); None: the reproduction's own protocol.
        predictions: folder of a row's segmentations, one sub-folder a column.
        of_part: overrides of the user's for the cells of a column, a row, or ``ROW/COLUMN``, such as where originals or
            weights lie.
        seeds: of the noise, for a cell whose backbone draws some: one is planned for each, from its own seed upwards.

    Raises:
        UserError: a row or column is unknown, or an override can't be composed with any cell, or sets what none has.
    """
    predictions, of_part = predictions or {}, of_part or {}
    rows = {row.name: row for row in reproduction.rows}
    _check_names(predictions, rows, "--predictions")
    alone = {f"{name}/{column}": row for name, row in rows.items() for column in reproduction.columns}
    _check_names([part for part in of_part if part not in alone], {**reproduction.columns, **rows}, "--for")
    composed = cache(load_config)  # a published cell is composed once for all protocols that it is scored under
    cells: list[PlannedCell] = []
    for row in reproduction.rows:
        folder = predictions.get(row.name)
        own_of = {
            column: [word for part in _parts(row, column) for word in of_part.get(part, ())] + [*overrides]
            for column in reproduction.columns
        }
        runs = {column: folder is not None or not row.not_run or _has(own, row.needs) for column, own in own_of.items()}
        for name, asked in (under if under and any(runs.values()) else {"": ()}).items():
            protocol = [word for word in asked if not (row.trained and word.startswith("linker="))]
            for column in reproduction.columns:
                if row.published and column not in row.published and not reproduction.by_column:
                    continue
                cell = PlannedCell(row, column, name)
                points = expand_sweep(row.sweep if folder is None and row.sweep else reproduction.sweep)
                if not runs[column]:
                    cells.append(cell)
                    continue
                published = _published(reproduction, row, column, folder)
                planned = _points_of(cell, points, published, protocol, own_of[column], composed)
                if row.sweep and folder is None:
                    planned = [_swept(planned)]
                cells += [each for point in planned for each in _with_seeds(point, seeds)]
    errors = [cell.error for cell in cells if cell.error is not None]
    if errors and not any(cell.config is not None for cell in cells):
        raise errors[0]  # a mistake of the user's, not the fate of one cell
    _check_single(cells, {part: row for part, row in alone.items() if part in of_part})
    _check_settings(cells, {"": overrides, **of_part})
    _check_weights(cells, overrides)
    return cells


def told_by(
    reproduction: Reproduction, cells: Sequence[PlannedCell], score: str
) -> tuple[Reproduction, list[PlannedCell]]:
    """A table of mIoU told by another score, under a name of its own: nothing published is of that score.

    Rows that are not run are left out, since all there is of them is published.
    """
    if reproduction.measure != "miou" or score == "miou":
        return reproduction, list(cells)
    heading = known_metrics()[score].heading
    why = f"published in mIoU, and not in {heading}"
    title, name = f"{reproduction.title}, told by {heading}", f"{reproduction.name}-{score}"
    changed = replace(reproduction, name=name, title=title, measure=score, references={})
    return changed, [replace(cell, unstated=why) for cell in cells if cell.overrides]


def _published(reproduction: Reproduction, row: Row, column: str, folder: Path | None) -> list[str]:
    """Overrides that compose a cell as it was published; ``folder``: of the row's predictions."""
    shared = [*reproduction.common, *reproduction.columns[column]]
    trained = reproduction.trained if row.trained else []
    if folder is None:
        return [*shared, *row.overrides, *trained, *row.of_column.get(column, [])]
    # What a row's segmentations go through is its own; how they were made is not asked.
    after = [word for word in row.overrides if word.startswith(("refiner", "protocol"))]
    if not reproduction.by_column:  # columns that differ in their measure are of one segmentation
        folder = folder / column
    given = ["segmenter=precomputed", f"segmenter.folder={folder}", *after]
    return [*(w for w in shared if not w.startswith(_MAKING)), *given, *trained]


def _has(overrides: Sequence[str], option: str) -> bool:
    return any(word.partition("=")[0] == option for word in overrides)


def _parts(row: Row, column: str) -> tuple[str, ...]:
    """Names of what a cell is a part of; what is said of the later ones goes before what is said of the first."""
    return column, row.name, f"{row.name}/{column}"


def _check_names(given: Collection[str], known: Mapping[str, Any], flag: str) -> None:
    for name in given:
        if name not in known:
            raise UserError(f"no {name!r} in this table", flag, did_you_mean(name, known))


def _check_weights(cells: Sequence[PlannedCell], overrides: Sequence[str]) -> None:
    """One folder of weights is of one network; given to rows of several it would be scored under their names."""
    given = [word for word in overrides if word.startswith("backbone.model=")]
    backbones = {cell.config.choices["backbone"]: cell.row.name for cell in cells if cell.config is not None}
    if given and len(backbones) > 1:
        row = next(iter(backbones.values()))
        hint = f'--for "{row}" {given[0]} gives it to one row'
        raise UserError(f"rows have the backbones {', '.join(backbones)}", given[0], hint)


def _check_single(cells: Sequence[PlannedCell], parts: Mapping[str, Row]) -> None:
    """Refuse settings for a single cell that is not run: nobody would see that they are lost."""
    run = {f"{cell.row.name}/{cell.column}" for cell in cells if cell.overrides}
    for part, row in parts.items():
        if part not in run:
            how = f"--for ROW/COLUMN {row.needs}=FILE" if row.needs else f"--predictions {quote(row.name)}=DIR"
            able = f"{how}, with " if row.not_run else ""
            hint = f"{able}a column of {row.name}: {', '.join(row.published)}"
            raise UserError(f"{part} is not run", f"--for {part}", hint)


def _check_settings(cells: Sequence[PlannedCell], of_part: Mapping[str, Sequence[str]]) -> None:
    """Refuse a setting of the user's that no cell of its part has; the part without name is the whole table."""
    for part, words in of_part.items():
        of = [cell for cell in cells if part in ("", *_parts(cell.row, cell.column)) and cell.overrides]
        for word in words if of else ():
            if not any(word in cell.overrides for cell in of):
                key = word.partition("=")[0]
                group = key.partition(".")[0]
                settings = [getattr(cell.config, group) for cell in of if cell.config is not None]
                there = {f"{group}.{name}" for each in settings for name in each if name[0] != "_"}
                raise UserError(f"unknown key {key}", word, did_you_mean(key, sorted(there)))


def _points_of(
    cell: PlannedCell,
    points: Sequence[Sequence[str]],
    published: Sequence[str],
    protocol: Sequence[str],
    own: Sequence[str],
    composed: Callable[[tuple[str, ...]], RunConfig],
) -> list[PlannedCell]:
    """The cells of a row and column: one, or one for each of the points of a figure's sweep.

    ``published`` composes it as it was published, ``protocol`` is what it is scored under instead, ``own`` the user's.
    """
    cells: list[PlannedCell] = []
    first: PlannedCell | None = None
    search = [word for word in own if is_searchpath(word)]
    options = [word for word in protocol if word.startswith("linker=")]  # which has settings of its own
    options += [word for word in own if word.partition("=")[0] in GROUPS]
    for point in points:
        swept = dict(_as_number(word) for word in point)
        words = (*published, *point)
        try:
            if first is not None and _are_plain(first, swept, own):
                found = replace(first, config=_at(first, swept), overrides=(*words, *first.overrides[len(words) :]))
            else:
                planned = composed((*search, *words))
                taken = _taken(composed((*search, *words, *options)), own)
                overrides = (*words, *protocol, *taken)
                first = found = _compared(replace(cell, overrides=overrides, config=composed(overrides)), planned, own)
        except UserError as error:
            found = replace(cell, overrides=(*words, *protocol, *own), error=error)
        cells.append(replace(found, point=swept))
    return cells


def _as_number(word: str) -> tuple[str, float]:
    """Key and value of a swept setting.

    Raises:
        UserError: the value is no number.
    """
    key, _, value = word.partition("=")
    try:
        return key, float(value)
    except ValueError:
        raise UserError(f"{value} is no number", word, "sweeps of a table are over numbers") from None


def _swept(points: Sequence[PlannedCell]) -> PlannedCell:
    """One cell for the points of its row's own sweep; that of a point which can't be composed, if there is one."""
    first = next((point for point in points if point.error is not None), points[0])
    return replace(first, point={}, settings=() if first.error is not None else tuple(points))


def _taken(config: RunConfig, own: Sequence[str]) -> list[str]:
    """The user's overrides without those that set what a cell's options have not."""
    found = []
    for word in own:
        group, *name = word.partition("=")[0].split(".")
        if group not in GROUPS or not name or name[0] in getattr(config, group):
            found.append(word)
    return found


def _compared(cell: PlannedCell, planned: RunConfig, own: Sequence[str]) -> PlannedCell:
    """The cell with what makes it another one than the published, whose config is ``planned``."""
    assert cell.config is not None
    build_protocol(cell.config.protocol)
    model, revision = (str(planned.backbone.get(name)) for name in ("model", "revision"))
    return replace(
        cell,
        deviations=judged_by_content(deviations_of(planned, cell.config), cell.row, cell.column, cell.config),
        weights=_weights_given(cell.config, own),
        pin=(model, revision) if is_commit(revision) else None,
    )


def _weights_given(config: RunConfig, own: Sequence[str]) -> tuple[str, ...]:
    """The user's overrides that say where weights come from. A table is shown to others: of a path its name alone."""
    found = []
    for key, _, value in (word.partition("=") for word in own):
        group, _, name = key.partition(".")
        if name in _OF_WEIGHTS.get(group, ()) and name in getattr(config, group):
            is_path = name == "checkpoint" or (name == "model" and not is_hub_id(value))
            found.append(f"{key}={Path(value).name if is_path else value}")
    return tuple(found)


def _with_seeds(cell: PlannedCell, seeds: int) -> list[PlannedCell]:
    """The cell once for each seed of the noise; as it is where its backbone draws none."""
    if seeds == 1 or cell.config is None or not (cell.config.backbone.get("noise") and "seed" in cell.config.backbone):
        return [cell]
    start = cell.config.backbone["seed"]
    if not isinstance(start, int) or start < 0:
        raise UserError("the first seed must be a whole number", f"{SEED}={start}", f"such as {SEED}=42")
    return [_with_seed(cell, seed) for seed in range(start, start + seeds)]


def _with_seed(cell: PlannedCell, seed: int) -> PlannedCell:
    settings = tuple(_with_seed(each, seed) for each in cell.settings)
    overrides = (*cell.overrides, f"{SEED}={seed}")
    return replace(cell, config=_at(cell, {SEED: seed}), overrides=overrides, seed=seed, settings=settings)


def _are_plain(cell: PlannedCell, point: Mapping[str, float], own: Sequence[str]) -> bool:
    """Whether settings can be put into a composed config: nothing refers to them, and the user has not set them."""
    settings = [key.partition(".") for key in point]
    plain = all(group in ("segmenter", "backbone") and n in getattr(cell.config, group) for group, _, n in settings)
    return plain and point.keys().isdisjoint(word.partition("=")[0] for word in own)


def _at(cell: PlannedCell, point: Mapping[str, float]) -> RunConfig:
    """A composed config with other numbers: composing each point of a sweep anew takes Hydra a tenth of a second."""
    assert cell.config is not None
    groups: dict[str, Any] = {}
    for key, value in point.items():
        group, _, name = key.partition(".")
        number = int(value) if float(value).is_integer() else value
        groups[group] = {**groups.get(group, getattr(cell.config, group)), name: number}
    return replace(cell.config, **groups)
