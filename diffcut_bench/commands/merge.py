"""``diffcut-bench merge``: finished shards of a cell become the whole cell."""

import argparse
import shlex
from pathlib import Path

from diffcut_bench.commands.passes import say_cell, say_failures
from diffcut_bench.commands.terminal import console, errors
from diffcut_bench.config import load_config, option_words, trusted
from diffcut_bench.errors import UserError
from diffcut_bench.paths import expanded
from diffcut_bench.reporting import results_table
from diffcut_bench.scoring.identity import NUMERICS_VERSION
from diffcut_bench.scoring.shards import ShardedCell, find_shards, merge, missing_overrides, sharded_cells


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flag beside the overrides."""
    parser.add_argument(
        "--from",
        action="append",
        default=[],
        dest="others",
        metavar="DIR",
        help="output folder of another machine, or a copy of it, to look for shards in; may be repeated",
    )


def merge_shards(options: argparse.Namespace) -> int:
    """Merge every cell whose shards are all there, name the others; 2 where none is complete."""
    config = load_config(options.overrides)
    if config.if_exists == "resume":
        raise UserError("there is nothing to resume in a merge", "if_exists=resume", "if_exists=skip or overwrite")
    places = [Path(config.output_dir), *(Path(expanded(word, "--from")) for word in options.others)]
    for place in places[1:]:
        if not (place / "results").is_dir():
            raise UserError("no results here", str(place / "results"), "name the output_dir that the shards ran with")
    shards, left_out = find_shards(list(dict.fromkeys(places)))
    for folder, why in left_out.items():
        errors.print(f"left out: {folder}\n  {why}", highlight=False, markup=False, soft_wrap=True)
    cells = sharded_cells(shards)
    merged = [merge(cell, places[0], config.if_exists) for cell in cells if not cell.missing]
    for cell in merged:
        say_cell(cell)
    if merged:
        results_table([(cell.folder, cell.result) for cell in merged]).print(console)
        say_failures([cell.result for cell in merged])
    complete = {cell.key for cell in cells if not cell.missing}
    for sharded in cells:
        if sharded.missing and sharded.key not in complete:
            _say_incomplete(sharded)
    if not shards:
        raise UserError(
            "no finished shards", ", ".join(f"{place / 'results'}" for place in places), "run with shard=1/2, shard=2/2"
        )
    return 0 if merged else 2


def _say_incomplete(cell: ShardedCell) -> None:
    """What a cell lacks, and the command that computes it. A command that somebody will type names no code that only a
    file asks for."""
    wanted = [f"{number}/{cell.of}" for number in cell.missing]
    version = cell.found[0].result.identity.get("numerics_version")
    if version != NUMERICS_VERSION:  # the others would be of this one, and no whole
        wanted = [f"{number}/{cell.of}" for number in range(1, cell.of + 1)]
    config = cell.found[0].result.config
    doubt = ""
    try:
        trusted(config)
        own = missing_overrides(cell)
    except UserError as error:
        own, doubt = option_words(config.get("choices"), ()), f"  add its own values: {error.what} ({error.where})"
    command = ["diffcut-bench", "run", *(["-m"] if len(wanted) > 1 else [])]
    command += [word for word in own if not word.startswith("shard=")] + [f"shard={','.join(wanted)}"]
    lacking = ", ".join(f"{number}/{cell.of}" for number in cell.missing)
    how = "" if version == NUMERICS_VERSION else " all anew, since an earlier version computed what is there"
    what = f"incomplete: {cell.found[0].folder.name} and its kin lack shard {lacking}; to compute{how}:"
    for line in (what, f"  {shlex.join(command)}", *([doubt] if doubt else [])):
        errors.print(line, highlight=False, markup=False, soft_wrap=True)
