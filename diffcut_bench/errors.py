"""The class for a user's mistake. Every command ends it with exit code 2 and three lines, no traceback."""

import difflib
import re
from collections.abc import Iterable

_USER = re.compile(r"(?<=://)[^\s/?#]*@")
_SECRET = re.compile(r"([?&][^\s=&#]*(?:token|sig|signature|secret|password|credential|key)=)[^\s&#]+", re.IGNORECASE)


def without_credentials(text: str) -> str:
    """The text without users and passwords of URLs, and without the values of parameters such as ``sig=``."""
    return _SECRET.sub(r"\1***", _USER.sub("", text))


class UserError(Exception):
    """What is wrong, where, and what to type next. Credentials in URLs are left out of it.

    Args:
        what: the mistake in one line.
        where: the file, option or value that holds it.
        hint: what to do or type next.
    """

    def __init__(self, what: str, where: str, hint: str) -> None:
        self.what, self.where, self.hint = (without_credentials(str(text)) for text in (what, where, hint))
        super().__init__(self.what, self.where, self.hint)

    def __str__(self) -> str:
        return f"error: {self.what}\nwhere: {self.where}\nnext:  {self.hint}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``did you mean …? available: …`` for a name that is not known."""
    names = sorted(set(known))
    folded = {name.lower(): name for name in names}
    close = [folded[name] for name in difflib.get_close_matches(word.lower(), folded, n=2, cutoff=0.5)]
    question = f"did you mean {' or '.join(close)}? " if close else ""
    return f"{question}available: {', '.join(names) or 'none'}"
