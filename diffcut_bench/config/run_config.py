"""From command-line overrides to a checked `RunConfig`. Besides this room only sweeps and studies know Hydra:
launchers and sweepers are its plugins."""

import difflib
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra.utils
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffcut_bench.config.mistakes import REFUSALS, entries, explain, explain_value
from diffcut_bench.config.overrides import (
    GROUPS,
    composed,
    known_options,
    quote_if_needed,
    refuse_without_effect,
)
from diffcut_bench.config.parts import LINKER_BACKBONE, PLACES, check_parts, choice_of, part_of
from diffcut_bench.errors import UserError, did_you_mean
from diffcut_bench.extensions import find_target
from diffcut_bench.paths import expand_options, is_hub_id
from diffcut_bench.traces import CodeError, Trace, message_of

if TYPE_CHECKING:
    from diffcut_bench.evaluation import Protocol

_LEAST = {"batch_size": 1, "max_pixels": 1, "num_proc": 1, "limit": 1}
_LEAST |= dict.fromkeys(("num_workers", "visualise", "max_failures", "seed", "limit_seed"), 0)
_MOST_PROCESSES = 1024  # more is a typing error, and would be started
_OPTIONAL = ("features", "refiner", "namer", "linker", "tracker")  # groups with an option that builds nothing
_HAS = {  # what tells a built option from one of another kind; `as_segmenter` looks at segmenters
    **{"backbone": "fingerprint", "dataset": "class_names", "features": "kept_as", "namer": "for_classes"},
    **dict.fromkeys(("linker", "refiner", "upsampler"), "__call__"),
}
IF_EXISTS = ("skip", "resume", "overwrite")
REFERENCE = ("none", "stored", "shown")


@dataclass
class RunConfig:
    """The schema of conf/config.yaml, where each field is described. Groups are free-form: their targets check them."""

    dataset: dict[str, Any]
    backbone: dict[str, Any]
    features: dict[str, Any]
    segmenter: dict[str, Any]
    upsampler: dict[str, Any]
    refiner: dict[str, Any]
    protocol: dict[str, Any]
    output_dir: str
    data_dir: str
    prepared: str
    limit: int | None
    shard: str | None
    device: str
    batch_size: int
    num_proc: int
    num_workers: int
    seed: int
    visualise: int
    max_failures: int | None
    if_exists: str
    # Of later versions: configs in older results lack them.
    limit_seed: int | None = None
    accept_labels: bool = False
    max_pixels: int = 64_000_000
    max_seconds: float | None = None
    smallest_segment: float = 0.0
    score: str = "miou"
    explore: bool = False
    reference: str = "stored"
    tracker: dict[str, Any] = field(default_factory=dict)
    namer: dict[str, Any] = field(default_factory=dict)
    linker: dict[str, Any] = field(default_factory=dict)
    choices: dict[str, str] = field(default_factory=dict)  # option chosen in each group, for names and tables

    def problems(self) -> list[str]:
        """Every value out of range, one line each."""
        found = []
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                found.append(f"{name} must be at least {least}, not {value}")
            elif name in ("num_proc", "num_workers") and value > _MOST_PROCESSES:
                found.append(f"{name} must be at most {_MOST_PROCESSES}, not {value}")
        if self.max_seconds is not None and not 0 < self.max_seconds <= 1e6:
            found.append(f"max_seconds must lie above 0 and up to 1000000, not {self.max_seconds}")
        if not 0 <= self.smallest_segment < 1:
            found.append(f"smallest_segment must be a fraction of the area, 0 to below 1, not {self.smallest_segment}")
        if self.shard is not None and self.shard_of() is None:
            found.append(f"shard must be i/n with 1 <= i <= n, such as 2/4, not {self.shard!r}")
        if self.if_exists not in IF_EXISTS:
            found.append(f"if_exists must be {' | '.join(IF_EXISTS)}, not {self.if_exists!r}")
        if self.reference not in REFERENCE:
            found.append(f"reference must be {' | '.join(REFERENCE)}, not {self.reference!r}")
        return found

    def shard_of(self) -> tuple[int, int] | None:
        """``i`` and ``n`` of ``shard=i/n``; None if there is no (legal) shard."""
        match = re.fullmatch(r"(\d+)/(\d+)", self.shard or "")
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            return None
        return int(match[1]), int(match[2])

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def load_config(overrides: Sequence[str]) -> RunConfig:
    """Compose conf/ with overrides and check it; ``~`` and environment variables in paths are expanded.

    The revision that an option's yaml pins belongs to the yaml's own model. Where an override names another model of
    the hub (``backbone.model=OWNER/MODEL``), its revision is ``main`` unless an override names one.

    Raises:
        UserError: an option, key or value is unknown or out of range.
    """
    refuse_without_effect(overrides)
    overrides = [quote_if_needed(override) for override in overrides]
    try:
        config = composed(overrides, with_hydra=True)
        _unpin(config, overrides)
    except REFUSALS as error:
        raise explain(overrides, error) from error
    check_parts(config)
    chosen = config.hydra.runtime.choices
    choices = {group: chosen[group] for group in GROUPS if group in chosen}
    inner = chosen.get(f"backbone@{LINKER_BACKBONE}")
    choices |= {LINKER_BACKBONE: inner} if inner else {}
    choices |= {place: choice_of(config, place, choices[place]) for place in PLACES if place in choices}
    return check_config(config, choices)


def _unpin(config: DictConfig, overrides: Sequence[str]) -> None:
    """Replace by ``main`` a revision that belongs to another model; see `load_config`."""
    keys = [override.partition("=")[0].lstrip("+~") for override in overrides]
    parts = [part for part in map(part_of, overrides) if part is not None]
    groups = [
        group
        for group in dict.fromkeys((*GROUPS, LINKER_BACKBONE, *parts))
        if f"{group}.model" in keys and f"{group}.revision" not in keys
    ]
    nodes = {group: OmegaConf.select(config, group) for group in groups}
    nodes = {group: node for group, node in nodes.items() if "revision" in node and is_hub_id(node.get("model"))}
    if nodes:
        named = {f"{group}.model" for group in nodes}
        plain = composed([word for word, key in zip(overrides, keys, strict=True) if key not in named])
        for group, node in nodes.items():
            if node.model != OmegaConf.select(plain, group).get("model"):
                node.revision = "main"


def check_config(tree: DictConfig, choices: dict[str, str]) -> RunConfig:
    """A composed Hydra config as a `RunConfig`.

    Raises:
        UserError: listing every field whose type or range is wrong.
    """
    resolved: Any = {}
    try:
        plain = OmegaConf.to_container(tree, resolve=False)
        assert isinstance(plain, dict)
        plain.pop("hydra", None)
        resolved = OmegaConf.to_container(OmegaConf.create(plain), resolve=True, throw_on_missing=True)
        merged = OmegaConf.merge(OmegaConf.structured(RunConfig), expand_options(resolved), {"choices": choices})
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        kinds = {each.name: getattr(each.type, "__name__", str(each.type)) for each in fields(RunConfig)}
        raise explain_value(error, resolved, kinds) from error
    assert isinstance(config, RunConfig)
    # Hydra reads the word nan as a number.
    config.protocol = {n: "nan" if isinstance(v, float) and math.isnan(v) else v for n, v in config.protocol.items()}
    _check_linker(config)
    _check_lists(resolved)
    _check_revisions(resolved)
    _check_score(config.score)
    problems = config.problems()
    if problems:
        raise UserError("; ".join(problems), "the run's options", "see conf/config.yaml for what each may be")
    return config


def instantiate(group: str, node: dict[str, Any]) -> Any:
    """Build the object that an option names by ``_target_``; None for an option without one (``refiner=none``,
    ``features=memory``, ``namer=none``, ``tracker=none``).

    ``suggests`` holds defaults for other options; the target does not get it, nor do targets within.

    Raises:
        UserError: the target can't be found, or refuses its arguments; a `CodeError` where code of the user's raises.
    """
    if not isinstance(node, dict):
        raise UserError(f"{group}={node} is no option", group, did_you_mean(str(node), known_options(group)))
    arguments = _arguments(node)
    if arguments.get("_target_") is None:
        if group not in _OPTIONAL:
            raise UserError(f"{group} has no _target_", group, did_you_mean("", known_options(group)))
        return None
    for key, value in entries(arguments):
        if key.rpartition(".")[2] == "_target_":
            find_target(str(value))
    try:
        built = hydra.utils.instantiate(arguments, _convert_="all")
    except (Exception, SystemExit) as error:  # a module may end the program, where it is a script
        causes: list[BaseException] = [error]
        while causes[-1].__cause__ is not None:
            causes.append(causes[-1].__cause__)
        ours = next((cause for cause in causes if isinstance(cause, UserError)), None)
        trace = None if ours else Trace.of(error)
        if trace is not None and trace.of_user:  # it was called, and did not refuse its arguments but raised
            hint = f"mend this code, or the values of {group}.*, then run the same command again"
            raise CodeError(trace.error, f"{group}={arguments['_target_']}", hint, trace) from error
        if isinstance(error, SystemExit):
            raise
        part = re.search(r"full_key: parts\.([\w-]+)", str(error))
        if part is None:
            raise ours or _refused(group, arguments, causes[-1]) from error
        ours = ours or _refused(group, arguments["parts"][part[1]], causes[-1])
        raise _of_part(ours, group, f"parts.{part[1]}") from error
    if not hasattr(built, _HAS.get(group, "__class__")):
        what = f"it gives {type(built).__name__}, which is no {group}: it has no {_HAS[group]}"
        hint = "name a class or function that makes one; _partial_: true makes none, but of a segmenter"
        raise UserError(what, f"{group}={arguments['_target_']}", hint)
    return built


def _arguments(node: dict[str, Any]) -> dict[str, Any]:
    """Settings without ``suggests``, also those of targets within."""
    return {
        name: _arguments(value) if isinstance(value, dict) else value
        for name, value in node.items()
        if name != "suggests" or "_target_" not in node
    }


def _of_part(error: UserError, group: str, part: str) -> UserError:
    """The error of a backbone that is a part: what it calls ``backbone.model`` is ``backbone.parts.ssd1b.model``."""
    for name in ("what", "where", "hint", "elsewhere"):
        if hasattr(error, name):
            setattr(error, name, re.sub(rf"\b{group}(?=[.=])", f"{group}.{part}", getattr(error, name)))
    error.args = (error.what, error.where, error.hint)
    return error


def _refused(group: str, arguments: dict[str, Any], error: BaseException) -> UserError:
    """The user error for a target that refused its arguments, or is not there."""
    own = {name: value for name, value in arguments.items() if name != "_target_"}
    where, what = f"{group}={arguments['_target_']}", " ".join(message_of(error).split())
    if isinstance(error, ModuleNotFoundError) and f"{arguments['_target_']}.".startswith(f"{error.name}."):
        return _not_found(group, arguments["_target_"])
    unknown = re.search(r"unexpected keyword argument '(\w+)'", what)
    if unknown:
        taken = [f"{group}.{name}" for name in own if name != unknown[1]]
        return UserError(f"there is no {group}.{unknown[1]}", where, did_you_mean(f"{group}.{unknown[1]}", taken))
    if re.search(r"missing \d+ required positional argument", what) and group == "segmenter":
        hint = "set what is missing; a function that is itself the segmenter wants _partial_: true beside its _target_"
        return UserError(what, where, hint)
    if isinstance(error, TypeError):  # raised by Python itself, which does not know the option's name
        return UserError(what, where, "check " + ", ".join(f"{group}.{name}={value}" for name, value in own.items()))
    return UserError(what, where, f"check the values of {group}.*")


def _not_found(group: str, target: str) -> UserError:
    """The user error for a target whose module, or whose name in it, is not there."""
    module, _, name = target.rpartition(".")
    if module in sys.modules:
        names = [each for each in vars(sys.modules[module]) if not each.startswith("_")]
        return UserError(f"{module} has no {name}", f"{group}={target}", did_you_mean(name, names))
    here = [path.stem for path in Path.cwd().glob("*.py")] if not sys.flags.safe_path else []
    looked = "installed packages, PYTHONPATH" + ("" if sys.flags.safe_path else " and the current folder")
    hint = f"a target is MODULE.NAME, with a module of {looked}"
    close = difflib.get_close_matches(module or name, here, n=1)
    hint = f"did you mean {close[0]}.{name if module else '…'}? {hint}" if close else hint
    return UserError(f"there is no module {module or target}", f"{group}={target}", hint)


def _check_linker(config: RunConfig) -> None:
    """Refuse a linker beside a namer: a name means the same in every image already."""
    groups = ("linker", "namer")
    if all(getattr(config, group).get("_target_") for group in groups):
        where = ", ".join(f"{group}={config.choices.get(group)}" for group in groups)
        what = "a namer gives segments one meaning in all images, and so does a linker"
        raise UserError(what, where, "leave one of the two out")


def _check_lists(config: dict[str, Any]) -> None:
    """Refuse a list that has true, false or null among words or numbers: YAML reads ``yes``, ``no``, ``on`` and ``off``
    as truth values, and ``~`` as null."""
    for group, node in config.items():
        for name, value in node.items() if isinstance(node, dict) else ():
            odd = [each for each in value if each is None or isinstance(each, bool)] if isinstance(value, list) else []
            if odd and len(odd) < len(value):
                said = {True: "true", False: "false", None: "null"}[odd[0]]
                hint = f"quote every word, such as 'yes', 'no', 'null': {group}.{name}=['…','…']"
                raise UserError(f"{said} among the words or numbers of a list", f"{group}.{name}={value}", hint)


def _check_revisions(config: dict[str, Any]) -> None:
    """Refuse a revision of weights that a yaml gives as a number or null: its text can't be known any more."""
    for group, node in config.items():
        if isinstance(node, dict) and "model" in node and not isinstance(node.get("revision", ""), str):
            said = "null" if node["revision"] is None else str(node["revision"])
            hint = f"{group}.revision=main, or a commit; in a yaml, quote it: '…'"
            raise UserError(f"a revision must be text, not {said}", f"{group}.revision", hint)


def _check_score(name: str) -> None:
    """Refuse a score that no metric has."""
    if name != RunConfig.score:
        from diffcut_bench.evaluation import known_metrics  # only here, as in `build_protocol`

        if name not in known_metrics():
            raise UserError(f"no metric is named {name!r}", f"score={name}", did_you_mean(name, known_metrics()))


def build_protocol(node: dict[str, Any]) -> "Protocol":
    """The protocol, every field checked.

    Raises:
        UserError: listing every field out of range.
    """
    from diffcut_bench.evaluation import Protocol  # only here: torch and torchmetrics take seconds

    try:
        return Protocol(**node)
    except TypeError as error:
        raise UserError(str(error), "protocol", f"fields: {', '.join(Protocol.__dataclass_fields__)}") from error
    except ValueError as error:
        raise UserError(str(error), f"protocol={node.get('name')}", "see conf/protocol/ for the sets") from error
