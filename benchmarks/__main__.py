"""Speed of the method, stage by stage and as a whole; with ``--encoder`` of the diffusion encoder alone."""

import argparse
import sys
import warnings
from collections.abc import Sequence

from benchmarks import run_encoder, run_method
from diffcut_bench.commands.terminal import errors
from diffcut_bench.errors import UserError
from diffcut_bench.heap import keep_freed_memory
from diffcut_bench.interruption import signals_raised


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks; returns the exit code: 0, 2 after a user's mistake, 128 + n after signal n."""
    keep_freed_memory()  # as the command line does: what is measured is what a user has
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="KEY=VALUE are Hydra's overrides, such as device=cpu dataset=voc segmenter.tau=0.4 output_dir=DIR.",
    )
    run_method.add_arguments(parser)
    run_encoder.add_arguments(parser)
    parser.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE")
    options = parser.parse_intermixed_args(arguments)
    warnings.filterwarnings("ignore", category=UserWarning, module="torchmetrics|hydra")
    with signals_raised() as ending:
        try:
            (run_method.run if options.encoder is None else run_encoder.run)(options)
        except UserError as mistake:
            errors.print(str(mistake), markup=False, highlight=False, soft_wrap=True)
            return 2
        except KeyboardInterrupt:
            return ending.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
