"""``diffcut-bench features list|verify|clear``: what the feature store holds."""

import argparse
import shutil
from collections.abc import Iterable
from pathlib import Path

from diffcut_bench.commands.terminal import console, progress, say
from diffcut_bench.commands.words import split_words
from diffcut_bench.config import instantiate, load_config
from diffcut_bench.errors import UserError, did_you_mean
from diffcut_bench.reporting import Column, Table, number_columns
from diffcut_bench.store import StoredSet, StoreOptions, in_units, list_sets


def features(options: argparse.Namespace) -> int:
    """List sets, check every stored value (1 where some are damaged), or delete sets."""
    names, overrides = split_words(options.overrides)
    store = instantiate("features", load_config(overrides).features)
    if not isinstance(store, StoreOptions):
        raise UserError("features=memory keeps nothing", "diffcut-bench features", "features=store")
    if options.action == "clear" and not names:
        hint = "features clear SET…, or features clear all"
        raise UserError("name what to delete", "diffcut-bench features clear", hint)
    sets = {found.folder.name: found for found in list_sets(Path(store.folder))}
    for name in names:
        if name not in sets and name != "all":
            raise UserError(f"no set {name!r}", store.folder, did_you_mean(name, sets))
    chosen = [found for name, found in sets.items() if not names or name in names or "all" in names]
    if options.action == "verify":
        damaged = say_damaged(chosen)
        if damaged:
            console.print("the next run computes what is missing; `diffcut-bench features clear` deletes whole sets")
        return 1 if damaged else 0
    if options.action == "clear":
        for found in chosen:
            shutil.rmtree(found.folder)
            say(f"deleted {found.folder.name}, {in_units(found.size)}")
        return 0
    if chosen:
        _table(chosen).print(console)
    total = sum(found.size for found in chosen)
    say(f"{len(chosen)} sets, {in_units(total)} in {Path(store.folder).absolute()}")
    return 0


def say_damaged(sets: Iterable[StoredSet]) -> int:
    """Read every value of sets, and say how each is; the number of things that are damaged."""
    damaged = 0
    for found in sets:
        with progress("verifying", "images", transient=True) as report:
            line, bad = found.verify(report)
        damaged += bad
        say(line)
    return damaged


def _table(sets: Iterable[StoredSet]) -> Table:
    columns = (Column("set"), *number_columns("images", "size"), Column("what"))
    rows = []
    for found in sets:
        damaged = f", {found.damaged} damaged shards set aside" if found.damaged else ""
        rows.append((found.folder.name, str(found.images), in_units(found.size), found.describe() + damaged))
    return Table("features", "Feature sets", columns, tuple(rows))
