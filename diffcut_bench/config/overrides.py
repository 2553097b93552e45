"""Overrides as people type them: written in Hydra's grammar, paths kept as text, and expanded to a sweep's cells."""

import itertools
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffcut_bench.config.parts import (
    FUSED,
    LINKER_BACKBONE,
    more_than_a_backbone,
    part_of,
    settings_of_parts,
    spelled_out,
    words_of_parts,
)
from diffcut_bench.config.search import quoted, with_addresses, with_search_path
from diffcut_bench.errors import UserError, did_you_mean
from diffcut_bench.extensions import is_searchpath, option_folders
from diffcut_bench.paths import conf_dir, is_path_option

GROUPS = (
    *("dataset", "backbone", "features", "segmenter", "upsampler", "refiner", "namer", "linker", "protocol"),
    "tracker",
)
_LAUNCHER = ("hydra/launcher", "hydra.launcher")
_SWEEPER = ("hydra/sweeper", "hydra.sweeper")
_FULL_ERROR = "HYDRA_FULL_ERROR"  # in the environment: Hydra raises what goes wrong
_MOST_CELLS = 10_000  # each is composed before the first runs


@contextmanager
def _conf() -> Iterator[None]:
    """conf/ as what Hydra composes, also within a job of Hydra's."""
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = outer


def known_options(group: str, overrides: Sequence[str] = ()) -> list[str]:
    """Options of a group along the search path, with folders that a ``hydra.searchpath`` among the overrides names."""
    search = with_search_path([override for override in overrides if is_searchpath(override)])
    with _conf():
        return _options(group, search)


def _options(group: str, search: list[str]) -> list[str]:
    return GlobalHydra.instance().config_loader().get_group_options(group, ObjectType.CONFIG, "config", search)


def composed(overrides: Sequence[str], name: str | None = "config", with_hydra: bool = False) -> DictConfig:
    """conf/ composed by Hydra with overrides, along the search path; ``name`` None: nothing but what they add."""
    words = spelled_out(with_search_path(overrides))
    whole = [word for word in words if part_of(word) is None]
    with _conf():
        config = compose(name, whole, return_hydra_config=with_hydra)
        parts = _words_of_parts(config, words)
        if parts or whole != words:
            preset, config = config, _compose_parts(name, [*words, *parts], with_hydra)
            typed = {word.partition("=")[0].lstrip("+") for word in words}
            for key, value in settings_of_parts(preset):
                if key not in typed:
                    OmegaConf.update(config, key, value)
        return config


def setting_of_option(group: str, option: str, name: str) -> Any:
    """What an option gives a setting, by itself or by what it inherits; None where it is silent, or not there."""
    return _setting_of_option(group, option, name, option_folders())


@cache
def _setting_of_option(group: str, option: str, name: str, _: tuple[Path, ...]) -> Any:
    """`setting_of_option` where there are these folders of options."""
    try:
        return OmegaConf.select(composed([f"{group}={option}"]), f"{group}.{name}")
    except (HydraException, OmegaConfBaseException, UserError):
        return None


def with_parts(words: Sequence[str]) -> list[str]:
    """Words for Hydra's own command line, with those that compose the parts of backbones."""
    spelled = spelled_out(words)
    with _conf():
        config = compose("config", [word for word in spelled if part_of(word) is None])
        return [*spelled, *_words_of_parts(config, spelled)]


def _words_of_parts(config: DictConfig, words: Sequence[str]) -> list[str]:
    return words_of_parts(config, lambda: _options("backbone", [word for word in words if is_searchpath(word)]))


def _compose_parts(name: str | None, words: list[str], with_hydra: bool) -> DictConfig:
    try:
        return compose(name, words, return_hydra_config=with_hydra)
    except ConfigCompositionException as error:
        added = [word for word in words if word.startswith("+backbone@")]
        culprit = next((word for word in added if f"'backbone/{word.partition('=')[2]}'" in str(error)), None)
        if culprit is None:
            raise
        raise more_than_a_backbone(culprit.partition("=")[2], culprit.removeprefix("+backbone@")) from error


def part_of_composed(cfg: str, package: str, overrides: Sequence[str]) -> Any:
    """The part of a composed config that ``--package`` names.

    Args:
        cfg: as Hydra's ``--cfg``: ``job``, ``hydra`` or ``all``.
        package: dotted key.
        overrides: as typed.

    Raises:
        UserError: there is no such part.
    """
    whole = composed([quote_if_needed(word) for word in overrides], with_hydra=True)
    inner = [f"hydra.{name}" for name in whole.hydra]
    known = ["hydra", *inner] if cfg == "hydra" else [str(name) for name in whole if name != "hydra"]
    missing = object()
    part = OmegaConf.select(whole, package, default=missing)
    if part is missing or (cfg != "all" and (package.partition(".")[0] == "hydra") != (cfg == "hydra")):
        raise UserError(f"--cfg {cfg} has no {package}", f"--package {package}", did_you_mean(package, known))
    return part


def show_composed(flags: Sequence[str], overrides: Sequence[str]) -> None:
    """Let Hydra print what it composes from overrides, instead of a run.

    Args:
        flags: of Hydra, such as ``--cfg job`` or ``--info searchpath``.
        overrides: as typed.

    Raises:
        UserError: Hydra refuses the flags or the overrides.
    """
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level  # Hydra prints through the root
    for name in ("hydra._internal.hydra", "hydra._internal.utils"):
        logging.getLogger(name).disabled = False  # as a sweep in this process has left them
    try:
        words = [quote_if_needed(word) for word in overrides]
        hydra_main(lambda config: None, [*flags, *with_parts(with_search_path(words))])
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(" ".join(f"{error}".split()), " ".join(flags), "diffcut-bench run --hydra-help") from error
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def hydra_main(work: Callable[[DictConfig], Any], words: Sequence[str]) -> None:
    """Let Hydra's own command line compose conf/ and do the work; whatever goes wrong is raised.

    Args:
        work: a job, from its composed config.
        words: of the command line: flags of Hydra and overrides in its grammar.
    """
    before = sys.argv
    sys.argv = ["diffcut-bench run", *with_search_path(words)]
    full_error = os.environ.get(_FULL_ERROR)
    os.environ[_FULL_ERROR] = "1"
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(work)()
    finally:
        sys.argv = before
        if full_error is None:
            del os.environ[_FULL_ERROR]
        else:
            os.environ[_FULL_ERROR] = full_error


def is_launcher(override: str) -> bool:
    """Whether an override is for the launcher of a sweep."""
    return override.lstrip("+~").startswith(_LAUNCHER)


def is_sweeper(override: str) -> bool:
    """Whether an override is for the sweeper, which chooses the cells of a sweep."""
    return override.lstrip("+~").startswith(_SWEEPER)


def refuse_without_effect(overrides: Sequence[str]) -> None:
    """Refuse settings of Hydra's own that nothing here reads.

    Raises:
        UserError: there is one of them.
    """
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        if not key.startswith(("hydra.", "hydra/")) or is_searchpath(override):
            continue
        if is_launcher(override):
            raise UserError("a launcher starts the passes of a sweep", override, "add -m, or leave the launcher out")
        if is_sweeper(override):
            raise UserError("a sweeper chooses the cells of a sweep", override, "add -m, or leave the sweeper out")
        if key.startswith("hydra.mode"):
            hint = "diffcut-bench run -m sweeps over comma lists, range() and glob()"
        elif key.startswith(("hydra.run", "hydra.sweep", "hydra.output_subdir", "hydra.job.chdir")):
            hint = "output_dir=DIR is the folder of all that is written"
        else:
            hint = "of Hydra's own settings, hydra.searchpath, hydra/launcher and hydra/sweeper are read"
        raise UserError(f"{key} has no effect here", override, hint)


def quote_if_needed(override: str) -> str:
    """An override as Hydra's grammar wants it.

    A value that the grammar can't read, such as a path with brackets or blanks, is quoted. So is a path or revision
    that would be read as a number (``dataset.root=2012``, ``backbone.revision=12e5``). Folders of ``hydra.searchpath``
    become addresses.

    Raises:
        UserError: a folder of ``hydra.searchpath`` is not there.
    """
    key, separator, value = override.partition("=")
    if not separator:
        return override
    if key == "+experiment":  # the slot is there already: as in templates that have none
        return quote_if_needed(override.removeprefix("+"))
    if key == LINKER_BACKBONE and value != "null" and not value.startswith("{"):
        return f"backbone@{override}"
    if is_searchpath(override):
        return with_addresses(override)
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        return f"{key}={quoted(value)}"
    if _is_text(key.lstrip("+")) and isinstance(parsed.value(), (bool, int, float)):
        return f"{key}={quoted(value)}"
    return override


def _is_text(key: str) -> bool:
    """Whether an option's value is a name even if it consists of digits."""
    return is_path_option(key) or key.endswith(".revision")


def expand_sweep(overrides: Sequence[str]) -> list[list[str]]:
    """Overrides of every cell: the product of comma lists, ``choice()``, ``range()`` and ``glob()``, in Hydra's order.

    Raises:
        UserError: an override can't be read or has no value, or there are too many cells.
    """
    alternatives = [_alternatives(text, overrides) for text in overrides]
    cells = math.prod(len(each) for each in alternatives)
    if cells > _MOST_CELLS:
        swept = " ".join(text for text, each in zip(overrides, alternatives, strict=True) if len(each) > 1)
        raise UserError(f"a sweep of more than {_MOST_CELLS} cells", swept, "sweep over fewer values at a time")
    return [list(cell) for cell in itertools.product(*alternatives)]


def split_swept(overrides: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Overrides with one value, and those with several, in Hydra's grammar, each with the first of its values.

    ``glob()`` becomes the ``choice()`` of what fits, which every sweeper knows.

    Raises:
        UserError: an override can't be read or has no value.
    """
    fixed, swept = [], {}
    for text in overrides:
        word = quote_if_needed(text)
        try:
            override = OverridesParser.create().parse_override(word)
        except HydraException as error:
            raise UserError(f"{text!r} is no override", text, "write overrides as key=value or key=a,b") from error
        if not override.is_sweep_override():
            fixed.append(word)
        elif override.is_interval_sweep():
            interval: Any = override.value()
            swept[word] = f"{override.get_key_element()}={interval.start}"
        else:
            each = _alternatives(text, overrides)
            if isinstance(override.value(), Glob):
                values = ",".join(one.partition("=")[2] for one in each)
                word = f"{override.get_key_element()}=choice({values})"
            swept[word] = each[0]
    return fixed, swept


def _alternatives(text: str, overrides: Sequence[str]) -> list[str]:
    """Every override that a word of the command line stands for."""
    try:
        override = OverridesParser.create().parse_override(quote_if_needed(text))
        if not override.is_sweep_override():
            return [text]
        values = _values(override, text, overrides)
    except (HydraException, ValueError) as error:
        raise UserError(f"{text!r} is no override", text, "write overrides as key=value or key=a,b") from error
    if not values:
        raise UserError("a sweep over no value", text, "range(start,stop,step) leaves stop out; glob(*) takes all")
    return [f"{override.get_key_element()}={value}" for value in values]


def _values(override: Override, text: str, overrides: Sequence[str]) -> list[str]:
    value: Any = override.value()  # annotated there without Glob
    if isinstance(value, Glob):
        return _globbed(override.key_or_group, value, text, overrides)
    if override.is_interval_sweep():
        hint = "write key=a,b or key=range(start,stop,step), or let hydra/sweeper=optuna choose"
        raise UserError("an interval is no list of values", text, hint)
    if isinstance(value, ChoiceSweep) and value.simple_form and _is_text(override.key_or_group):
        own = text.partition("=")[2]
        if not set(own) & set("'\"[]{}()\\"):
            return [path.strip() for path in own.split(",")]  # as typed: 2024.10 is no number here
    values = list(itertools.islice(override.sweep_string_iterator(), _MOST_CELLS + 1))
    # Hydra adds up steps, and 0.7000000000000001 would be another cell than 0.7.
    return [f"{float(each):.12g}" for each in values] if override.is_range_sweep() else values


def _globbed(group: str, pattern: Glob, text: str, overrides: Sequence[str]) -> list[str]:
    known = [option for option in known_options(group, overrides) if option != FUSED]  # which wants names of others
    if not known:
        raise UserError("glob() is for the options of a group", text, f"groups: {', '.join(GROUPS)}; write key=a,b")
    found = pattern.filter(known)
    if not found:
        raise UserError(f"no option of {group} fits", text, did_you_mean("", known))
    return found
