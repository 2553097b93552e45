"""Hydra's own flags: those that work here, and for each other one what to type instead."""

import argparse

from diffcut_bench.commands.terminal import say
from diffcut_bench.config import is_launcher, is_sweeper, load_config, part_of_composed, show_composed
from diffcut_bench.errors import UserError

INSTEAD = {
    "--cfg": "it is a flag of run: diffcut-bench run --cfg job KEY=VALUE …",
    "-c": "it is a flag of run: diffcut-bench run --cfg job KEY=VALUE …",
    "--info": "it is a flag of run: diffcut-bench run --info",
    "-i": "it is a flag of run: diffcut-bench run --info",
    "--hydra-help": "it is a flag of run: diffcut-bench run --hydra-help",
    "--shell-completion": 'eval "$(diffcut-bench completion bash)"; zsh and fish too: diffcut-bench completion --help',
    "-sc": 'eval "$(diffcut-bench completion bash)"; zsh and fish too: diffcut-bench completion --help',
    "--experimental-rerun": "give the same command again: a finished cell is found, an interrupted one goes on",
    "--run": "leave it out: a run without -m is one cell",
    "-r": "leave it out: a run without -m is one cell",
    "--multirun": "it is a flag of run: diffcut-bench run -m KEY=A,B …",
    "-m": "it is a flag of run: diffcut-bench run -m KEY=A,B …",
    "--version": "diffcut-bench --version",
}
_HELP = """\
What of Hydra works here; more in docs/hydra.md

group=option         segmenter=kmeans; Tab completes it: completion --help
key=value            segmenter.tau=0.4; conf/config.yaml tells those of a run
+key ++key ~key      add, set whether it is there or not, remove
experiment=NAME      a preset of conf/experiment/ or of yours; +experiment too
--config-dir DIR     DIR/segmenter/, DIR/experiment/ … hold options of your own;
                     hydra.searchpath=[DIR] is the same
-m key=a,b           a sweep; choice(a,b), range(0.3,0.9,0.2), glob(k*) as well
  hydra/launcher=    joblib, ray, submitit_slurm …: docs/scaling.md
  hydra/sweeper=     optuna: 'segmenter.tau=interval(0.3,0.8)' is searched, not
                     walked through; hydra.sweeper.n_trials=20
--cfg job            what is composed, instead of a run; hydra, all too;
                     with --resolve, and --package GROUP for a part of it
--info KIND          how it is composed: all, config, defaults, defaults-tree,
                     plugins, searchpath

What is another word here
--config-name NAME   experiment=NAME: there is one config, and presets change it
--config-path DIR    --config-dir DIR
--shell-completion   diffcut-bench completion bash|zsh|fish
hydra.run.dir=DIR    output_dir=DIR: a cell's folder there has a name of its own
"""


def shown_instead(options: argparse.Namespace) -> bool:
    """Print what Hydra's flags ask for; whether there was any.

    Raises:
        UserError: an override is wrong, or a flag has no effect.
    """
    if options.hydra_help:
        say(_HELP.rstrip())
        return True
    flags = ["--cfg", options.cfg] if options.cfg else ["--info", options.info] if options.info else []
    if not options.cfg and (options.resolve or options.package):
        raise UserError("--resolve and --package say how --cfg prints", "diffcut-bench run", "add --cfg job")
    if not flags:
        return False
    if options.multirun:
        raise UserError(f"{flags[0]} is of one cell", f"{flags[0]} -m", "leave -m out, and give each key one value")
    load_config([word for word in options.overrides if not is_launcher(word) and not is_sweeper(word)])
    flags += ["--resolve"] if options.resolve else []
    if options.package:
        if part_of_composed(options.cfg, options.package, options.overrides) is None:
            say("null")  # Hydra takes it for a part that is not there
            return True
        flags += ["--package", options.package]
    show_composed(flags, options.overrides)
    return True
