"""Backbones made of others (``backbone=fused``): each part is an option of the group, which Hydra composes inside the
whole by a word of its own."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffcut_bench.errors import UserError, did_you_mean

FUSED = "fused"
LINKER_BACKBONE = "linker.backbone"  # an option of the group backbone, and its settings, inside the linker's
PLACES = {"backbone": "backbone", LINKER_BACKBONE: f"backbone@{LINKER_BACKBONE}"}  # keys, and how Hydra calls them
_SUM = re.compile(r"[\w-]+(\+[\w-]+)+")
_PART = re.compile(r"[+~]{0,2}((?:linker\.)?backbone\.parts\.[\w-]+)\.")
_SUCH_AS = "of=[ssd1b,dinov3_b16]"


def spelled_out(words: Sequence[str]) -> list[str]:
    """Overrides in Hydra's grammar, with ``backbone=a+b`` as ``backbone=fused backbone.of=[a,b]``."""
    found = []
    for word in words:
        key, _, value = word.partition("=")
        place = next((place for place, group in PLACES.items() if key.lstrip("+") == group), None)
        summed = place is not None and _SUM.fullmatch(value)
        found += [f"{key}={FUSED}", f"{place}.of=[{value.replace('+', ',')}]"] if summed else [word]
    return found


def part_of(word: str) -> str | None:
    """The part that an override sets something of, such as ``backbone.parts.ssd1b``."""
    match = _PART.match(word)
    return match and match[1]


def names_of_parts(config: DictConfig, place: str) -> list[str] | None:
    """Names of the parts of a composed backbone; None where it is not made of others, or names none yet."""
    node = _fused(config, place)
    if node is None or OmegaConf.is_missing(node, "of"):
        return None
    names: Any = OmegaConf.to_container(node.of) if OmegaConf.is_list(node.of) else node.of
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{place}.of must be a list of names", f"{place}.of={names}", f"{place}.{_SUCH_AS}")
    return names


def _fused(config: DictConfig, place: str) -> DictConfig | None:
    """A composed backbone, if it is made of others."""
    node = OmegaConf.select(config, place)
    return node if isinstance(node, DictConfig) and {"of", "parts"} <= set(node) else None


def words_of_parts(config: DictConfig, known: Callable[[], Sequence[str]]) -> list[str]:
    """What composes the parts that backbones of a composed config name and do not have yet.

    Args:
        config: composed, perhaps of nothing but options.
        known: gives the options of the group backbone; it is asked where there are parts.

    Raises:
        UserError: a name is unknown, or can't be a part.
    """
    words = []
    for place in PLACES:
        names = names_of_parts(config, place)
        if not names:
            continue
        _check_names(names, place, known())
        there = OmegaConf.select(config, f"{place}.parts") or {}
        words += [
            f"+backbone@{place}.parts.{name}={name}" for name in names if "_target_" not in (there.get(name) or {})
        ]
    return words


def _check_names(names: Sequence[str], place: str, known: Sequence[str]) -> None:
    where = f"{place}.of=[{','.join(names)}]"
    for name in names:
        if name not in known:
            able = set(known) - {FUSED, "none"}
            raise UserError(f"no backbone is named {name}", where, did_you_mean(name, able))
        if name in (FUSED, "none") or not re.fullmatch(r"[\w-]+", name):
            what = f"{name} can't be a part of a fused backbone"
            raise UserError(what, where, "name backbones with features of their own, none of a sub-folder")
        if names.count(name) > 1:
            raise UserError(f"{name} is named twice", where, "name it once, and give it a greater weight")


def settings_of_parts(config: DictConfig) -> Iterator[tuple[str, Any]]:
    """Settings that a preset gives parts that are yet to be composed, by their keys."""
    for place in PLACES:
        for name, node in (OmegaConf.select(config, f"{place}.parts") or {}).items():
            if isinstance(node, Mapping) and "_target_" not in node:
                yield from ((f"{place}.parts.{name}.{key}", value) for key, value in node.items())


def check_parts(config: DictConfig) -> None:
    """Raise a UserError for a composed backbone of parts that has none, or one that is no backbone alone. Weights that
    nobody gave are put in."""
    for place in PLACES:
        node = _fused(config, place)
        if node is None:
            continue
        names = names_of_parts(config, place)
        if names is None:
            hint = f"{place}.{_SUCH_AS}, or in short {place}=ssd1b+dinov3_b16: two or more of conf/backbone"
            raise UserError("a fused backbone without parts", place, hint)
        for name in names:
            if "_target_" not in (node.parts.get(name) or {}):
                raise more_than_a_backbone(name, f"{place}.of=[{','.join(names)}]")
        if node.get("weights", ()) is None:
            node.weights = [1] * len(names)


def more_than_a_backbone(name: str, where: str) -> UserError:
    """The error for an option that sets other groups too, as attention maps do, which are not stored."""
    return UserError(
        f"{name} can't be a part: it sets more than a backbone", where, "name backbones with features of their own"
    )


def choice_of(config: DictConfig, place: str, option: str) -> str:
    """What a chosen backbone is called in tables, and on the command line: ``a+b`` for ``fused``."""
    names = names_of_parts(config, place) if option == FUSED else None
    return "+".join(names) if names else option
