"""The command line: ``diffcut-bench COMMAND``. Knows every command by name, and imports the one that is called."""

import argparse
import contextlib
import difflib
import importlib
import io
import itertools
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn, TextIO

from diffcut_bench import __version__
from diffcut_bench.commands.arguments import COMMANDS, DEBUG_HELP, add_config_flags, with_config_flags
from diffcut_bench.commands.terminal import console, warn
from diffcut_bench.errors import UserError, did_you_mean
from diffcut_bench.extensions import current_folder_importable, is_searchpath
from diffcut_bench.heap import keep_freed_memory
from diffcut_bench.interruption import signals_raised
from diffcut_bench.traces import DEBUG, CodeError, error_in_code, is_debugging


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 after a user's mistake, 128 + n after signal n (Ctrl-C: 130)."""
    keep_freed_memory()
    if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.encoding.lower().startswith("utf"):
        sys.stdout.reconfigure(errors="replace")  # a locale may lack the characters of tables and names
    # Of several processes one speaks; errors are everyone's.
    console.quiet = int(os.environ.get("RANK", "0")) > 0 and "TORCHELASTIC_RUN_ID" in os.environ
    warnings.showwarning = _show_warning
    words = list(sys.argv[1:] if arguments is None else arguments)
    before = list(itertools.takewhile(lambda word: word != "--", words))
    debug, rest = "--debug" in before, words[len(before) :]
    with _debugging(debug or os.environ.get("HYDRA_FULL_ERROR") == "1"), signals_raised() as ending:
        try:
            return _dispatch([*(word for word in before if word != "--debug"), *rest])
        except BaseException as error:
            # After a signal, whatever comes up is its consequence.
            if ending.signal is not None or isinstance(error, KeyboardInterrupt):
                if not console.quiet:
                    with contextlib.suppress(OSError):  # a terminal that hung up
                        warn(ending.words)
                return ending.code
            mistake = None if is_debugging() else _mistake(error)
            if mistake is None:
                raise
            if isinstance(mistake, CodeError) and mistake.log is None:
                _log(mistake, words)
            warn(str(mistake))
            return 2


@contextlib.contextmanager
def _debugging(wanted: bool) -> Iterator[None]:
    """Within, this process and those that it starts raise exceptions as they are, if that is wanted."""
    before = os.environ.get(DEBUG)
    if wanted:
        os.environ[DEBUG] = "1"
    try:
        yield
    finally:
        if wanted and before is None:
            del os.environ[DEBUG]


def _log(error: CodeError, words: Sequence[str]) -> None:
    """Keep a traceback in the output folder that the words of a command line name."""
    from diffcut_bench.config import load_config  # loads Hydra, as the command has
    from diffcut_bench.store import log_error

    named = [word for word in words if word.partition("=")[0].lstrip("+") in _NAME_A_FOLDER]
    folder = Path("outputs")
    with contextlib.suppress(UserError):
        folder = Path(load_config(named).output_dir)
    log_error(folder, error)


_NAME_A_FOLDER = ("output_dir", "experiment", "hydra.searchpath")
_show_with_place = warnings.showwarning


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """What a user should know is one line; all else, which is for developers, keeps its place in the code."""
    if issubclass(category, RuntimeWarning):
        warn(f"warning: {message}")
    else:
        _show_with_place(message, category, filename, lineno, file, line)


def _mistake(error: BaseException) -> UserError | None:
    """What a user can mend; None: it keeps its traceback."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, (RuntimeError, MemoryError)):
        from diffcut_bench.scoring.pipeline import is_out_of_memory  # loads torch, as whatever ran out of memory did

        if is_out_of_memory(error):
            return UserError("not enough memory", "this command", "use a smaller picture, or device=cpu")
    # A module of the user's may end the program: argparse's own help and version do it too, without such a module.
    told = error_in_code(error, "this command") if isinstance(error, (Exception, SystemExit)) else None
    return told if isinstance(told, CodeError) and told.trace.of_user else None


class _Parser(argparse.ArgumentParser):
    """argparse with our kind of error."""

    def error(self, message: str) -> NoReturn:
        _, found, words = message.partition("unrecognized arguments: ")
        raise UserError(message, self.prog, self._meant(words) if found else f"{self.prog} --help")

    def _meant(self, words: str) -> str:
        """How words with a dash before them may have been meant."""
        from diffcut_bench.commands.hydra_flags import INSTEAD
        from diffcut_bench.config import GROUPS, RunConfig

        word, _, following = words.partition(" ")
        if word.partition("=")[0] in INSTEAD:
            return INSTEAD[word.partition("=")[0]]
        name = word.lstrip("-")
        if Path(word).exists():
            return f"write ./{word} for a file of this name"
        if name.partition("=")[0].partition(".")[0] in (*GROUPS, *RunConfig.__dataclass_fields__):
            return f"options of a run have no dashes: {name if '=' in name else f'{name}={following or chr(8230)}'}"
        flags = difflib.get_close_matches(word, self._option_string_actions, n=1)
        return f"did you mean {flags[0]}? {self.prog} --help" if flags else f"{self.prog} --help"


def _without_separator(words: Sequence[str]) -> list[str]:
    """The words without ``--``. Whatever begins with a dash after it is a file or folder, and is named as one."""
    before = list(itertools.takewhile(lambda word: word != "--", words))
    after = words[len(before) + 1 :]
    return [*before, *(f"./{word}" if word.startswith("-") else word for word in after)]


def _dispatch(arguments: list[str]) -> int:
    overview = _Parser(
        prog="diffcut-bench",
        description="Unsupervised segmentation benchmarks around DiffCut.",
        epilog="commands:\n" + "\n".join(f"  {name:10} {command.text}" for name, command in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    overview.add_argument("--version", action="version", version=f"diffcut-bench {__version__}")
    overview.add_argument("--debug", action="store_true", help=DEBUG_HELP)
    overview.add_argument("command", metavar="COMMAND")
    if arguments and arguments[0].startswith("-") and arguments[0] not in overview._option_string_actions:
        overview.error(f"unrecognized arguments: {' '.join(arguments)}")
    name = overview.parse_args(arguments[:1]).command
    if name == "bench":
        left = "the benchmarks are no command of the package any more: they are in a checkout of the repository"
        raise UserError(left, "diffcut-bench bench", 'there: make bench, with flags: make bench ARGS="--encoder ssd1b"')
    if name not in COMMANDS:
        hint = f"diffcut-bench run {name}" if "=" in name else did_you_mean(name, COMMANDS)
        raise UserError(f"unknown command {name!r}", "diffcut-bench", hint)
    warnings.filterwarnings("ignore", category=UserWarning, module="torchmetrics|hydra")
    command = COMMANDS[name]
    parser = _Parser(
        prog=f"diffcut-bench {name}",
        description=command.text,
        epilog="KEY=VALUE are Hydra's overrides, such as dataset=voc segmenter.tau=0.4; see conf/. "
        "In every path ~ and $NAME are expanded.",
    )
    if command.add_arguments is not None:
        command.add_arguments(parser)
    parser.add_argument("overrides", nargs="*", default=[], metavar=command.metavar)
    words = _without_separator(arguments[1:])
    if name == "completion":  # answers at every press of Tab: Hydra would take half a second
        options = parser.parse_args(words)
    else:
        add_config_flags(parser)
        options = parser.parse_intermixed_args(words)
        options.overrides = with_config_flags(options)
    with contextlib.ExitStack() as stack:
        stack.enter_context(current_folder_importable())
        if any(map(is_searchpath, options.overrides)):
            from diffcut_bench.config import searching  # and Hydra, for which others need not wait

            stack.enter_context(searching(options.overrides))
        # Only now: some commands take seconds to import, which a look at the help or a slip of the keyboard need not
        # wait.
        module = importlib.import_module(f"diffcut_bench.commands.{name}")
        code: int = getattr(module, command.function or name)(options)
    return code
