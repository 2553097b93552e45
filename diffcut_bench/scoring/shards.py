"""Shards of a cell put together to the whole: the rows of ``shard=1/n … n/n`` give the cell that a run without shard
gives."""

import json
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from diffcut_bench.backbones import cache_only
from diffcut_bench.config import RunConfig, build_protocol, load_config, option_words, quoted, trusted
from diffcut_bench.errors import UserError
from diffcut_bench.extensions import folder_flags
from diffcut_bench.interruption import raise_if_interrupted
from diffcut_bench.linking import KMeansLinker
from diffcut_bench.paths import portable, reopened
from diffcut_bench.scoring.events import FinishedCell, Observer
from diffcut_bench.scoring.identity import NUMERICS_VERSION
from diffcut_bench.scoring.passes import chosen_images, open_pass, without_preparing
from diffcut_bench.scoring.reference import find_references, why_no_reference
from diffcut_bench.scoring.summary import count_rows, summarise_cell
from diffcut_bench.store import (
    SCHEMA_VERSION,
    Cell,
    ImageRow,
    Reference,
    Result,
    Timings,
    check_published,
    read_result,
    read_rows,
    whole_key,
)


@dataclass(frozen=True)
class Shard:
    """A finished cell of ``shard=number/of``, and the key of the whole."""

    folder: Path
    result: Result
    number: int
    of: int
    whole: str


@dataclass(frozen=True)
class ShardedCell:
    """What was found of a cell in ``of`` shards: one shard a number, by number."""

    found: tuple[Shard, ...]

    @property
    def key(self) -> str:
        """Of the whole cell."""
        return self.found[0].whole

    @property
    def of(self) -> int:
        """Shards that the cell was cut into."""
        return self.found[0].of

    @property
    def images(self) -> int:
        """Images of the whole cell."""
        available, limit = self.found[0].result.dataset.n_available or 0, self.found[0].result.config["limit"]
        return available if limit is None else min(available, limit)

    @property
    def missing(self) -> list[int]:
        """Numbers of the shards that were not found. With more shards than images the last ones are empty."""
        have = {shard.number for shard in self.found}
        return [number for number in range(1, min(self.of, self.images) + 1) if number not in have]


def find_shards(output_dirs: Sequence[Path]) -> tuple[list[Shard], dict[Path, str]]:
    """Finished shards in the results of these folders, and why others had to be left out, by folder."""
    shards: list[Shard] = []
    left_out: dict[Path, str] = {}
    for path in sorted(path for folder in output_dirs for path in folder.glob("results/*/result.json")):
        try:
            result = read_result(path.parent)
            number = RunConfig(**result.config).shard_of()
            if number is not None and result.identity:
                check_published(path.parent)
        except (UserError, TypeError) as error:
            left_out[path.parent] = error.what if isinstance(error, UserError) else f"can't be read ({error})"
            continue
        if number is None:
            continue
        if not result.identity or result.dataset.n_available is None:
            left_out[path.parent] = "of an older version, which did not write down what its key is made of"
            continue
        shards.append(Shard(path.parent, result, *number, whole_key(result)))
    return shards, left_out


def sharded_cells(shards: Sequence[Shard]) -> list[ShardedCell]:
    """Shards by the cell and the number of shards that they are of; of a shard that is there twice one is taken.

    Raises:
        UserError: two results of one shard differ.
    """
    cells: dict[tuple[str, int], dict[int, Shard]] = {}
    for shard in shards:
        twin = cells.setdefault((shard.whole, shard.of), {}).setdefault(shard.number, shard)
        if twin is not shard and read_rows(twin.folder) != read_rows(shard.folder):
            what, where = f"two results of shard {shard.number}/{shard.of} differ", f"{twin.folder}, {shard.folder}"
            raise UserError(what, where, "keep one")
    return [ShardedCell(tuple(found[number] for number in sorted(found))) for _, found in sorted(cells.items())]


def merge(cell: ShardedCell, output_dir: Path, if_exists: str, observer: Observer | None = None) -> FinishedCell:
    """Write the whole cell as the run without shard writes it, or find it finished.

    Timings are sums over the shards; config (but its shard) and environment are the first shard's. Floors and ceilings
    are of the whole, where its data are on this machine; where not, the result has none.

    Args:
        cell: nothing missing.
        output_dir: root of all that runs write.
        if_exists: ``skip`` or ``overwrite``.
        observer: is told why there are no floors and ceilings.

    Raises:
        UserError: the shards do not hold each image once, or the folder can't be written.
    """
    first = cell.found[0]
    target = Cell(output_dir, first.folder.name.rpartition("-")[0], cell.key)
    finished = target.result() if if_exists == "skip" else None
    if finished is not None:
        return FinishedCell(target.finished_dir, finished, skipped=True)
    if not target.claim():
        what = f"{target.finished_dir.name} is being written by {target.holder()}"
        raise UserError(what, str(output_dir), "merge again once that has ended")
    try:
        return FinishedCell(target.finished_dir, _write_whole(cell, target, observer or Observer()), skipped=False)
    finally:
        target.give_back()


def _write_whole(cell: ShardedCell, target: Cell, observer: Observer) -> Result:
    first = cell.found[0]
    protocol, names = build_protocol(first.result.protocol), first.result.class_names
    identity = {**first.result.identity, "shard": None}
    record = replace(first.result.dataset, n_images=sum(shard.result.dataset.n_images for shard in cell.found))
    timings = reduce(Timings.plus, (shard.result.timings for shard in cell.found))
    rows, linking = count_rows(_rows(cell), len(names), protocol, _linker_of(first))
    reference = _reference(first, rows, target.finished_dir.parent.parent, observer)
    summary = summarise_cell(rows, record, names, protocol, identity["seed"], timings, linking)
    failures = [failure for shard in cell.found for failure in shard.result.failures]
    result = replace(
        first.result,
        key=cell.key,
        config=portable(_whole_config(first), target.finished_dir.parent.parent),
        failures=sorted(failures, key=lambda failure: failure.index or 0),
        identity=identity,
        reference=reference,
        schema_version=SCHEMA_VERSION,  # also where a shard is of an older one
        **summary,
    )
    for shard in cell.found:
        if (shard.folder / "pictures").is_dir():
            shutil.copytree(shard.folder / "pictures", target.work_dir / "pictures", dirs_exist_ok=True)
    target.finish(result, rows, OmegaConf.to_yaml(OmegaConf.create(result.config)), range(cell.images))
    return result


def _linker_of(shard: Shard) -> KMeansLinker | None:
    """The linker of a shard's cell; of the file its numbers count, whatever code it names."""
    settings = shard.result.identity.get("linker")
    if settings is None:
        return None
    try:
        return KMeansLinker(**{field.name: settings[field.name] for field in fields(KMeansLinker)})
    except (KeyError, TypeError, ValueError) as error:
        what = f"this cell's linker is not ours ({error})"
        raise UserError(what, str(shard.folder), "run the cell without shards") from error


def _reference(shard: Shard, rows: Sequence[ImageRow], output_dir: Path, observer: Observer) -> Reference | None:
    """What scores of the whole are worth, from data that are at hand: nothing is fetched or prepared."""
    if shard.result.config.get("reference", "none") == "none":
        return None
    try:
        config = without_preparing(replace(trusted(_whole_config(shard)), output_dir=str(output_dir)))
        if "://" in config.prepared or "::" in config.prepared:
            raise UserError("the prepared data are not on this disk", config.prepared, "")
        with cache_only():
            opened = open_pass(config, observer)
            cell = opened.cell(config)
        if opened.fingerprint != shard.result.dataset.fingerprint:
            raise UserError("the data are not those of the shards", f"dataset={opened.dataset.name}", "")
        find_references([(cell, rows)])
        return cell.reference
    except Exception as error:  # whatever a foreign config makes a stage raise
        raise_if_interrupted()
        observer.say(why_no_reference(error))
        return None


def _whole_config(shard: Shard) -> dict[str, Any]:
    """The config of the whole cell of a shard, with the paths of this machine."""
    return {**reopened(shard.result.config, shard.folder.parent.parent), "shard": None}


def what_is_missing(cell: ShardedCell) -> str:
    """What an incomplete cell lacks, and the command that computes it.

    A command that somebody will type names no code that only a file asks for.
    """
    first = cell.found[0]
    lacking = [f"{number}/{cell.of}" for number in cell.missing]
    wanted, how, doubt = lacking, "", ""
    if first.result.identity.get("numerics_version") != NUMERICS_VERSION:  # new shards and old ones make no whole
        wanted = [f"{number}/{cell.of}" for number in range(1, cell.of + 1)]
        how = " all anew, since an earlier version computed what is there"
    try:
        trusted(first.result.config)
        own = _overrides(first)
    except UserError as error:
        own = option_words(first.result.config.get("choices"), ())
        doubt = f"\n  add its own values: {error.what} ({error.where})"
    command = ["diffcut-bench", "run", *(["-m"] if len(wanted) > 1 else [])]
    command += [*own, f"shard={','.join(wanted)}"]
    what = f"incomplete: the cell of {first.folder.name} still needs shard {', '.join(lacking)}; to compute{how}:"
    return f"{what}\n  {' '.join([shlex.join(command), *folder_flags()])}{doubt}"


def _overrides(shard: Shard) -> list[str]:
    """Overrides of ``diffcut-bench run`` that give the whole cell of a shard."""
    config = RunConfig(**_whole_config(shard))
    chosen = [f"{group}={option}" for group, option in config.choices.items()]
    try:
        plain = load_config(chosen).to_dict()
    except UserError:  # an option from a folder that hydra.searchpath named
        return chosen
    return [*chosen, *_differences(plain, config.to_dict())]


def _rows(cell: ShardedCell) -> list[ImageRow]:
    """Rows of all shards, in the order of the data set.

    Raises:
        UserError: a shard holds images of another.
    """
    rows: list[ImageRow] = []
    for shard in cell.found:
        own = read_rows(shard.folder, prototypes=True)
        held = {row.index for row in own} | {failure.index for failure in shard.result.failures}
        if held != set(chosen_images(cell.images, (shard.number, shard.of))):
            what = f"shard {shard.number}/{shard.of} of {cell.images} images holds others than its own"
            raise UserError(what, str(shard.folder), "delete this folder and run the shard again")
        rows += own
    return sorted(rows, key=lambda row: row.index)


def _differences(plain: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Overrides that make a composed config another one."""
    for name, value in wanted.items():
        known = name in plain
        if (known and plain[name] == value) or prefix + name == "choices":
            continue
        if isinstance(value, dict) and known and isinstance(plain[name], dict):
            yield from _differences(plain[name], value, f"{prefix}{name}.")
        else:
            yield f"{'' if known else '+'}{prefix}{name}={_written(value)}"


def _written(value: Any) -> str:
    """A value in Hydra's grammar."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{_written(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_written, value)) + "]"
    if isinstance(value, str):
        return quoted(value) if not value.isidentifier() or value.lower() in ("null", "true", "false", "nan") else value
    return json.dumps(value)
