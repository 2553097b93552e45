"""From a reproduction to the cells of a run: overrides, configs, published values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from diffcut_bench.config import GROUPS, RunConfig, build_protocol, conf_dir, expand_sweep, is_searchpath, load_config
from diffcut_bench.errors import UserError, did_you_mean
from diffcut_bench.paths import is_hub_id
from diffcut_bench.reproduction.deviations import COMMIT, deviations_of, judged_by_content
from diffcut_bench.reproduction.spec import Reproduction, Row
from diffcut_bench.reproduction.verdict import Measured

RULES = ("unmatched", "overlap", "one_to_one")
SEED = "backbone.seed"  # of the noise, in a backbone that draws some (``backbone.noise``)
_MAKING = ("segmenter", "backbone", "upsampler", "features")  # what makes a segmentation, not what scores it


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
        deviations: settings of the user's, and files that it was published with and has not, that make it another cell
            than the published one.
        weights: overrides of the user's that say where weights of backbone and namer come from; of a folder its name.
        point: swept settings, for a figure.
        seed: of the noise, where a cell is run with several.
        pin: hub id and commit of the weights that the table is made from, where one is stated.
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
    seed: int | None = None
    pin: tuple[str, str] | None = None

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
        if weights.get("checkpoint") != model or not COMMIT.fullmatch(commit):
            return self.deviations
        others = tuple(word for word in self.deviations if not word.startswith("backbone.revision="))
        return others if commit == pinned else (*others, f"backbone.revision={commit}")

    @property
    def name(self) -> str:
        """Method and protocol, and the seed where there are several."""
        name = f"{self.row.name} [{self.under}]" if self.under else self.row.name
        return name if self.seed is None else f"{name}, seed {self.seed}"


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
        under: overrides by name (`resolve_under`); None: the experiment's own protocol.
        predictions: folder of a row's segmentations, one sub-folder a column.
        of_part: overrides of the user's for the cells of one column or row, such as where originals or weights lie.
        seeds: of the noise, for a cell whose backbone draws some: one is planned for each, from its own seed upwards.

    Raises:
        UserError: a row or column is unknown, or an override can't be composed with any cell, or sets what none has.
    """
    rows, columns = {row.name: row for row in reproduction.rows}, reproduction.columns
    _check_names(predictions or {}, rows, "--predictions")
    _check_names(of_part or {}, {**columns, **rows}, "--for")
    cells: list[PlannedCell] = []
    errors: list[UserError] = []
    settings = _Settings()
    points = expand_sweep(reproduction.sweep)
    for row in reproduction.rows:
        folder = (predictions or {}).get(row.name)
        scored = folder is not None or not row.not_run
        for name, protocol in (under if under and scored else {"": []}).items():
            for column in columns:
                if column not in row.published and row.published:
                    continue
                base = [*reproduction.common, *columns[column], *row.overrides, *row.of_column.get(column, [])]
                if folder is not None:
                    given = [f"segmenter.folder={folder / column}"]
                    # What a row's segmentations go through is its own; how they were made is not asked.
                    after = [word for word in row.overrides if word.startswith(("refiner", "protocol"))]
                    shared = [word for word in (*reproduction.common, *columns[column]) if not word.startswith(_MAKING)]
                    base = [*shared, "segmenter=precomputed", *given, *after]
                    base += reproduction.trained if row.trained else []
                own = [word for part in (column, row.name) for word in (of_part or {}).get(part, [])]
                own += overrides
                if not scored:
                    why = row.not_run or ""
                    cells.append(PlannedCell(row, column, name, (), row.published.get(column), None, why))
                    continue
                planned = _plan_points(row, column, name, base, protocol, points, own, errors, settings)
                cells += [each for cell in planned for each in _with_seeds(cell, seeds)]
    if cells and errors and len(errors) == sum(1 for cell in cells if cell.overrides):
        raise errors[0]  # a mistake of the user's, not the fate of one cell
    settings.refuse_unknown()
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


@dataclass
class _Settings:
    """Which settings of the user's any cell has, which settings there are, and the cells without them."""

    taken: set[str] = field(default_factory=set)
    lacked: dict[str, set[str]] = field(default_factory=dict)  # override -> settings that there are instead
    published: dict[tuple[str, ...], RunConfig] = field(default_factory=dict)

    def composed(self, *overrides: str) -> RunConfig:
        """A published cell, composed once for all protocols that it is scored under."""
        if overrides not in self.published:
            self.published[overrides] = load_config(overrides)
        return self.published[overrides]

    def of_cell(self, config: RunConfig, own: Sequence[str]) -> list[str]:
        """The user's overrides without those that set what this cell's options have not."""
        applied = []
        for word in own:
            key = word.partition("=")[0]
            group, _, name = key.partition(".")
            there = getattr(config, group) if group in GROUPS and name else None
            if there is not None and name.partition(".")[0] not in there:
                self.lacked.setdefault(word, set()).update(f"{group}.{each}" for each in there if each[0] != "_")
            else:
                self.taken.add(word)
                applied.append(word)
        return applied

    def refuse_unknown(self) -> None:
        """Raise for a setting that no cell has."""
        for word, there in self.lacked.items():
            if word not in self.taken:
                name = word.partition("=")[0]
                raise UserError(f"unknown key {name}", word, did_you_mean(name, sorted(there)))


def _plan_points(
    row: Row,
    column: str,
    under: str,
    base: Sequence[str],
    protocol: Sequence[str],
    points: Sequence[Sequence[str]],
    own: Sequence[str],
    errors: list[UserError],
    settings: _Settings,
) -> list[PlannedCell]:
    """The cells of a row and column: one, or one a point of a figure's sweep."""
    cells = []
    published = row.published.get(column)
    first: tuple[RunConfig, tuple[str, ...]] | None = None
    pin = None
    search = [word for word in own if is_searchpath(word)]
    options = [word for word in own if word.partition("=")[0] in GROUPS]
    for point in points:
        swept = {key: float(value) for key, _, value in (word.partition("=") for word in point)}
        overrides = (*base, *point, *protocol, *own)
        try:
            if first is not None and _are_plain(first[0], swept, own):
                config, deviations = _at_point(first[0], swept), first[1]
            else:
                planned = config = settings.composed(*search, *base, *point)
                if protocol or own:
                    chosen = load_config([*search, *base, *point, *options]) if options else planned
                    overrides = (*base, *point, *protocol, *settings.of_cell(chosen, own))
                    config = load_config(overrides)
                build_protocol(config.protocol)
                deviations = judged_by_content(deviations_of(planned, config), row, column, config)
                first = config, deviations
                pin = _pinned(planned)
        except UserError as error:
            errors.append(error)
            cells.append(PlannedCell(row, column, under, overrides, published, None, error.what, point=swept or None))
            continue
        given = (config, "", deviations, _weights_given(config, own), swept or None)
        cells.append(PlannedCell(row, column, under, overrides, published, *given, pin=pin))
    return cells


def _weights_given(config: RunConfig, own: Sequence[str]) -> tuple[str, ...]:
    """The user's overrides that say where weights come from. A table is shown to others: of a folder its name alone."""
    found = []
    for key, _, value in (word.partition("=") for word in own):
        group, _, name = key.partition(".")
        asked = group in ("backbone", "namer") and name in ("model", "revision")
        if not asked or name not in getattr(config, group):
            continue
        is_place = name == "model" and not is_hub_id(value)
        found.append(f"{key}={Path(value).name if is_place else value}")
    return tuple(found)


def _pinned(planned: RunConfig) -> tuple[str, str] | None:
    """Hub id and commit of the backbone's weights, unless no commit is stated."""
    model, revision = (str(planned.backbone.get(name)) for name in ("model", "revision"))
    return (model, revision) if COMMIT.fullmatch(revision) else None


def _with_seeds(cell: PlannedCell, seeds: int) -> list[PlannedCell]:
    """The cell once for each seed of the noise; as it is where its backbone draws none."""
    if seeds == 1 or cell.config is None or not (cell.config.backbone.get("noise") and "seed" in cell.config.backbone):
        return [cell]
    start = cell.config.backbone["seed"]
    if not isinstance(start, int) or start < 0:
        raise UserError("the first seed must be a whole number", f"{SEED}={start}", f"such as {SEED}=42")
    return [
        replace(
            cell,
            config=_at_point(cell.config, {SEED: seed}),
            overrides=(*cell.overrides, f"{SEED}={seed}"),
            seed=seed,
        )
        for seed in range(start, start + seeds)
    ]


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
        number = int(value) if float(value).is_integer() else value
        groups[group] = {**groups.get(group, getattr(config, group)), name: number}
    return replace(config, **groups)


def _check_names(given: Mapping[str, Any], known: Mapping[str, Any], flag: str) -> None:
    for name in given:
        if name not in known:
            raise UserError(f"no {name!r} in this table", flag, did_you_mean(name, known))


def part_of(cell: PlannedCell) -> tuple[str, str, str]:
    """What a curve is of, beside its settings: row, column, protocol."""
    return cell.row.name, cell.column, cell.under


def average_seeds(
    cells: Sequence[PlannedCell], measured: Mapping[int, Measured], failed: Mapping[int, str]
) -> tuple[list[PlannedCell], dict[int, Measured], dict[int, str]]:
    """The cells without seeds of the noise, with the means over those that were planned.

    Args:
        cells: as planned.
        measured: values by place in ``cells``.
        failed: why a cell was not run, by place.

    Returns:
        Cells, values and reasons, by place in the shorter list.
    """
    together: dict[Any, list[int]] = {}
    for place, cell in enumerate(cells):
        same = place if cell.seed is None else (*part_of(cell), *(cell.point or {}).items())
        together.setdefault(same, []).append(place)
    shorter: list[PlannedCell] = []
    means: dict[int, Measured] = {}
    reasons: dict[int, str] = {}
    for number, places in enumerate(together.values()):
        cell = cells[places[0]]
        shorter.append(replace(cell, seed=None))
        seeds = [replace(measured[place], seed=cells[place].seed) for place in places if place in measured]
        why = next((failed[place] for place in places if place in failed), "")
        if seeds:
            means[number] = seeds[0] if cell.seed is None else Measured.mean(seeds, len(places), why)
        elif why:
            reasons[number] = why
    return shorter, means, reasons
