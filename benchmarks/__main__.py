"""Speed of the method, stage by stage and as a whole; with ``--encoder`` of the diffusion encoder alone; with
``--metrics`` the share of a cell's time that metrics take; with ``--counts`` no speed, but what an accelerator would be
asked to do."""

import argparse
import sys
import warnings
from collections.abc import Callable, Collection, Sequence
from math import isfinite
from typing import NoReturn, TypeVar

from benchmarks import metrics, run_encoder, run_method
from benchmarks.encoder import MODES, PRECISIONS
from benchmarks.random_weights import ARCHITECTURES
from diffcut_bench.commands.terminal import errors
from diffcut_bench.errors import UserError, did_you_mean
from diffcut_bench.heap import keep_freed_memory
from diffcut_bench.interruption import signals_raised

# What `counts` counts, whose module an older torch can't import.
_COUNTED = ("cut", "affinity", "taus", "taus_float32", "concepts", "background", "matching", "pamr", "run")

Value = TypeVar("Value")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks; returns the exit code: 0, 2 after a user's mistake, 128 + n after signal n."""
    keep_freed_memory()  # as the command line does: what is measured is what a user has
    warnings.filterwarnings("ignore", category=UserWarning, module="torchmetrics|hydra")
    with signals_raised() as ending:
        try:
            options = _parser().parse_intermixed_args(arguments)
            if options.stages and not options.counts:
                raise UserError("only counts are of chosen stages", "--stages", "add --counts")
            if options.counts:
                from benchmarks import run_counts

                run_counts.run(options)
            elif options.metrics:
                metrics.run(options)
            else:
                (run_method.run if options.encoder is None else run_encoder.run)(options)
        except UserError as mistake:
            errors.print(str(mistake), markup=False, highlight=False, soft_wrap=True)
            return 2
        except KeyboardInterrupt:
            return ending.code
    return 0


class _Parser(argparse.ArgumentParser):
    """argparse with our kind of error."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message, self.prog, f"{self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="KEY=VALUE are Hydra's overrides, such as device=cpu dataset=voc segmenter.tau=0.4 output_dir=DIR.",
    )
    add = parser.add_argument
    add("--images", type=_at_least(1), default=3, help="images of the data set to measure on (default 3)")
    add("--patches", type=_list_of(_at_least(2)), default="32,64,128", help="patches a side (default 32,64,128)")
    add("--alphas", type=_list_of(_exponent), help="few segments to hundreds (default 5,10; with --counts 5,8,10)")
    add("--features", metavar="FILE.npz", help="an array `features` [images, nodes, channels], not the backbone's")
    add("--full", action="store_true", help="all sizes at all alphas, no limit on the plain versions")
    batches = "images at a time (default --images; with --encoder 1,4,16; with --counts 1,8,64)"
    add("--batches", type=_list_of(_at_least(1)), help=batches)
    add("--metrics", action="store_true", help="only the share of a cell's time that each metric takes")
    add = parser.add_argument_group(
        "kernels, waits and bytes on a pretended accelerator, instead of speed"
    ).add_argument
    add("--counts", action="store_true", help="count them by stage, batch and alpha")
    add("--stages", type=_list_of(_one_of(_COUNTED)), help=f"some of {', '.join(_COUNTED)} (default all)")
    add = parser.add_argument_group("the diffusion encoder alone, with random weights").add_argument
    add("--encoder", metavar="NAME", type=_one_of(ARCHITECTURES), help=" | ".join(ARCHITECTURES))
    add("--precisions", type=_list_of(_one_of(PRECISIONS)), help=f"some of {', '.join(PRECISIONS)} (default all)")
    add("--modes", type=_list_of(_one_of(MODES)), help="eager, compiled or both (default eager,compiled)")
    add("--repeats", type=_at_least(1), default=5, help="timed calls of each setting (default 5)")
    add("--sound", type=float, default=0.999, help="least cosine of a patch to float32 to be called sound (0.999)")
    add("--quick", action="store_true", help=f"{', '.join(run_encoder.QUICK)} only, eager, one layout, two repeats")
    parser.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE")
    return parser


def _list_of(read: Callable[[str], Value]) -> Callable[[str], list[Value]]:
    """Reads a comma list, each word once."""

    def read_list(text: str) -> list[Value]:
        words = dict.fromkeys(word.strip() for word in text.split(",") if word.strip())
        if not words:
            raise argparse.ArgumentTypeError("nothing named")
        return [read(word) for word in words]

    return read_list


def _at_least(least: int) -> Callable[[str], int]:
    def read(word: str) -> int:
        if not word.isdecimal() or int(word) < least:
            raise argparse.ArgumentTypeError(f"{word!r} is no whole number of at least {least}")
        return int(word)

    return read


def _exponent(word: str) -> float:
    try:
        alpha = float(word)
    except ValueError:
        alpha = 0.0
    if not (alpha > 0 and isfinite(alpha)):
        raise argparse.ArgumentTypeError(f"{word!r} is no exponent")
    return alpha


def _one_of(known: Collection[str]) -> Callable[[str], str]:
    def read(word: str) -> str:
        if word not in known:
            raise argparse.ArgumentTypeError(f"{word!r} is unknown; {did_you_mean(word, known)}")
        return word

    return read


if __name__ == "__main__":
    sys.exit(main())
