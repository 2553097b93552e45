"""Every command by name: its line in the overview, and what its parser takes besides ``--help`` and overrides.

Nothing here imports torch, Hydra or a command, so that ``--help``, completion and a mistyped flag answer at once.
"""

import argparse
from argparse import ArgumentParser
from collections.abc import Callable
from typing import NamedTuple

from diffcut_bench.errors import UserError
from diffcut_bench.extensions import is_searchpath, option_folders
from diffcut_bench.paths import conf_dir, paper_order

CFG_KINDS = ("all", "hydra", "job")
INFO_KINDS = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
FORMATS = ("labels", "overlay", "coco", "cvat", "explorer", "geojson", "labelme", "masks", "svg", "tree")
DEFAULT_FORMATS = "labels,overlay"
DEBUG_HELP = "raise whatever goes wrong, with Python's traceback"
_CELL = "folder, its name in results/, or the key's beginning"


class Command(NamedTuple):
    """A command: a function in the module of its name, which is imported when it is called."""

    text: str  # its line in the overview
    metavar: str = "KEY=VALUE"  # stands for the rest of the line
    add_arguments: Callable[[ArgumentParser], None] | None = None
    function: str = ""  # empty: it has the command's name


def add_config_flags(parser: ArgumentParser) -> None:
    """Flags of every command that takes overrides."""
    add = parser.add_argument
    add("-cd", "--config-dir", metavar="DIR", action="append", default=[], help="a folder with options of your own")
    add("-cn", "--config-name", metavar="NAME", default="config", help=argparse.SUPPRESS)
    add("-cp", "--config-path", metavar="DIR", help=argparse.SUPPRESS)
    add("--debug", action="store_true", help=DEBUG_HELP)  # for the help: `cli.main` takes it out of every line


def with_config_flags(options: argparse.Namespace) -> list[str]:
    """The words of a command line, with what the flags of `add_config_flags` stand for.

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
    if any(map(is_searchpath, words)):
        given = " ".join(f"--config-dir {folder}" for folder in options.config_dir)
        raise UserError("--config-dir is hydra.searchpath, which is given too", given, "use one of the two")
    from diffcut_bench.config import quoted

    return [f"hydra.searchpath=[{','.join(map(quoted, options.config_dir))}]", *words]


def _run(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("-m", "--multirun", action="store_true", help="sweep: every combination of comma lists and ranges")
    # By these Hydra says what it composes.
    add("-c", "--cfg", choices=CFG_KINDS, help="print the composed config instead of a run")
    add("--resolve", action="store_true", help="with --cfg: resolve ${…}")
    add("-p", "--package", metavar="GROUP", help="with --cfg: print this part of it only")
    add("-i", "--info", nargs="?", const="all", choices=INFO_KINDS, help="print how the config is composed")
    add("--hydra-help", action="store_true", help="print what of Hydra works here")


def _reproduce(parser: ArgumentParser) -> None:
    folders = [conf_dir(), *option_folders()]
    add, names = parser.add_argument, (path.stem for each in folders for path in each.glob("reproduction/*.yaml"))
    add("name", metavar="NAME", help=f"one of {', '.join(sorted(names, key=paper_order))}")
    add("--dry-run", action="store_true", help="print the cells, what they need and how long it takes")
    add("--tflops", metavar="N", type=float, help="10^12 operations a second of the GPU of --dry-run")
    add("--status", action="store_true", help="print how far each cell is")
    add("--under", metavar="A,B", help="protocols and background rules to score under, side by side; or all")
    segmentations = "segmentations of a row: DIR/COLUMN/*.png"
    add("--predictions", metavar="ROW=DIR", action="append", default=[], help=segmentations)
    add("--seeds", metavar="N", type=int, help="run what draws noise with N seeds: their mean and deviation")
    part = "override for the cells of a column, a row or ROW/COLUMN, such as --for voc dataset.root=DIR"
    metavar = ("PART", "KEY=VALUE")
    add("--for", dest="of_part", nargs=2, metavar=metavar, action="append", default=[], help=part)


def _report(parser: ArgumentParser) -> None:
    gallery = "N best, median and worst images a data set (default 2)"
    parser.add_argument("--gallery", type=int, default=2, metavar="N", help=gallery)
    beside = f"show its predictions beside those of the best cell of its data set: {_CELL} (may be given again)"
    parser.add_argument("--beside", action="append", default=[], metavar="CELL", help=beside)


def _export(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", metavar="DIR", help="where to write: a new or empty folder, or one of an earlier export")
    text = "output folder of somebody else, whose results join those of output_dir; may be repeated"
    add("--from", action="append", default=[], dest="others", metavar="DIR", help=text)
    add("--license", default="unknown", metavar="ID", help="of the card, such as cc-by-4.0 (default unknown)")


def _list(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--sort", choices=("date", "score", "name"), default="date", help="newest, best or A first (default date)")
    add("--unfinished", action="store_true", help="only cells that run or were interrupted")
    add("--all", action="store_true", help="also shards of merged cells")
    add("--json", action="store_true", help="an object a line, for scripts")


def _compare(parser: ArgumentParser) -> None:
    parser.add_argument("cells", nargs=2, metavar="CELL", help=_CELL)
    parser.add_argument("--draw", type=int, default=42, metavar="SEED", help="seed of the bootstrap (default 42)")
    at = "at N segments an image (without N: at several), between cells that differ from these in a number such as tau"
    parser.add_argument("--at-segments", nargs="?", const="", metavar="N", help=at)


def _show(parser: ArgumentParser) -> None:
    parser.add_argument("cell", metavar="CELL", help=_CELL)
    parser.add_argument("--images", type=int, default=5, help="best and worst images shown (default 5)")


def _tune(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--setting", default="segmenter.tau", help="what is chosen (default segmenter.tau)")
    grid = "0.35,0.55,0.75"
    add("--grid", default=grid, metavar="A,B", help=f"values to choose from (default {grid})")
    add("--images", type=int, default=200, help="training images, drawn at random (default 200)")
    add("--draw", type=int, default=42, metavar="SEED", help="seed of the draw (default 42)")
    add("--train", action="append", metavar="KEY=VALUE", help="override that makes the training split; the data set's")


def _merge(parser: ArgumentParser) -> None:
    text = "output folder of another machine, or a copy of it, to look for shards in; may be repeated"
    parser.add_argument("--from", action="append", default=[], dest="others", metavar="DIR", help=text)


def _segment(parser: ArgumentParser) -> None:
    add = parser.add_argument
    text = "name each segment: classes with commas between, synonyms with |, such as 'cat|kitten, sofa, background'"
    add("--classes", metavar="LIST", help=text)
    text = "write everything below this folder, each picture at its place in the folder that named it"
    add("-o", "--output", metavar="DIR", help=text)
    add("-r", "--recursive", action="store_true", help="of a folder, also the folders in it")
    names, default = ", ".join(FORMATS), DEFAULT_FORMATS
    text = f"what to write, with commas between: {names} (default: {default}; labels are always written)"
    add("--format", metavar="LIST", default=default, help=text)
    text = "smooth the polygons: how far their borders may move, in pixels (default: 0, the edges of pixels)"
    add("--simplify", metavar="PIXELS", type=float, default=0, help=text)
    text = "add the format explorer: a page in which a slider moves tau; segments can be walked through, downloaded"
    add("--explore", action="store_true", help=text)
    text = "pass over pictures with more pixels (width × height); they are not decoded"
    add("--limit-pixels", metavar="N", type=int, help=text)


def _data(parser: ArgumentParser) -> None:
    parser.add_argument("action", choices=("list", "prepare", "verify"))
    parser.add_argument("--download", action="store_true", help="fetch the originals first, into dataset.root")


def _features(parser: ArgumentParser) -> None:
    parser.add_argument("action", choices=("list", "verify", "clear"))


def _coherence(parser: ArgumentParser) -> None:
    def add(name: str, default: str | float, text: str, choices: tuple[str, ...] | None = None) -> None:
        text = f"{text} (default {default})"
        parser.add_argument(f"--{name}", type=type(default), choices=choices, default=default, help=text)

    of = ("across", "within", "both")
    add("pairs", "across", "patches of two different images, of the same image, or both", of)
    add("image-pairs", 1000, "at most so many pairs of images; images, under --pairs within")
    add("patches", 64, "at most so many patches an image")
    kinds = ("uniform", "balanced")
    add("sampling", "uniform", "all patches alike, or as many of each class of an image as possible", kinds)
    mixed = "patches with several classes: drop those below --purity, or take the majority's class"
    add("mixed", "drop", mixed, ("drop", "majority"))
    add("purity", 1.0, "least share of the majority class in a patch's pixels")
    add("background", "drop", "patches of the background class", ("drop", "keep"))
    add("grid", 32, "patches along the longer side of an image, for all backbones")
    parser.add_argument("--mark", metavar="ROW,COL", help="patch of the heat maps, counted from 0; needs --mark-images")
    parser.add_argument("--mark-images", metavar="A,B", help="ids of the marked patch's image and of the other one")


def _doctor(parser: ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="also what each backbone and data set has or needs")
    parser.add_argument("--short", action="store_true", help="versions and GPU driver, at once: nothing is loaded")


def _completion(parser: ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        'bash   eval "$(diffcut-bench completion bash)"    in ~/.bashrc\n'
        'zsh    eval "$(diffcut-bench completion zsh)"     in ~/.zshrc, after compinit\n'
        "fish   diffcut-bench completion fish > ~/.config/fish/completions/diffcut-bench.fish"
    )


COMMANDS = {
    "run": Command("score one cell, or a sweep with -m", add_arguments=_run),
    "reproduce": Command(
        "a table or figure of the paper: published, ours, tolerance, verdict", add_arguments=_reproduce
    ),
    "report": Command("tables and an HTML page from the results on disk", "DIR|KEY=VALUE", _report),
    "export": Command("results as tidy tables, a leaderboard and a data set of the hub", add_arguments=_export),
    "list": Command(
        "finished and unfinished cells of an output folder, a line each", "DIR|KEY=VALUE", _list, function="list_cells"
    ),
    "compare": Command("two finished cells on the same images", add_arguments=_compare),
    "show": Command("one finished cell: classes, best and worst images", add_arguments=_show),
    "tune": Command("choose tau on training images, report on the validation split", add_arguments=_tune),
    "merge": Command("put finished shards of a cell together", add_arguments=_merge),
    "segment": Command("segment your own pictures: files, or folders of them", "IMAGE|DIR|KEY=VALUE", _segment),
    "verify": Command("check that everything in an output folder is what was written", "DIR|KEY=VALUE"),
    "data": Command("list, prepare or verify data sets", "NAME|KEY=VALUE", _data),
    "features": Command("list, verify or clear the feature store", "SET|KEY=VALUE", _features),
    "check": Command("try a backbone or segmenter on two small images"),
    "coherence": Command("how well a backbone's features tell classes apart", add_arguments=_coherence),
    "doctor": Command("what is installed, and what is missing", "GROUP|KEY=VALUE", _doctor),
    "completion": Command("print what makes a shell complete commands, groups and options", "SHELL", _completion),
}
