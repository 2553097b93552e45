"""``diffcut-bench merge``: finished shards of a cell become the whole cell."""

import argparse
from pathlib import Path

from diffcut_bench.commands.passes import TerminalObserver, say_cells
from diffcut_bench.commands.terminal import warn
from diffcut_bench.config import load_config
from diffcut_bench.errors import UserError
from diffcut_bench.paths import expanded
from diffcut_bench.scoring import shards


def merge(options: argparse.Namespace) -> int:
    """Merge every cell whose shards are all there, name the others; 2 where none is complete."""
    config = load_config(options.overrides)
    if config.if_exists == "resume":
        raise UserError("there is nothing to resume in a merge", "if_exists=resume", "if_exists=skip or overwrite")
    folders = [Path(config.output_dir), *(Path(expanded(word, "--from")) for word in options.others)]
    for folder in folders[1:]:
        if not (folder / "results").is_dir():
            raise UserError("no results here", str(folder / "results"), "name the output_dir that the shards ran with")
    found, left_out = shards.find_shards(list(dict.fromkeys(folders)))
    for path, why in left_out.items():
        warn(f"left out: {path}\n  {why}")
    cells = shards.sharded_cells(found)
    merged = [
        shards.merge(cell, folders[0], config.if_exists, TerminalObserver()) for cell in cells if not cell.missing
    ]
    if merged:
        say_cells(merged, config)
    complete = {cell.key for cell in cells if not cell.missing}
    for cell in cells:
        if cell.key not in complete:
            warn(shards.what_is_missing(cell))
    if not found:
        where = ", ".join(f"{folder / 'results'}" for folder in folders)
        raise UserError("no finished shards", where, "run with shard=1/2, shard=2/2")
    return 0 if merged else 2
