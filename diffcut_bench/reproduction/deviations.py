"""What makes a cell of the user's another one than the published: settings, released files, rounded features."""

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from diffcut_bench.config import GROUPS, RunConfig
from diffcut_bench.environment import device_type
from diffcut_bench.paths import read_regular
from diffcut_bench.reproduction.spec import Row
from diffcut_bench.scoring.features import networks_of, outline_of

# Settings that say where things lie or how fast they are computed, not what is computed.
_UNREAD = {
    "dataset": {"root"},
    "backbone": {"model", "variant", "compile", "channels_last"},
    "segmenter": {"folder", "pattern", "checkpoint", "max_memory_gib"},
    "namer": {"model"},
}
# What the released computation used where an option's default depends on the machine: asking for it is no deviation.
_RELEASED = {
    "backbone": {"generator": "cuda", "vae_dtype": "float32", "unet_dtype": "float16", "prompt_dtype": "float16"}
}


def judged_by_content(deviations: Sequence[str], row: Row, column: str, config: RunConfig) -> tuple[str, ...]:
    """The deviations, where an option that takes a released file is one unless it has that file, wherever it lies."""
    by_content = {file.option for file in row.files}
    words = [word.partition("=") for word in deviations]
    # A table is shown to others: of a file its name, not whose folder it lies in.
    told = [(option, Path(value).name if option.endswith("_file") else value) for option, _, value in words]
    found = [f"{option}={value}" for option, value in told if option not in by_content]
    for file in row.files:
        group, _, name = file.option.partition(".")
        settings = getattr(config, group)
        if name not in settings:  # such as segments that the user gives, which are not named
            continue
        path = settings[name]
        if path is None:
            found.append(f"{file.what} are our own, not the released ones, which {file.option}=FILE takes")
        elif _sha256(path) != file.sha256.get(column):
            found.append(f"{file.what} of {file.option} are not the released ones")
    return tuple(found)


def _sha256(path: str) -> str | None:
    """Of a file's bytes; None where it can't be read, which its cell will say."""
    try:
        return sha256(read_regular(path)).hexdigest()
    except OSError:
        return None


def deviations_of(planned: RunConfig, actual: RunConfig) -> tuple[str, ...]:
    """What the user's overrides changed of what decides the value."""
    found = []
    for group in (group for group in GROUPS if group not in ("features", "tracker")):
        if planned.choices.get(group) != actual.choices.get(group):
            found.append(f"{group}={actual.choices.get(group)}")
            if group == "backbone" and len(set(actual.backbone.get("weights") or ())) > 1:
                found.append(f"backbone.weights={actual.backbone['weights']}")
            if group == "linker" and actual.linker.get("clusters"):
                found.append(f"linker.clusters={actual.linker['clusters']}")
            if group == "linker" and actual.linker.get("backbone"):
                found.append(f"linker.backbone={actual.choices.get('linker.backbone')}")
            continue
        before, after = _flat(getattr(planned, group)), _flat(getattr(actual, group))
        unread = set(_UNREAD.get(group, set()))
        if group == "backbone":
            before, after = ({**each, **_drawn_on(each, actual.device)} for each in (before, after))
            unread |= {"seed", "generator"} if after.get("noise") is False else set()
        for name in sorted({*before, *after}):
            own_name = name.rpartition(".")[2]  # within a part of a fused backbone
            if own_name in unread:
                continue
            if own_name == "revision" and is_commit(after.get(name)) and not is_commit(before.get(name)):
                continue  # in the place of a branch or tag: no other weights are known to be meant
            choice = f"name_{name}" if group == "namer" else name  # as the protocol calls it
            pairs = ((planned.protocol, before), (actual.protocol, after))
            if group != "protocol" and all(choice in of and own.get(name) == of[choice] for of, own in pairs):
                continue  # of another protocol, which is told already
            if after.get(name) not in (before.get(name), _RELEASED.get(group, {}).get(own_name, before.get(name))):
                found.append(f"{group}.{name}={after.get(name)}")
    found += _kept_otherwise(planned, actual)
    of_run = ("smallest_segment", "limit", "shard", "seed")
    differ = [name for name in of_run if getattr(actual, name) != getattr(planned, name)]
    return (*found, *(f"{name}={getattr(actual, name)}" for name in differ))


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of an option, those of a fused backbone's parts as ``parts.ssd1b.timestep``."""
    parts = settings.get("parts") if "of" in settings else None
    if not isinstance(parts, dict):
        return dict(settings)
    of_parts = {f"parts.{part}.{name}": value for part, own in parts.items() for name, value in own.items()}
    return {name: value for name, value in settings.items() if name != "parts"} | of_parts


def _kept_otherwise(planned: RunConfig, actual: RunConfig) -> list[str]:
    """The precision of stored features, which are what is segmented, if it is not the planned one."""
    before, after = (config.features.get("dtype", "auto") for config in (planned, actual))
    if before == after:
        return []
    outlines = [outline_of(network, device_type(actual.device)) for network in networks_of(actual)]
    computed = {"float32" if each is None else str(each.dtype).removeprefix("torch.") for each in outlines}
    # Without loss is also float32, which holds whatever was computed.
    without_loss = {"auto", "float32"} | (computed if len(computed) == 1 else set())
    return [] if {before, after} <= without_loss else [f"features.dtype={after}"]


def _drawn_on(backbone: Mapping[str, Any], device: str) -> dict[str, str]:
    """Where a backbone's noise is drawn, if it draws any: by itself, where it is computed."""
    return {"generator": device_type(device)} if backbone.get("generator") == "auto" else {}


def is_commit(revision: object) -> bool:
    """Whether a revision of the hub is a commit, and no branch or tag."""
    return re.fullmatch("[0-9a-f]{40}", str(revision)) is not None
