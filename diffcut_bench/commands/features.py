"""``diffcut-bench features list|verify|clear``: what the feature store holds."""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from diffcut_bench.commands.terminal import console, say
from diffcut_bench.config import instantiate, load_config
from diffcut_bench.errors import UserError, did_you_mean
from diffcut_bench.store import StoredSet, StoreOptions, in_units, list_sets, open_set

_SHOWN = ("checkpoint", "block", "layer", "facet", "timestep", "unet_dtype")


def features(options: argparse.Namespace) -> int:
    """List sets, check every stored value (1 where some are damaged), or delete sets."""
    names = [word for word in options.overrides if "=" not in word]
    config = load_config([word for word in options.overrides if "=" in word])
    store = instantiate("features", config.features)
    if not isinstance(store, StoreOptions):
        raise UserError("features=memory keeps nothing", "diffcut-bench features", "features=store")
    sets = list(list_sets(Path(store.folder)))
    known = [found.folder.name for found in sets]
    for name in names:
        if name not in known and name != "all":
            raise UserError(f"no set {name!r}", store.folder, did_you_mean(name, known))
    chosen = [found for found in sets if not names or found.folder.name in names or "all" in names]
    if options.action == "clear":
        return _clear(chosen, names)
    if options.action == "list":
        return _list(chosen, Path(store.folder))
    damaged = verify_sets(chosen)
    if damaged:
        console.print("the next run computes what is missing; `diffcut-bench features clear` deletes whole sets")
    return 1 if damaged else 0


def _list(sets: list[StoredSet], folder: Path) -> int:
    table = Table(header_style="bold", show_edge=False, pad_edge=False)
    for name in ("set", "images", "size", "what"):
        table.add_column(name, justify="right" if name in ("images", "size") else "left", overflow="fold")
    for found in sets:
        damaged = f", {found.damaged} damaged shards set aside" if found.damaged else ""
        table.add_row(found.folder.name, str(found.images), in_units(found.size), escape(_what(found)) + damaged)
    if sets:
        console.print(table)
    total = sum(found.size for found in sets)
    say(f"{len(sets)} sets, {in_units(total)} in {folder.absolute()}")
    return 0


def _what(found: StoredSet) -> str:
    if found.identity is None:
        return "key.json can't be read"
    backbone = found.identity.get("backbone", {})
    flat: dict[str, Any] = backbone | {name: value for name, value in found.identity.items() if name != "backbone"}
    said = [f"{name} {flat[name]}" for name in ("crop", "image_size", *_SHOWN, "device_type") if name in flat]
    return ", ".join([*said, _kept(backbone, str(flat.get("dtype", "")))])


def _kept(backbone: dict[str, Any], dtype: str) -> str:
    """Precision of a set, and what it was computed in if that says more: the store rounds where it is told to."""
    computed = backbone.get("dtype", backbone.get("unet_dtype", "float32"))
    if backbone.get("features") == "self-attention":  # aggregated in float32 whatever the network computes in
        computed = "float32"
    return f"{dtype}, as computed" if dtype == computed else f"{dtype}, computed in {computed}"


def verify_sets(sets: Sequence[StoredSet]) -> int:
    """Read every value of sets, and say how each is; the number of things that are damaged."""
    damaged = 0
    for found in sets:
        try:
            intact, bad = open_set(found.folder).verify()
        except UserError as error:
            damaged += 1
            say(f"{found.folder.name}: {error.what}")
            continue
        damaged += len(bad)
        state = f"{intact} images intact" + "".join(f"; {name} damaged, set aside" for name in bad)
        say(f"{found.folder.name}: {state}")
    return damaged


def _clear(sets: list[StoredSet], names: list[str]) -> int:
    if not names:
        raise UserError(
            "name what to delete", "diffcut-bench features clear", "features clear SET…, or features clear all"
        )
    for found in sets:
        shutil.rmtree(found.folder)
        say(f"deleted {found.folder.name}, {in_units(found.size)}")
    return 0
