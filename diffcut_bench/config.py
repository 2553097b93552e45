"""From command-line overrides to a checked `RunConfig`. Hydra lives here and in the command line, nowhere else."""

import difflib
import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import hydra.utils
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from diffcut_bench.errors import UserError, did_you_mean
from diffcut_bench.evaluation import Protocol

GROUPS = ("dataset", "backbone", "features", "segmenter", "upsampler", "refiner", "namer", "protocol", "tracker")
_OPTIONAL = ("features", "refiner", "namer", "tracker")  # groups with an option that builds nothing
IF_EXISTS = ("skip", "resume", "overwrite")


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
    max_seconds: float | None = None
    tracker: dict[str, Any] = field(default_factory=dict)
    namer: dict[str, Any] = field(default_factory=dict)
    choices: dict[str, str] = field(default_factory=dict)  # option chosen in each group, for names and tables

    def problems(self) -> list[str]:
        """Every value out of range, one line each."""
        found = []
        for name, least in (
            ("batch_size", 1),
            ("num_proc", 1),
            ("num_workers", 0),
            ("visualise", 0),
            ("limit", 1),
            ("max_failures", 0),
            ("seed", 0),
            ("limit_seed", 0),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                found.append(f"{name} must be at least {least}, not {value}")
        if self.max_seconds is not None and not self.max_seconds > 0:
            found.append(f"max_seconds must be above 0, not {self.max_seconds}")
        if self.shard is not None and self.shard_of() is None:
            found.append(f"shard must be i/n with 1 <= i <= n, such as 2/4, not {self.shard!r}")
        if self.if_exists not in IF_EXISTS:
            found.append(f"if_exists must be {' | '.join(IF_EXISTS)}, not {self.if_exists!r}")
        return found

    def shard_of(self) -> tuple[int, int] | None:
        """``i`` and ``n`` of ``shard=i/n``; None if there is no (legal) shard."""
        match = re.fullmatch(r"(\d+)/(\d+)", self.shard or "")
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            return None
        return int(match[1]), int(match[2])

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def conf_dir() -> Path:
    """The yaml options: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def load_config(overrides: Sequence[str]) -> RunConfig:
    """Compose conf/ with overrides and check it.

    Raises:
        UserError: an option, key or value is unknown or out of range.
    """
    overrides = [quote_if_needed(override) for override in overrides]
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            composed = compose("config", list(overrides), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, ValueError, TypeError) as error:
        raise _explain(overrides, error) from error
    chosen = composed.hydra.runtime.choices
    return check_config(composed, {group: chosen[group] for group in GROUPS if group in chosen})


def check_config(composed: DictConfig, choices: dict[str, str]) -> RunConfig:
    """A composed Hydra config as a `RunConfig`.

    Raises:
        UserError: listing every field whose type or range is wrong.
    """
    try:
        plain = OmegaConf.to_container(composed, resolve=False)
        assert isinstance(plain, dict)
        plain.pop("hydra", None)
        if "experiment" in plain:
            name = composed.hydra.runtime.choices.get("experiment")
            hint = f"diffcut-bench reproduce {name}"
            raise UserError("this experiment is a table or figure of many cells", f"experiment={name}", hint)
        resolved = OmegaConf.to_container(OmegaConf.create(plain), resolve=True, throw_on_missing=True)
        merged = OmegaConf.merge(OmegaConf.structured(RunConfig), resolved, {"choices": choices})
        config = OmegaConf.to_object(merged)
    except ValidationError as error:
        first = str(error).splitlines()[0]
        raise UserError(first, str(error.full_key), f"give {error.full_key} a value of the right kind") from error
    except OmegaConfBaseException as error:
        key = str(error.full_key or error.key)
        raise UserError(str(error).splitlines()[0], key, did_you_mean(key, RunConfig.__dataclass_fields__)) from error
    assert isinstance(config, RunConfig)
    # Hydra reads the word nan as a number.
    config.protocol = {n: "nan" if isinstance(v, float) and math.isnan(v) else v for n, v in config.protocol.items()}
    problems = config.problems()
    if problems:
        raise UserError("; ".join(problems), "the run's options", "see conf/config.yaml for what each may be")
    return config


def instantiate(group: str, node: dict[str, Any]) -> Any:
    """Build the object that an option names by ``_target_``; None for an option without one (``refiner=none``,
    ``features=memory``, ``namer=none``, ``tracker=none``).

    ``suggests`` is for other options' defaults and is not passed on.

    Raises:
        UserError: the target can't be found, or refuses its arguments.
    """
    if not isinstance(node, dict):
        raise UserError(f"{group}={node} is no option", group, did_you_mean(str(node), _options(group)))
    arguments = {name: value for name, value in node.items() if name != "suggests"}
    if arguments.get("_target_") is None:
        if group not in _OPTIONAL:
            raise UserError(f"{group} has no _target_", group, did_you_mean("", _options(group)))
        return None
    try:
        return hydra.utils.instantiate(arguments, _convert_="all")
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, UserError):
            cause = cause.__cause__
        if cause is not None:
            raise cause from error
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        where = f"{group}={arguments['_target_']}"
        raise UserError(" ".join(f"{root}".split()), where, f"check the values of {group}.*") from error


def build_protocol(node: dict[str, Any]) -> Protocol:
    """The protocol, every field checked.

    Raises:
        UserError: listing every field out of range.
    """
    try:
        return Protocol(**node)
    except TypeError as error:
        raise UserError(str(error), "protocol", f"fields: {', '.join(Protocol.__dataclass_fields__)}") from error
    except ValueError as error:
        raise UserError(str(error), f"protocol={node.get('name')}", "see conf/protocol/ for the sets") from error


def quote_if_needed(override: str) -> str:
    """Quote a value that Hydra's grammar can't read, such as a path with brackets or blanks."""
    key, separator, value = override.partition("=")
    if not separator:
        return override
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return f"{key}={quoted(value)}"
    return override


def quoted(value: str) -> str:
    """A value that Hydra's grammar takes as it is."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def expand_sweep(overrides: Sequence[str]) -> list[list[str]]:
    """Overrides of every cell: the product of comma lists, ``choice()`` and ``range()``, in Hydra's order.

    Raises:
        UserError: an override can't be read.
    """
    alternatives = []
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(quote_if_needed(text))
            if override.is_sweep_override():
                key = override.get_key_element()
                values = list(override.sweep_string_iterator())
                if override.is_range_sweep():
                    # Hydra adds up steps, and 0.7000000000000001 would be another cell than 0.7.
                    values = [f"{float(value):.12g}" for value in values]
                alternatives.append([f"{key}={value}" for value in values])
            else:
                alternatives.append([text])
        except HydraException as error:
            raise UserError(f"{text!r} is no override", text, "write overrides as key=value or key=a,b") from error
    return [list(cell) for cell in itertools.product(*alternatives)]


def _explain(overrides: Sequence[str], error: Exception) -> UserError:
    """The user error for what Hydra refused; the culprit is the first override that fails with those before it."""
    culprit, reason = "conf/", error
    for end in range(1, len(overrides) + 1):
        try:
            with initialize_config_dir(str(conf_dir()), version_base="1.3"):
                compose("config", list(overrides[:end]))
        except (HydraException, OmegaConfBaseException, ValueError, TypeError) as failure:
            culprit, reason = overrides[end - 1], failure
            break
    key, separator, value = culprit.partition("=")
    if not separator:
        return UserError(
            f"{culprit!r} is no override", culprit, "write overrides as key=value, such as segmenter.tau=0.4"
        )
    if key in GROUPS and isinstance(reason, (MissingConfigException, TypeError, ValueError)):
        options = getattr(reason, "options", None) or _options(key)
        return UserError(f"unknown option {key}={value}", culprit, did_you_mean(value, options))
    if "Ambiguous value" in str(reason):
        return UserError(f"{key} has several values", culprit, f"add -m for a sweep, or quote it: \"{key}='{value}'\"")
    name = key.lstrip("+~").split("@")[0]
    known = _known_keys(overrides)
    if name not in known:
        return UserError(f"unknown key {name}", culprit, _closest(name, known))
    return UserError(re.sub(r"\s+", " ", str(reason)).strip(), culprit, "see conf/ for what each option takes")


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def _known_keys(overrides: Sequence[str]) -> set[str]:
    """Dotted keys of the config with the group options that the user chose."""
    choices = []
    for override in overrides:
        group, _, option = override.partition("=")
        if group in GROUPS and option in _options(group):
            choices.append(override)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        node: Any = OmegaConf.to_container(compose("config", choices))

    def walk(tree: dict[Any, Any], prefix: str) -> set[str]:
        keys = set()
        for name, value in tree.items():
            keys.add(f"{prefix}{name}")
            if isinstance(value, dict):
                keys |= walk(value, f"{prefix}{name}.")
        return keys

    return walk(node, "")


def _closest(key: str, known: set[str]) -> str:
    """Suggestions by the whole key or by its last part; otherwise the keys beside it."""
    last = key.rpartition(".")[2]
    by_last = {name for name in known if difflib.get_close_matches(last, [name.rpartition(".")[2]], cutoff=0.75)}
    close = difflib.get_close_matches(key, sorted(known), n=3, cutoff=0.7) or sorted(by_last)[:3]
    if close:
        return f"did you mean {' or '.join(close)}?"
    parent = key.rpartition(".")[0]
    beside = sorted(name for name in known if name.rpartition(".")[0] == (parent if parent in known else ""))
    return f"available: {', '.join(beside)}"
