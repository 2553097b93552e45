"""Hydra's own flags: those that work here, and for each other one what to type instead."""

import argparse

from diffcut_bench.commands.terminal import say
from diffcut_bench.config import is_launcher, load_config, quoted, show_composed
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
}
_HELP = """\
What of Hydra works here

options of a group    segmenter=kmeans          diffcut-bench completion bash|zsh|fish completes them
values                segmenter.tau=0.4         conf/config.yaml describes those of a run
presets               experiment=NAME           conf/experiment/, or DIR/experiment/ with --config-dir DIR
options of your own   --config-dir DIR          as hydra.searchpath=[DIR]; DIR holds segmenter/, dataset/ …
sweeps                -m segmenter.tau=0.3,0.5  also range(0.3,0.8,0.1), choice(), and glob(*) for options of a group
launchers             -m hydra/launcher=joblib  conf/hydra/launcher/; docs/scaling.md
what is composed      --cfg job|hydra|all       with --resolve, and --package GROUP for a part of it
how it is composed    --info [KIND]             all, config, defaults, defaults-tree, plugins, searchpath

Instead of
--config-name NAME    experiment=NAME: there is one config, and presets change it
--config-path DIR     --config-dir DIR
--shell-completion    diffcut-bench completion bash|zsh|fish
hydra/sweeper=optuna  -m segmenter.tau=0.3,0.4,0.5: every tau of one recursion; or diffcut-bench tune
hydra.run.dir=DIR     output_dir=DIR: a cell's folder there has a name of its own
"""
_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of every command that takes overrides."""
    add = parser.add_argument
    add("-cd", "--config-dir", metavar="DIR", action="append", default=[], help="a folder with options of your own")
    add("-cn", "--config-name", metavar="NAME", default="config", help=argparse.SUPPRESS)
    add("-cp", "--config-path", metavar="DIR", help=argparse.SUPPRESS)


def with_config_flags(options: argparse.Namespace) -> list[str]:
    """The words of a command line, with what its flags of `add_config_flags` stand for.

    Raises:
        UserError: one of them does not work here.
    """
    words: list[str] = options.overrides
    if options.config_name not in ("config", "config.yaml"):
        hint = "write it as a preset, DIR/experiment/NAME.yaml: --config-dir DIR experiment=NAME"
        raise UserError("there is one config, conf/config.yaml", f"--config-name {options.config_name}", hint)
    if options.config_path is not None:
        hint = f"--config-dir {options.config_path} adds a folder with options of your own"
        raise UserError("conf/ of the package is always read", f"--config-path {options.config_path}", hint)
    if not options.config_dir:
        return words
    if any(word.partition("=")[0].lstrip("+") == "hydra.searchpath" for word in words):
        given = " ".join(f"--config-dir {folder}" for folder in options.config_dir)
        raise UserError("--config-dir is hydra.searchpath, which is given too", given, "use one of the two")
    return [f"hydra.searchpath=[{','.join(map(quoted, options.config_dir))}]", *words]


def add_hydra_flags(parser: argparse.ArgumentParser) -> None:
    """Flags by which Hydra says what it composes."""
    add = parser.add_argument
    add("-c", "--cfg", choices=("job", "hydra", "all"), help="print the composed config instead of a run")
    add("--resolve", action="store_true", help="with --cfg: resolve ${…}")
    add("-p", "--package", metavar="GROUP", help="with --cfg: print this part of it only")
    add("-i", "--info", nargs="?", const="all", choices=_INFO, help="print how the config is composed")
    add("--hydra-help", action="store_true", help="print what of Hydra works here")


def shown_instead(options: argparse.Namespace) -> bool:
    """Print what the flags of `add_hydra_flags` ask for; whether there was any.

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
    load_config([word for word in options.overrides if not is_launcher(word)])
    flags += ["--resolve"] if options.resolve else []
    flags += ["--package", options.package] if options.package else []
    show_composed(flags, options.overrides)
    return True
