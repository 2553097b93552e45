"""Text for people: numbers of things, and text of data (names of classes, ids, messages) for each medium, so that it
reads as it is and does nothing else."""

import hashlib
import re

# Control characters, halves of surrogate pairs, line separators, and marks that turn the direction of writing: a
# terminal or an editor obeys them.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?")
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")  # as ASCII and as wide characters; the other starts are controls
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "`": r"\textasciigrave{}",
    "−": "$-$",
    **{character: f"\\{character}" for character in "_%&#${}"},
}
_LONGEST = 100  # bytes of a file's stem: folders hold names of 255, and a suffix and a writer's temporary name join it


def counted(number: int, what: str, plural: str = "s") -> str:
    """``1 image``, ``2 images``."""
    return f"{number} {what}{'' if number == 1 else plural}"


def visible(text: str, kept: str = "") -> str:
    r"""Text whose control characters are written out, such as ``\x1b``.

    Args:
        text: any.
        kept: control characters that stay, such as ``"\n"``.
    """

    def written(match: re.Match[str]) -> str:
        character = match[0]
        return character if character in kept else character.encode("unicode_escape").decode()

    return _CONTROL.sub(written, text)


def one_line(text: str) -> str:
    """`visible` text in which line breaks and tabs are blanks."""
    return visible(re.sub(r"[\r\n\t\v\f\x85\u2028\u2029]+", " ", text))


def markdown_text(text: str) -> str:
    """A line of Markdown without markup: no tag, link, emphasis, code, heading, list or quotation of its own."""
    # A backslash stands before a mark that would begin a block, and behind a number that would.
    return re.sub(r"^(?:(?=[#>+=-])|(\d+)(?=[.)]))", r"\1\\", _without_spans(text))


def markdown_cell(text: str) -> str:
    """The same for a cell of a pipe table."""
    return _without_spans(text).replace("|", "\\|")


def latex_text(text: str) -> str:
    """A line of LaTeX without commands."""
    return "".join(_LATEX.get(character, character) for character in one_line(text))


def csv_cell(text: str) -> str:
    """A cell that a spreadsheet takes for text or a number, never for a formula; an apostrophe stands before what would
    be one. A dash for a missing value is empty, and numbers are as programs read them."""
    cell = "" if text == "–" else visible(text.replace("−", "-"))
    return f"'{cell}" if cell.lstrip().startswith(_FORMULA) and not _NUMBER.fullmatch(cell) else cell


def figure_text(text: str) -> str:
    """A line of a figure: a dollar is a dollar and not the start of a formula, and no label is hidden."""
    line = one_line(text).replace("$", r"\$")
    return f" {line}" if line.startswith("_") else line  # matplotlib leaves such labels out of a legend


def file_stem(name: str) -> str:
    """A name as the stem of a file in any folder: letters, digits, ``_``, ``-`` and ``.`` inside; others differ by a
    digest, so that two names never share a file."""
    stem = re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII).strip(".-")[:_LONGEST]
    if stem and stem == name:
        return stem
    return f"{stem}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}".lstrip("-")


def _without_spans(text: str) -> str:
    line = re.sub(r"&(?=#?\w+;)", "&amp;", one_line(text).strip()).replace("<", "&lt;")
    return re.sub(r"[\\`*~\[\]]|(?<!\w)_|_(?!\w)", r"\\\g<0>", line)
