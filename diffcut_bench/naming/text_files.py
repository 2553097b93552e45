"""Class names and phrases that a file of the user's brings, such as the released lists, which are not ours to ship.

A class list has OpenSeg's form: ``id:name,synonym,…``, one id a line, counting up from 0; the name ``invalid_class_id``
stands at ids that are no class. A file of phrases has one a line, each with ``{}`` where the word goes.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from diffcut_bench.errors import UserError
from diffcut_bench.naming.prompts import split_synonyms
from diffcut_bench.paths import read_regular

_NO_CLASS = "invalid_class_id"
_BACKGROUND = "background"
_SHOWN = 5  # names that an error lists
_FORM = "each line is id:name,synonym,… with ids from 0 on"


@dataclass(frozen=True)
class ClassList:
    """A class list that was read.

    Attributes:
        path: of the file.
        sha256: of its bytes.
        names: words of each id that is a class.
    """

    path: str
    sha256: str
    names: dict[int, tuple[str, ...]]

    def words(self, class_names: Sequence[str], background: int | None = None) -> tuple[tuple[str, ...], ...]:
        """Words of each class, found by the class's own name: a list may number the classes otherwise, and hold more.

        Args:
            class_names: a name may hold synonyms of its own, ``cat|kitten``: one of them has to be in the list.
            background: index of the class behind the others. A list without its name or ``background`` gives it the
                one word ``background``.

        Raises:
            UserError: a class is in no line, in several of which not exactly one begins with it, or in another's.
        """
        ids = [self._find(split_synonyms(name)) for name in class_names]
        if background is not None and ids[background] is None:
            ids[background] = self._find([_BACKGROUND])
        missing = [name for index, name in enumerate(class_names) if ids[index] is None and index != background]
        if missing:
            shown = ", ".join([*missing[:_SHOWN], *(["…"] if len(missing) > _SHOWN else [])])
            raise UserError(
                f"{len(missing)} of {len(class_names)} classes are in no line: {shown}",
                f"{self.path}, which names {len(self.names)}",
                "give each class a line that holds its name, or choose the list of this data set",
            )
        taken: dict[int, str] = {}
        found = []
        for name, own in zip(class_names, ids, strict=True):
            if own is not None and taken.setdefault(own, name) != name:
                what = f"classes {taken[own]!r} and {name!r} are in one line"
                raise UserError(what, f"{self.path}, id {own}", "give each a line of its own")
            found.append((_BACKGROUND,) if own is None else self.names[own])
        return tuple(found)

    def _find(self, own: Sequence[str]) -> int | None:
        """The id whose line holds one of a class's own words; None if there is none."""
        wanted = {word.lower() for word in own}
        holding = [index for index, words in self.names.items() if wanted & {word.lower() for word in words}]
        first = [index for index in holding if self.names[index][0].lower() in wanted]
        if len(holding) > 1 and len(first) != 1:
            where = f"{self.path}, ids {', '.join(map(str, holding))}"
            raise UserError(f"class {own[0]!r} is in several lines", where, "let it begin one of them")
        return next(iter(first or holding), None)


def read_class_list(path: str) -> ClassList:
    """Read a file of OpenSeg's form. Blank lines and a byte order mark are passed over, spaces around words taken off.

    Raises:
        UserError: the file is missing or no UTF-8 text, a line is not of the form, or an id is missing or there twice;
            the message names the line.
    """
    lines, sha256 = _read(path, "namer.classes_file")
    names: dict[int, tuple[str, ...]] = {}
    for number, line in lines:
        where = f"{path}, line {number}"
        parts = re.fullmatch(r"\s*(0|[1-9][0-9]{0,5})\s*:([^:]*)", line)
        if parts is None:
            raise UserError(f"not of the form id:name,synonym,…: {line[:60]!r}", where, _FORM)
        index, words = int(parts[1]), tuple(word.strip() for word in parts[2].split(","))
        if index in names:
            raise UserError(f"id {index} is there twice", where, "give every id one line")
        if not all(words):
            raise UserError(f"id {index} has an empty name", where, "write a name between any two commas")
        if _NO_CLASS in words and len(words) > 1:
            raise UserError(f"id {index} is no class, and has names", where, f"leave {_NO_CLASS}, or the names")
        names[index] = words
    if not names:
        raise UserError("the class list is empty", path, _FORM)
    gap = next((index for index in range(len(names)) if index not in names), None)
    if gap is not None:
        raise UserError(f"id {gap} is missing", path, f"{_FORM}; write {gap}:{_NO_CLASS} if it is no class")
    return ClassList(path, sha256, {i: names[i] for i in range(len(names)) if names[i] != (_NO_CLASS,)})


def read_templates(path: str) -> tuple[tuple[str, ...], str]:
    """Phrases of a file, one a line, and the SHA-256 of its bytes. Blank lines and a byte order mark are passed over;
    a tab is a space.

    Raises:
        UserError: the file is missing, empty or no UTF-8 text, or a line has not exactly one ``{}``, has another brace,
            or is there twice; the message names the line.
    """
    lines, sha256 = _read(path, "namer.templates_file")
    found: list[str] = []
    for number, line in lines:
        phrase, where = line.replace("\t", " ").strip(), f"{path}, line {number}"
        if re.fullmatch(r"[^{}]*\{\}[^{}]*", phrase) is None:
            raise UserError(f"not a phrase with one {{}}: {phrase[:60]!r}", where, "such as: a photo of a {}.")
        if phrase in found:
            raise UserError(f"the phrase is there twice: {phrase[:60]!r}", where, "it would count twice: leave one")
        found.append(phrase)
    if not found:
        raise UserError("the file of phrases is empty", path, "one phrase a line, such as: a photo of a {}.")
    return tuple(found), sha256


def _read(path: str, option: str) -> tuple[list[tuple[int, str]], str]:
    """Lines that hold something, with their numbers from 1 on, and the digest of the file."""
    try:
        data = read_regular(path)
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except OSError as error:
        raise UserError(f"the file can't be read ({error.strerror or error})", path, f"{option}=FILE") from error
    except UnicodeDecodeError as error:
        raise UserError("the file is no UTF-8 text", f"{path}, byte {error.start}", "save it as UTF-8 text") from error
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    for number, line in lines:
        odd = next((character for character in line if not character.isprintable() and character != "\t"), None)
        if odd is not None:
            what = f"the line holds the character {odd!a}"
            raise UserError(what, f"{path}, line {number}", "take it out: names are plain text")
    return lines, hashlib.sha256(data).hexdigest()
