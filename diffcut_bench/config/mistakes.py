"""What Hydra or OmegaConf refused, in the words of the command line: which override, why, and what to type next."""

import contextlib
import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException
from yaml import YAMLError

from diffcut_bench.config.overrides import GROUPS, composed, known_options
from diffcut_bench.config.parts import FUSED, LINKER_BACKBONE, PLACES, spelled_out
from diffcut_bench.errors import UserError, did_you_mean
from diffcut_bench.extensions import command, is_searchpath
from diffcut_bench.paths import is_path_option

REFUSALS = (HydraException, OmegaConfBaseException, YAMLError, ValueError, TypeError, RecursionError)
_KINDS = {"int": "a whole number", "str": "text", "dict": "a group of options"}


def explain(overrides: Sequence[str], error: Exception) -> UserError:
    """The user error for overrides that can't be composed; the culprit is the first that fails with those before it."""
    # Options first, then parts: their keys are known wherever in the line they are chosen.
    ordered = sorted(overrides, key=lambda word: (not _chooses(word), not _names_parts(word)))
    culprit, reason, before = "conf/", error, ordered
    for end in range(1, len(ordered) + 1):
        try:
            composed(ordered[:end])
        except REFUSALS as failure:
            culprit, reason, before = ordered[end - 1], failure, ordered[: end - 1]
            break
    key, separator, value = culprit.partition("=")
    name = key.lstrip("+~").split("@")[0]
    if key == f"backbone@{LINKER_BACKBONE}":
        culprit, key = f"{LINKER_BACKBONE}={value}", LINKER_BACKBONE
        if not any(word.startswith("linker=") for word in before):
            return UserError("there is no linker that compares features", culprit, "add linker=kmeans")
    if key.startswith("~"):
        return _explain_removal(name, culprit, before)
    if not separator:
        return UserError(f"{culprit!r} is no override", culprit, _written_as_override(culprit, overrides))
    if "Ambiguous value" in str(reason) or "requires --multirun" in str(reason):
        return UserError(f"{name} has several values", culprit, _one_of_several(key, value))
    if name in ("experiment", "reproduction"):
        return _explain_experiment(value, culprit, overrides)
    if name in GROUPS and isinstance(reason, (MissingConfigException, TypeError, ValueError)):
        return UserError(f"unknown option {key}={value}", culprit, _known_option(value, known_options(name, overrides)))
    known = _known_keys(before)
    if name not in known:
        return UserError(f"unknown key {name}", culprit, _closest(name, before, known))
    if key.startswith("+"):
        return UserError(f"{name} is there already", culprit, f"without the plus: {name}={value}")
    return UserError(re.sub(r"\s+", " ", str(reason)).strip(), culprit, "see conf/ for what each option takes")


def _chooses(word: str) -> bool:
    return is_searchpath(word) or word.partition("=")[0] in GROUPS


def _names_parts(word: str) -> bool:
    return word.partition("=")[0] in {f"{place}.of" for place in PLACES}


def explain_value(error: OmegaConfBaseException, values: Mapping[str, Any], kinds: Mapping[str, str]) -> UserError:
    """The user error for a composed config that does not fit the schema.

    Args:
        error: of OmegaConf.
        values: the config, as far as it was read.
        kinds: type of each field of the schema, such as ``int | None``.
    """
    key = str(error.full_key or error.key)
    if isinstance(error, InterpolationKeyError):
        found = re.search(r"'([^']*)'", str(error))
        name = found[1] if found else ""
        hint = f"write ${name} for the environment's variable" if name in os.environ else "see conf/ for the keys"
        return UserError(f"${{{name}}} is no key of the config", key, hint)
    if key not in kinds:
        return UserError(f"unknown key {key}", key, did_you_mean(key, kinds))
    kind, _, optional = kinds[key].partition(" | ")
    kind = kind.partition("[")[0]
    if key not in values:
        return UserError(f"a run needs {key}", f"~{key}", _known_option("none", known_options(key)) or f"{key}=…")
    value = values[key]
    what = f"{key} must be {_KINDS.get(kind, kind)}{' or null' if optional else ''}, not {value}"
    if optional and str(value).lower() in ("none", "nan", "nil", "false", ""):
        return UserError(what, key, f"write {key}=null")
    if kind == "int" and isinstance(value, float) and value.is_integer():
        return UserError(what, key, f"write {key}={int(value)}")
    example = "DIR" if is_path_option(key) else "N" if kind == "int" else "…"
    return UserError(what.replace("not None", "not null"), key, f"write {key}={example}; conf/config.yaml describes it")


def _explain_removal(name: str, culprit: str, before: Sequence[str]) -> UserError:
    known = _known_keys(before)
    if name in GROUPS:
        return UserError(f"a run needs {name}", culprit, _known_option("none", known_options(name, before)))
    if name in known:
        return UserError(f"{name} has another value", culprit, f"~{name} removes it whatever its value is")
    return UserError(f"there is no {name} to remove", culprit, _closest(name, before, known))


def _written_as_override(word: str, overrides: Sequence[str]) -> str:
    """How a word without ``=`` may have been meant."""
    if word in GROUPS:
        return f"{word}=OPTION, of {', '.join(known_options(word, overrides))}"
    for group in GROUPS:
        if word.rpartition(":")[0] == group:
            return f"{group}={word.rpartition(':')[2]}"
        if word in known_options(group, overrides):
            return f"did you mean {group}={word}?"
    return "write overrides as key=value, such as segmenter.tau=0.4"


def _one_of_several(key: str, value: str) -> str:
    name = key.lstrip("+")
    if name in GROUPS or "(" in value:
        return "add -m for a sweep"
    as_list = "" if is_path_option(name) else f" write {key}=[{value}] for a list,"
    return f"add -m for a sweep,{as_list} or quote it as text: \"{key}='{value}'\""


def _explain_experiment(value: str, culprit: str, overrides: Sequence[str]) -> UserError:
    """The user error for a preset that does not exist; for a table or figure of the paper, it says where to find it."""
    if value in known_options("reproduction", overrides):
        what = f"{value} is a table or figure of many cells, not a preset of one: it is in conf/reproduction/"
        return UserError(what, culprit, command(f"reproduce {value}"))
    known = known_options("experiment", overrides)
    hint = "a file of your own, experiment/NAME.yaml, is found in DIR with --config-dir DIR (or hydra.searchpath=[DIR])"
    return UserError(f"unknown option experiment={value}", culprit, f"{hint}; {did_you_mean(value, known)}")


def _known_option(value: str, known: Sequence[str]) -> str:
    if "none" in known and value.lower() in ("null", "none", "false", "no", "off", ""):
        return f"did you mean none? available: {', '.join(known)}"
    return did_you_mean(value, known) if known else ""


def _known_keys(overrides: Sequence[str]) -> dict[str, bool]:
    """Dotted keys of the config with the group options that the user chose, and whether each holds other keys."""
    search = [word for word in overrides if is_searchpath(word)]
    words = spelled_out(overrides)
    chosen = {word: word.partition("=") for word in words if word.partition("=")[0] in GROUPS}
    known = [word for word, (group, _, option) in chosen.items() if option in known_options(group, search)]
    known += [word for word in words if word.startswith("backbone.of=") and f"backbone={FUSED}" in known]
    try:
        node: Any = OmegaConf.to_container(composed([*search, *known]))
    except REFUSALS:
        return {}
    return {key: isinstance(value, dict) for key, value in entries(node) if ".suggests." not in key and "[" not in key}


def entries(node: object, parent: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of nested dicts and lists with its parents (``a.b[0].c``), and its value."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in children:
        key = parent + (f"[{name}]" if isinstance(node, list) else f".{name}" if parent else f"{name}")
        yield key, value
        yield from entries(value, key)


def _closest(key: str, overrides: Sequence[str], known: Mapping[str, bool]) -> str:
    """Suggestions: keys that look like it, the options that have it, or the keys beside it."""
    given = {override.partition("=")[0].lstrip("+") for override in overrides}
    settings = [name for name, is_group in known.items() if not is_group and not name.endswith("_target_")]
    parent, _, last = key.rpartition(".")
    beside = [name for name in settings if name.rpartition(".")[0] == (parent if parent in known else "")]
    close = _alike(last, beside if parent in known else settings)
    if parent in GROUPS and not close:
        having = _options_with(parent, last, overrides)
        if having:
            return f"{' or '.join(f'{parent}={option}' for option in having[:4])} has it"
        if not beside:
            return f"this {parent} takes no settings; choose another: {', '.join(known_options(parent, overrides))}"
    close = close or difflib.get_close_matches(key, settings, 3, 0.7)
    fresh = [name for name in close if name not in given]
    if close and not fresh:
        return f"did you mean {close[0]}? it is set already: remove one of the two"
    return f"did you mean {' or '.join(fresh)}?" if fresh else f"available: {', '.join(sorted(beside)) or 'none'}"


def _options_with(group: str, setting: str, overrides: Sequence[str]) -> list[str]:
    """Options of a group that have a setting."""
    search = [override for override in overrides if is_searchpath(override)]
    having = []
    for option in known_options(group, search):
        with contextlib.suppress(*REFUSALS):
            alone: Any = OmegaConf.to_container(composed([*search, f"+{group}={option}"], name=None))
            if setting in alone[group]:
                having.append(option)
    return having


def _alike(last: str, keys: Sequence[str]) -> list[str]:
    """Keys whose last part looks like this word, the most similar first."""
    parts = {name: name.rpartition(".")[2] for name in keys}
    alike = difflib.get_close_matches(last, sorted(set(parts.values())), n=3, cutoff=0.7)
    return [name for part in alike for name in keys if parts[name] == part][:3]
