"""The command line: ``diffcut-bench COMMAND``. Knows everything; nothing knows it."""

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn

from diffcut_bench import __version__
from diffcut_bench.commands import bench_encoder, coherence
from diffcut_bench.commands.bench import add_arguments as add_bench_arguments
from diffcut_bench.commands.bench import bench
from diffcut_bench.commands.check import check
from diffcut_bench.commands.data import data
from diffcut_bench.commands.doctor import doctor
from diffcut_bench.commands.features import features
from diffcut_bench.commands.run import run
from diffcut_bench.commands.segment import segment
from diffcut_bench.commands.terminal import console, errors
from diffcut_bench.errors import UserError, did_you_mean
from diffcut_bench.heap import keep_freed_memory
from diffcut_bench.pipeline import is_out_of_memory


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 after a user's mistake, 130 when interrupted."""
    keep_freed_memory()
    # Of several processes one speaks; errors are everyone's.
    console.quiet = int(os.environ.get("RANK", "0")) > 0 and "TORCHELASTIC_RUN_ID" in os.environ
    try:
        return _dispatch(list(sys.argv[1:] if arguments is None else arguments))
    except UserError as error:
        errors.print(str(error), markup=False, highlight=False, soft_wrap=True)
        return 2
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        oom = UserError("not enough memory", "this command", "use a smaller batch_size or picture, or device=cpu")
        errors.print(str(oom), markup=False, highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        errors.print("interrupted; what is done is kept, and the same command goes on from here")
        return 130


class _Parser(argparse.ArgumentParser):
    """argparse with our kind of error."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message, self.prog, f"{self.prog} --help")


def _dispatch(arguments: list[str]) -> int:
    commands: dict[str, tuple[Callable[[argparse.Namespace], int], str]] = {
        "run": (run, "score one cell, or a sweep with -m"),
        "segment": (segment, "segment your own pictures"),
        "data": (data, "list, prepare or verify data sets"),
        "features": (features, "list, verify or clear the feature store"),
        "check": (check, "try a backbone on two small images"),
        "coherence": (coherence.coherence, "how well a backbone's features tell classes apart"),
        "doctor": (doctor, "what is installed, and what is missing"),
        "bench": (bench, "speed of each stage against plain versions, floors and rivals"),
    }
    overview = _Parser(
        prog="diffcut-bench",
        description="Unsupervised segmentation benchmarks around DiffCut.",
        epilog="commands:\n" + "\n".join(f"  {name:9} {text}" for name, (_, text) in commands.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    overview.add_argument("--version", action="version", version=f"diffcut-bench {__version__}")
    overview.add_argument("command", metavar="COMMAND")
    command = overview.parse_args(arguments[:1]).command
    if command not in commands:
        raise UserError(f"unknown command {command!r}", "diffcut-bench", did_you_mean(command, commands))
    execute, text = commands[command]
    parser = _Parser(
        prog=f"diffcut-bench {command}",
        description=text,
        epilog="KEY=VALUE are Hydra's overrides, such as dataset=voc segmenter.tau=0.4; see conf/.",
    )
    if command == "run":
        parser.add_argument(
            "-m", "--multirun", action="store_true", help="sweep: every combination of comma lists and ranges"
        )
    if command == "data":
        parser.add_argument("action", choices=("list", "prepare", "verify"))
        parser.add_argument("--download", action="store_true", help="fetch the originals first, into dataset.root")
    if command == "features":
        parser.add_argument("action", choices=("list", "verify", "clear"))
    if command == "coherence":
        coherence.add_arguments(parser)
    if command == "bench":
        add_bench_arguments(parser)
        bench_encoder.add_arguments(parser)
    metavar = {"segment": "IMAGE|KEY=VALUE", "data": "NAME|KEY=VALUE", "features": "SET|KEY=VALUE"}.get(
        command, "KEY=VALUE"
    )
    parser.add_argument("overrides", nargs="*", metavar=metavar)
    options = parser.parse_intermixed_args(arguments[1:])
    warnings.filterwarnings("ignore", category=UserWarning, module="torchmetrics|hydra")
    return execute(options)
