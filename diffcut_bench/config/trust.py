"""Configs in files are data: only options of conf/, of installed packages and of folders that the user names decide
which code is run."""

import re
from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any

from omegaconf import OmegaConf

from diffcut_bench.config.mistakes import entries
from diffcut_bench.config.overrides import GROUPS
from diffcut_bench.config.parts import LINKER_BACKBONE, part_of
from diffcut_bench.config.run_config import RunConfig, check_config, load_config
from diffcut_bench.errors import UserError
from diffcut_bench.paths import is_hub_id, is_path_option

# An option's name, perhaps in a sub-folder of its group, and never outside it; of a fused backbone several.
_OPTION = re.compile(r"[\w-]+(\.[\w-]+)*(/[\w-]+(\.[\w-]+)*)*|[\w-]+(\+[\w-]+)+")
_NAME_AGAIN = "name its option again, with hydra.searchpath=[DIR] where it is your own"


def trusted(stored: object, overrides: Sequence[str] = ()) -> RunConfig:
    """A config from a file, safe to use.

    Each group is composed again along the search path, which no file changes, by the option that the file names.
    Whatever `hydra.utils.instantiate` reads as an instruction (``_target_`` and other keys that begin with ``_``, at
    any depth) has to be the option's own; numbers, words and lists may differ. The result has no tracker.

    Args:
        stored: a result's ``config``.
        overrides: of the user, which win; an option, target or ``hydra.searchpath`` in them is trusted.

    Raises:
        UserError: the file names code that is not the option's own, refers to the environment or another key, is of
            another version, or an option or value is unknown.
    """
    if not isinstance(stored, dict):
        raise UserError("this is not a config", "config", "compute the cell again")
    _check_fields(stored)
    for key, value in entries(stored):
        text = f"{key}={value}" if isinstance(value, str) else key
        if "${" in text or ("$" in text and is_path_option(re.sub(r"\[\d+\]", "", key))):
            raise UserError("the config is not resolved: it refers to something by $", key, "compute the cell again")
    composed = load_config([*option_words(stored.get("choices"), overrides), *overrides])
    for group in GROUPS:
        own, option = stored.get(group, {}), composed.choices.get(group)
        if group != "tracker" and _instructions(own) != _instructions(getattr(composed, group)):
            raise UserError("the config names code that is no option's own", f"{group}={option}", _NAME_AGAIN)
    plain = {name: value for name, value in stored.items() if name != "choices"} | {"tracker": {}}
    config = check_config(OmegaConf.create(plain), composed.choices)
    for word in overrides:
        _put(config, composed, word.partition("=")[0].lstrip("+~"))
    return config


def _check_fields(stored: dict[Any, Any]) -> None:
    known = {field.name: field for field in fields(RunConfig)}
    needed = {name for name, field in known.items() if field.default is MISSING and field.default_factory is MISSING}
    for names, word in ((needed - {*stored}, "lacks"), ({*stored} - {*known}, "has")):
        if names:
            what = f"the config is of another version: it {word} {', '.join(sorted(map(str, names)))}"
            raise UserError(what, "config", "compute the cell again")


def option_words(choices: object, overrides: Sequence[str]) -> list[str]:
    """The options that a file names and the user does not, as overrides; texts that can't be an option are left out."""
    named = {word.partition("=")[0] for word in overrides}
    found = [(group, choices.get(group)) for group in (*GROUPS, LINKER_BACKBONE)] if isinstance(choices, dict) else []
    return [
        f"{group}={option}"
        for group, option in found
        if group not in {*named, "tracker"} and isinstance(option, str) and _OPTION.fullmatch(option)
    ]


def _put(config: RunConfig, composed: RunConfig, key: str) -> None:
    """Take over a value that the user has set; where they named a whole option, the file's values stay."""
    group = part_of(key) or key.partition(".")[0]
    setting = key[len(group) + 1 :].partition(".")[0]
    own, given = _settings(config, group), _settings(composed, group)
    if setting and own is not None and given is not None:
        if setting not in given:
            own.pop(setting, None)
            return
        is_another = setting == "model" and own.get("model") != given["model"] and is_hub_id(given["model"])
        if is_another and "revision" in given:
            own["revision"] = given["revision"]  # the file's is of the file's model
        own[setting] = given[setting]
    elif group not in GROUPS and hasattr(composed, group):
        setattr(config, group, getattr(composed, group))


def _settings(config: RunConfig, group: str) -> dict[str, Any] | None:
    """Those of an option, or of a part of one such as ``backbone.parts.ssd1b``; None where there is none."""
    name, *within = group.split(".")
    node = getattr(config, name) if name in GROUPS else None
    for each in within:
        node = (node or {}).get(each)
    return node


def _instructions(node: object) -> list[tuple[str, str]]:
    """Every key that begins with ``_``, with its parents, and its value; a ``_target_`` of null does not count.

    A sorted list and not a dict: a key with a dot or bracket in it may look like one of another depth.
    """
    found = [(key, value) for key, value in entries(node) if re.search(r"(^|\.)_[^.]*$", key)]
    return sorted((key, repr(value)) for key, value in found if value is not None or not key.endswith("_target_"))
