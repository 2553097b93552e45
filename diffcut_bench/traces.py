"""Exceptions that are no user's mistake: where in the user's own code they came up, and what of them is told."""

import contextlib
import linecache
import os
import sysconfig
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffcut_bench.errors import UserError, without_credentials

DEBUG = "DIFFCUT_BENCH_DEBUG"  # in the environment, so that processes that a command starts know it too
TRACE = "\ntrace: "  # begins the last line of an error that comes of code of the user's
_SHOWN = 3  # places
_CODE = "    "  # before a line of code, which is below its place
_MOST_TOLD, _MOST_LOGGED = 2_000, 200_000  # characters: a message may hold a whole array
_PACKAGE = str(Path(__file__).parent)
_STANDARD = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
_INTERACTIVE = ("<stdin>", "<console>", "<ipython-input", "<python-input", "<doctest")


def is_debugging() -> bool:
    """Whether exceptions are raised as they are: ``--debug``, or ``HYDRA_FULL_ERROR=1`` when the command began."""
    return os.environ.get(DEBUG) == "1"


@dataclass(frozen=True)
class Trace:
    """What there is to tell of an exception that is no user's mistake. Credentials in URLs are left out of it.

    Attributes:
        error: its type and message, on one line.
        excerpt: the last lines of the traceback that lie in files of the user's, ``file:line in function`` and the code
            of that line below it; where none does, the last ones of this package.
        text: Python's whole traceback.
        of_user: whether files of the user's are in it.
        cause: the exception itself; it does not travel to another process.
    """

    error: str
    excerpt: str
    text: str
    of_user: bool
    cause: BaseException | None = field(default=None, compare=False)

    @classmethod
    def of(cls, error: BaseException) -> "Trace | None":
        """Of an exception; None for a `ValueError` that this package raises itself, whose message says all. What local
        variables held is let go."""
        chain = _chain(error)
        for each in chain:
            traceback.clear_frames(each.__traceback__)
        of_chain = ((each, places) for each in chain if (places := _places(each, _is_of_user)))
        main, users = next(of_chain, (error, []))
        shown = users or _places(error, _is_ours)
        raised = traceback.extract_tb(error.__traceback__)
        if not users and isinstance(error, ValueError) and raised and _is_ours(raised[-1].filename):
            return None
        whole = _shortened("".join(traceback.format_exception(error)), _MOST_LOGGED)
        texts = " ".join(described(main).split()), "\n".join(shown[-_SHOWN:]), whole
        told, excerpt, text = (without_credentials(each.encode(errors="backslashreplace").decode()) for each in texts)
        return cls(told, excerpt, text, bool(users), error)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "cause": None}

    @property
    def hint(self) -> str:
        """What a user can do."""
        if self.of_user:
            return "mend this code, then run the same command again"
        return "if no option of yours is the reason, report it with the whole traceback"

    @property
    def place(self) -> str:
        """Where it came up, ``file:line in function``."""
        places = [line.strip() for line in self.excerpt.splitlines() if not line.startswith(_CODE)]
        return places[-1] if places else ""

    def told(self, log: Path | None) -> str:
        """The places, and the file that holds the whole traceback."""
        return self.excerpt + ("" if log is None else f"\n  the traceback is in {log}")

    @property
    def origin(self) -> str:
        """Equal for exceptions of one kind that came up in one place, whatever they say."""
        return f"{self.error.partition(':')[0]}\n{self.excerpt}"


class CodeError(UserError):
    """An exception in code of the user's: a stage, data set or metric of hers, or a function that she gave.

    Args:
        what, where, hint: as of `UserError`.
        trace: of the exception.
        log: file that holds the whole traceback, once there is one; see `diffcut_bench.store.log_trace`.
    """

    def __init__(self, what: str, where: str, hint: str, trace: Trace, log: Path | None = None) -> None:
        super().__init__(what, where, hint)
        self.trace, self.log = trace, log

    @property
    def line(self) -> str:
        """What, where in the code and the log, for a table."""
        log = "" if self.log is None else f"its traceback is in {self.log}"
        return f"{self.what} ({'; '.join(filter(None, [self.trace.place, log, self.where]))})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.what, self.where, self.hint, self.trace, self.log)

    def __str__(self) -> str:
        first, _, rest = super().__str__().partition("\n")
        more = "--debug raises it" if self.log is None else f"{self.log} holds the whole traceback; --debug raises it"
        return "\n".join(filter(None, [first, self.trace.excerpt, rest])) + f"{TRACE}{more}"


def error_in_code(error: BaseException, where: str, hint: str = "") -> UserError:
    """What a user is told of whatever a stage, data set or metric raised: a `CodeError`, unless the message is one of
    this package that says all.

    Args:
        error: none of a user's mistakes.
        where: it came up.
        hint: what to do; empty: to mend the code, or to report it.
    """
    trace = Trace.of(error)
    if trace is None:
        return UserError(described(error), where, hint or "choose other options, or mend the data")
    return CodeError(trace.error, where, hint or trace.hint, trace)


def described(error: BaseException) -> str:
    """Type and message of an exception; see `message_of`."""
    return f"{type(error).__name__}: {message_of(error)}"


def message_of(error: BaseException) -> str:
    """What an exception says; one that is very long is cut, and one that can't say it does no harm."""
    try:
        return _shortened(str(error), _MOST_TOLD)
    except Exception as another:  # of a class of the user's
        return f"(no message: {type(another).__name__} when it was asked for)"


def _shortened(text: str, most: int) -> str:
    """Text without its middle where it is longer than ``most`` characters."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]} … ({len(text)} characters) … {text[-most // 2 :]}"


def _chain(error: BaseException) -> list[BaseException]:
    """An exception, and those that it was raised from or came up in the handling of."""
    seen: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and not any(following is one for one in seen):
        seen.append(following)
        following = following.__cause__ or (None if following.__suppress_context__ else following.__context__)
    return seen


def _places(error: BaseException, wanted: Callable[[str], bool]) -> list[str]:
    """The places of a traceback in files that are wanted, each with its line of code."""
    frames = [(each.filename, each.lineno, f" in {each.name}") for each in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename is not None:
        frames.append((error.filename, error.lineno, ""))
    return [
        f"  {_shortest(name)}:{line}{function}\n{_CODE}{linecache.getline(name, line or 0).strip()}".rstrip()
        for name, line, function in frames
        if wanted(name)
    ]


def _shortest(name: str) -> str:
    """A file below the current folder by its relative path."""
    with contextlib.suppress(OSError, ValueError):  # the current folder is gone, or the file is elsewhere
        return str(Path(name).relative_to(Path.cwd()))
    return name


def _is_ours(name: str) -> bool:
    return Path(name).is_relative_to(_PACKAGE)


def _is_of_user(name: str) -> bool:
    """Whether a file is neither of this package nor of Python's or an installed library's."""
    if name.startswith("<"):
        return name.startswith(_INTERACTIVE)
    path = Path(name).absolute()
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    return not installed and not any(path.is_relative_to(folder) for folder in (_PACKAGE, *_STANDARD))
