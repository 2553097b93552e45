"""``diffcut-bench export``: results as tidy tables, a leaderboard and a data set of the Hugging Face hub."""

import argparse
import re
import shlex
import shutil
from pathlib import Path

from diffcut_bench.commands.terminal import say, warn_left_out
from diffcut_bench.commands.words import split_words
from diffcut_bench.config import load_config
from diffcut_bench.errors import UserError
from diffcut_bench.escaping import counted
from diffcut_bench.exporting import export_results
from diffcut_bench.paths import expanded


def export(options: argparse.Namespace) -> int:
    """Write a folder that can be given away, and say how it gets to the hub; nothing is sent.

    Raises:
        UserError: there are no results, or the folder holds something else.
    """
    names, overrides = split_words([options.folder, *options.overrides])
    if len(names) != 1:
        what = "results are exported into one folder"
        raise UserError(what, " ".join(names) or "no folder is named", "diffcut-bench export DIR output_dir=outputs")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", options.license):
        raise UserError(
            "this is no licence of the hub's", f"--license {options.license}", "such as --license cc-by-4.0"
        )
    config, target = load_config(overrides), Path(expanded(names[0], "DIR"))
    folders = [Path(config.output_dir), *(Path(expanded(word, "--from")) for word in options.others)]
    for folder in folders[1:]:
        if not (folder / "results").is_dir():
            raise UserError("no results here", str(folder / "results"), "name the output_dir that the runs were given")

    written = export_results([*dict.fromkeys(folders)], target, config.score, options.license, warn_left_out)
    what = f"{counted(written.cells, 'cell')}, {counted(written.images, 'row')} of images"
    say(f"tables   {what}: {target / 'cells.csv'}, cells.parquet, classes, per_image")
    say(f"ranks    {counted(written.boards, 'board')}: {target / 'leaderboard.json'}")
    if written.covered:
        say(f"shards   {written.covered} of merged cells are left out")
    say(f"card     {target / 'README.md'} (licence: {options.license}; another one with --license)")
    say(f"to share hf upload OWNER/NAME {shlex.quote(str(target))} --repo-type dataset")
    if shutil.which("hf") is None:
        say("         there is no command hf here: pip install -U huggingface_hub")
    return 0
