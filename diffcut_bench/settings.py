"""Settings of cells by name, and what tells cells from each other. No torch: `list` answers at once."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path, PurePath
from typing import Any

from diffcut_bench.protocol import OF_NAMES, choices_in_force
from diffcut_bench.redaction import is_path, is_private, path_of, public, public_text
from diffcut_bench.store import Result

STAGES = ("segmenter", "upsampler", "refiner")
_RUN = ("limit", "limit_seed", "shard", "seed")
_OF_THE_DISK = ("output_dir", "data_dir", "choices")  # no settings of a cell; the last are told by themselves
# Of stages: what changes no number, or is no setting of theirs (the linker's backbone is told by its name).
_IMMATERIAL = {"features.folder", "features.shard_mib", "segmenter.max_memory_gib", "linker.backbone"}
_NO_SETTINGS = ("name", "suggests")
_DIGEST = re.compile(r"[0-9a-f]{32,}")
_SHORT = 12

Value = str | int | float | bool | None
Extra = tuple[str, list[str]]  # name and values of what is no setting, a value for each result


@dataclass(frozen=True)
class Comparison:
    """What tells results from each other. No two have the same values, unless one is the other."""

    names: tuple[str, ...]  # of what differs, in the order of columns
    settings: tuple[dict[str, Any], ...]  # of each result: its own, and what else is in ``names``
    texts: tuple[dict[str, str], ...]  # of each result: the value of each name, as tables show it


def compare_settings(results: Sequence[Result], folders: Sequence[Path] = ()) -> Comparison:
    """What differs between results.

    Settings first; between results that have the same, the data's fingerprint, the version of torch and the type of
    device; then, as far as it is needed, whatever else differs of what the key covers and of versions, and the key.

    Args:
        results: of cells.
        folders: of each, which tell a cell from its copy.
    """
    settings = [settings_of(result) for result in results]
    names = varying_names(settings)
    for extras in _extras(results, folders):
        alike = _alike(settings, names)
        for name, values in extras:
            if any(len({values[i] for i in indices}) > 1 for indices in alike):
                names.append(name)
                for own, value in zip(settings, values, strict=True):
                    own[name] = value
    return Comparison(tuple(names), tuple(settings), tuple(shown_texts(settings, names)))


def settings_of(result: Result) -> dict[str, Any]:
    """Options and values of a finished cell by short name; see `config_settings`."""
    own = config_settings(result.config, result.protocol, published=result.dataset.n_expected is not None)
    return own | {"seed": result.environment.seed}


def config_settings(
    config: Mapping[str, Any], protocol: Mapping[str, Any] | None = None, *, published: bool = False
) -> dict[str, Any]:
    """Options and values of a cell by short name; ``protocol.*`` stands for what a stage only repeats.

    Args:
        config: of the cell, resolved, whoever wrote it.
        protocol: what was in force; None: what the config says.
        published: whether the data are a published split, of which it does not matter where the files lie.
    """
    nodes = {name: value for name, value in config.items() if isinstance(value, dict)}
    choices = nodes.get("choices", {})
    if protocol is None:
        protocol = {name: value for name, value in nodes.get("protocol", {}).items() if not name.startswith("_")}
    settings: dict[str, Any] = {group: choices.get(group, "?") for group in ("dataset", "backbone", *STAGES)}
    for stage in ("namer", "linker", "linker.backbone"):
        if choices.get(stage, "none") != "none":
            settings[stage] = choices[stage]
    if config.get("smallest_segment"):  # older results have no such option
        settings["smallest_segment"] = config["smallest_segment"]
    settings |= {f"protocol.{name}": value for name, value in choices_in_force(protocol).items()}
    skipped = set(_IMMATERIAL)
    if published:
        skipped.add("dataset.root")  # it says where the files lie, not which they are
    for stage in (*STAGES, "namer", "linker", "backbone", "features", "dataset"):
        for name, value in _with_parts(nodes.get(stage, {})):
            choice = f"protocol.name_{name}" if stage == "namer" else f"protocol.{name}"
            if not (choice in settings or name.startswith("_") or name in _NO_SETTINGS or f"{stage}.{name}" in skipped):
                settings[f"{stage}.{name}"] = value
    return settings | {name: config.get(name) for name in _RUN}


def _with_parts(node: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Settings of an option; of a fused backbone also those of its parts, in the place of the names, which its own name
    holds."""
    parts = node.get("parts") if "of" in node else None
    if not isinstance(parts, dict):
        yield from node.items()
        return
    yield from ((name, value) for name, value in node.items() if name not in ("of", "parts"))
    for part, settings in parts.items():
        for name, value in settings.items() if isinstance(settings, dict) else ():
            if not name.startswith("_") and name not in _NO_SETTINGS:
                yield f"parts.{part}.{name}", value


def every_setting(config: Mapping[str, Any]) -> dict[str, Value]:
    """Every option and value of a cell by the name that an override gives it, such as ``segmenter`` and
    ``segmenter.tau``, as anyone may see it: see `public_value`."""
    choices = config.get("choices")
    settings: dict[str, Value] = {}
    for name, value in choices.items() if isinstance(choices, dict) else ():
        settings[public_text(str(name))] = public_value(str(name), value)
    for name, value in _leaves({name: value for name, value in config.items() if name not in _OF_THE_DISK}):
        settings.setdefault(public_text(name), public_value(name, value))
    return settings


def public_value(name: str, value: object) -> Value:
    """`public`, as text where it is no single value."""
    told: Value = public(name, value)
    return json.dumps(told) if isinstance(told, (dict, list)) else told


def varying_names(settings: Sequence[dict[str, Any]]) -> list[str]:
    """Names whose values differ. What follows from a stage's option or from the protocol's name that differs too is
    left out: it is the same in all cells of that option."""
    names = list(dict.fromkeys(name for values in settings for name in values))
    texts = [{name: text_of(value) for name, value in values.items()} for values in settings]
    varying = [name for name in names if len({values.get(name, "") for values in texts}) > 1]
    of_names = {f"protocol.{name}" for name in OF_NAMES}
    choices = {name for name in varying if name.startswith("protocol.")} - {*of_names, "protocol.name"}

    def decided(name: str, *sources: str) -> bool:
        """Whether settings of which one varies decide this one."""
        known = {(*(values.get(each, "") for each in sources), values.get(name, "")) for values in texts}
        return any(each in varying for each in sources) and len({values[:-1] for values in known}) == len(known)

    by_name = all(decided(name, "protocol.name") for name in choices)

    def follows(name: str) -> bool:
        stage, _, setting = name.partition(".")
        if name in choices:
            return by_name
        if name in of_names:
            return decided(name, "protocol.name", "namer")  # a namer may follow its protocol
        return bool(setting) and name != "protocol.name" and decided(name, stage)

    return [name for name in varying if not follows(name)]


def shown_texts(settings: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[dict[str, str]]:
    """Of each cell the named settings as tables show them: as anyone may see them, and apart where they differ."""
    columns = {name: _public_texts(name, [own.get(name) for own in settings]) for name in names}
    return [{name: column[i] for name, column in columns.items()} for i in range(len(settings))]


def heading(name: str) -> str:
    """A setting's name as columns and axes say it."""
    return "protocol" if name == "protocol.name" else name.removeprefix("segmenter.").removeprefix("protocol.")


def is_number(value: object) -> bool:
    """Whether a setting is one that curves can be drawn along."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15


def text_of(value: object) -> str:
    """A setting as tables show it: nothing for None, 5.0 as 5."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def _extras(results: Sequence[Result], folders: Sequence[Path]) -> Iterator[list[Extra]]:
    """What differs most often between results of the same settings; then, one by one, whatever else the key covers,
    versions, the number of images, the key, the folder."""
    yield [
        ("data", [result.dataset.name for result in results]),
        ("fingerprint", [result.dataset.fingerprint[:_SHORT] for result in results]),
        ("torch", [result.environment.packages.get("torch", "") for result in results]),
        ("device", [text_of(result.identity.get("device_type")) for result in results]),
    ]
    for trees in ([result.identity for result in results], [result.environment.packages for result in results]):
        leaves = [{name: _short(text_of(value)) for name, value in _leaves(tree)} for tree in trees]
        for name in dict.fromkeys(name for own in leaves for name in own):
            yield [(name, [own.get(name, "") for own in leaves])]
    yield [("of images", [str(result.dataset.n_images) for result in results])]
    yield [("key", [result.key[:_SHORT] for result in results])]
    if folders:
        yield [("folder", [str(folder) for folder in folders])]


def _leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, object]]:
    for key, value in tree.items():
        name = f"{above}{json.dumps(key) if '.' in key else key}"  # a dot of its own makes no other setting
        if isinstance(value, dict):
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value


def _short(text: str) -> str:
    return text[:_SHORT] if _DIGEST.fullmatch(text) else text


def _alike(settings: Sequence[dict[str, Any]], names: Sequence[str]) -> list[list[int]]:
    """Indices of settings that have the same values."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, values in enumerate(settings):
        groups.setdefault(tuple(text_of(values.get(name)) for name in names), []).append(index)
    return [indices for indices in groups.values() if len(indices) > 1]


def _public_texts(name: str, values: Sequence[object]) -> list[str]:
    """A column as anyone may see it, in which what differs still does: paths keep the folders that tell them apart, and
    what may not be seen at all is numbered."""
    texts = [text_of(value) for value in values]
    shown = {text: text_of(public(name, value)) for text, value in zip(texts, values, strict=True)}
    paths = {} if is_private(name) else {text: PurePath(path_of(text)).parts for text in shown if is_path(text)}
    if len({shown[text] for text in paths}) < len(paths):
        levels = zip(*(parts[:-1] for parts in paths.values()), strict=False)
        shared = len(list(takewhile(lambda level: len({*level}) == 1, levels)))
        for text, parts in paths.items():
            shown[text] = f"…/{public_text('/'.join(parts[shared:]).lstrip('/'))}"
    numbers: dict[str, Iterator[int]] = {}
    repeated = Counter(shown.values())
    for text, told in shown.items():
        if repeated[told] > 1:
            shown[text] = f"{told} ({next(numbers.setdefault(told, count(1)))})"
    return [shown[text] for text in texts]
