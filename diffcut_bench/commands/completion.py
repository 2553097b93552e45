"""``diffcut-bench completion``: what a shell needs to complete a command line.

A press of Tab waits for this, so it reads names of files and yaml files, and imports neither torch nor Hydra.
"""

import argparse
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from diffcut_bench.commands.arguments import COMMANDS, add_config_flags
from diffcut_bench.commands.terminal import say
from diffcut_bench.errors import UserError, did_you_mean
from diffcut_bench.extensions import option_folders
from diffcut_bench.paths import conf_dir, read_regular

_BASH = """\
_diffcut_bench() {
    local word="${COMP_LINE:0:COMP_POINT}" IFS=$'\\n'
    word="${word##*[[:space:]]}"
    COMPREPLY=($("$1" completion candidates "${COMP_LINE:0:COMP_POINT}" 2>/dev/null))
    # Readline takes what follows a = or : as a word of its own.
    local before=""
    [[ $word == *[=:]* ]] && before="${word%"${word##*[=:]}"}"
    COMPREPLY=("${COMPREPLY[@]#"$before"}")
    [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace
}
complete -o default -F _diffcut_bench diffcut-bench
"""
_ZSH = """\
#compdef diffcut-bench
_diffcut_bench() {
    local -a found
    found=("${(@f)$("$words[1]" completion candidates "${(j: :)${(@)words[1,CURRENT]}}" 2>/dev/null)}")
    found=(${found:#})
    (( $#found )) || { compset -P '*='; _files; return }
    compadd -Q -S '' -- ${(M)found:#*=}
    compadd -Q -- ${found:#*=}
}
compdef _diffcut_bench diffcut-bench
"""
_FISH = """\
complete -c diffcut-bench -a '(diffcut-bench completion candidates (commandline -cp) 2>/dev/null)'
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
_WORDS = {"doctor": ("backbone", "dataset"), "completion": tuple(_SCRIPTS)}  # that no parser knows
_OF_PLUGINS = {"hydra/sweeper": ("basic", "optuna")}  # options that no file here has
_NOT_OF_A_RUN = ("reproduction", "hydra")  # folders of conf/ that are no group
_PLAIN = re.compile(r"[\w./,=+~:@%-]+")


def completion(options: argparse.Namespace) -> int:
    """Print the script of a shell, or (which the script calls) how the last word of a line can be completed.

    Raises:
        UserError: no such shell.
    """
    words = options.overrides
    if len(words) == 2 and words[0] == "candidates":
        say("\n".join(candidates(words[1])))
        return 0
    if len(words) != 1 or words[0] not in _SCRIPTS:
        where = " ".join(["diffcut-bench completion", *words])
        raise UserError("name your shell", where, did_you_mean(words[0] if words else "", _SCRIPTS))
    say(_SCRIPTS[words[0]].rstrip())
    return 0


def candidates(line: str) -> list[str]:
    """Whole words that the last word of a command line, which may be empty, can become.

    Options are named by files, which may be of anyone: a word that a shell would not take as it is, is left out.
    """
    words = re.split(r"\s+", line.lstrip())
    start = next((index for index, word in enumerate(words) if word.rpartition("/")[2] == "diffcut-bench"), 0)
    words = words[start + 1 :]
    if len(words) < 2:
        found: Iterator[str] = iter([*COMMANDS, "--debug", "--help", "--version"])
    else:
        found = _of_command(words[0], words[1:-1], words[-1])
    return sorted({each for each in found if each.startswith(words[-1]) and _PLAIN.fullmatch(each)}) if words else []


def _of_command(command: str, before: Sequence[str], word: str) -> Iterator[str]:
    if word.startswith("-"):
        yield from _flags(command)
        return
    choices = _choices(command)
    if before and before[-1] in choices:
        yield from choices[before[-1]]
        return
    if not [each for each in before if "=" not in each and not each.startswith("-")]:
        yield from (*choices.get("", ()), *_WORDS.get(command, ()))
        if command == "reproduce":
            yield from _options("reproduction", _folders(before))
    elif command == "data":
        yield from _options("dataset", _folders(before))
    if command == "completion":
        return
    bare = word.lstrip("+~")
    mark, (key, is_value, value) = word[: len(word) - len(bare)], bare.partition("=")
    folders = _folders(before)
    groups = _groups(folders)
    if is_value and key in groups:
        several = word[: word.rindex(",") + 1] if "," in value else f"{mark}{key}="
        yield from (f"{several}{option}" for option in (*_options(key, folders), *_OF_PLUGINS.get(key, ())))
    elif not is_value:
        end = "" if mark == "~" else "="
        yield from (f"{mark}{group}{end}" for group in groups)
        names = (name for name in _yaml(conf_dir() / "config.yaml") if name not in ("defaults", "hydra"))
        yield from (f"{mark}{name}{end}" for name in names)
        group = key.partition(".")[0]
        if "." in key and group in groups:
            yield from (f"{mark}{group}.{name}{end}" for name in _settings_of(group, before, folders))


def _flags(command: str) -> list[str]:
    """Long flags of a command; those that its help hides are hidden here."""
    shown = [action for action in _parser(command)._actions if action.help != argparse.SUPPRESS]
    return [flag for action in shown for flag in action.option_strings if flag.startswith("--")]


def _choices(command: str) -> dict[str, list[str]]:
    """What may follow a flag, by the flag; by the empty text what the command's first word may be."""
    actions = [action for action in _parser(command)._actions if action.choices is not None]
    return {flag: [*map(str, action.choices or ())] for action in actions for flag in action.option_strings or [""]}


def _parser(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    known = COMMANDS.get(command)
    if known is not None and command != "completion":
        add_config_flags(parser)
    if known is not None and known.add_arguments is not None:
        known.add_arguments(parser)
    return parser


def _folders(before: Sequence[str]) -> list[Path]:
    """conf/, the folders of the user's own that the line names, and those of installed packages."""
    named = [word for flag, word in pairwise(before) if flag in ("-cd", "--config-dir")]
    for word in before:
        key, _, value = word.partition("=")
        if key.lstrip("+") in ("--config-dir", "hydra.searchpath"):
            named += [each.strip("'\"").removeprefix("file://") for each in value.strip("[]").split(",")]
    return [conf_dir(), *(Path(each).expanduser() for each in named), *option_folders()]


def _groups(folders: Sequence[Path]) -> list[str]:
    found = [
        path.name for folder in folders for path in folder.glob("*/") if path.is_dir() and any(path.glob("*.yaml"))
    ]
    return [*dict.fromkeys(name for name in found if name not in _NOT_OF_A_RUN), "hydra/launcher", *_OF_PLUGINS]


def _options(group: str, folders: Sequence[Path]) -> list[str]:
    return [path.stem for folder in folders for path in (folder / group).glob("*.yaml")]


def _yaml(path: Path) -> dict[str, Any]:
    try:
        read = yaml.safe_load(read_regular(str(path)).decode())
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return {str(name): value for name, value in read.items()} if isinstance(read, dict) else {}


def _settings(path: Path, seen: Sequence[Path] = ()) -> list[str]:
    """What the yaml of an option sets, with what the files of its own group set that it begins with, unless they were
    ``seen``."""
    own = _yaml(path) if path not in seen else {}
    defaults = own.get("defaults")
    entries = defaults if isinstance(defaults, list) else []
    first = [entry.partition("@")[0] for entry in entries if isinstance(entry, str)]
    others = [path.parent / f"{entry}.yaml" for entry in first if entry != "_self_"]
    found = [name for other in others for name in _settings(other, [*seen, path])]
    return [*found, *(name for name in own if name != "defaults")]


def _settings_of(group: str, before: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Settings of the option of a group that the line chooses, or of the default."""
    chosen = [word.partition("=")[2] for word in before if word.partition("=")[0] == group]
    defaults = _yaml(conf_dir() / "config.yaml").get("defaults", ())
    chosen = chosen or [entry[group] for entry in defaults if isinstance(entry, dict) and group in entry]
    names = [name for option in f"{chosen[-1]}".split(",") for name in _named(group, option, folders)] if chosen else []
    return [name for name in names if not name.startswith("_")]


def _named(group: str, option: str, folders: Sequence[Path]) -> Iterator[str]:
    for folder in folders:
        yield from _settings(folder / group / f"{option}.yaml")
