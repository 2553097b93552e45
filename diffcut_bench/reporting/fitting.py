"""Columns of a table in a terminal of limited width: words are never broken; what gives way is the table's width."""

import re
from collections.abc import Sequence

from rich.cells import cell_len

_BETWEEN = 3  # characters between two columns
_PIECE = re.compile(r"[^/=,:;_-]*[/=,:;_-]+|[^/=,:;_-]+")  # of a path or key: it may end a line behind one of these


def fit_columns(
    names: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool], width: int
) -> list[dict[int, int]]:
    """Parts of a table that are shown below each other, each by the index of its columns and the width of each.

    Headings and texts wrap at spaces, and columns of numbers keep each cell in one line. Where that is still too wide,
    the columns go on in another part, which begins with the first columns of the table, as many as tell its rows apart.
    A word that alone is longer than half the width (a path, an address) is no reason for that: see `folded`.

    Args:
        names: headings.
        rows: texts, one a column.
        numeric: whether a column is of numbers.
        width: characters of the console.
    """
    half = max((width - _BETWEEN) // 2, 1)
    texts = [[name, *(row[index] for row in rows)] for index, name in enumerate(names)]
    natural = [max(map(cell_len, own)) for own in texts]
    least = []
    for own, numbers in zip(texts, numeric, strict=True):
        whole = [*own[0].split(), *(own[1:] if numbers else (word for text in own[1:] for word in text.split()))]
        least.append(min(max(map(cell_len, whole), default=1), half))
    if _total(least) <= width:
        return [_shared(range(len(names)), natural, least, width)]
    keys = _keys(rows)
    if any(_total([*least[:keys], each]) > width for each in least[keys:]):
        keys = 0 if len(rows) == 1 else 1
    # With several parts there is room: a text of less than a third of the width stays in one line.
    wanted = [min(whole, max(own, width // 3)) for whole, own in zip(natural, least, strict=True)]
    parts: list[list[int]] = [[]]
    for index in range(len(names)):
        if parts[-1][keys:] and _total([wanted[each] for each in (*parts[-1], index)]) > width:
            parts.append(list(range(keys)))
        parts[-1].append(index)
    return [_shared(part, natural, least, width) for part in parts]


def folded(text: str, width: int) -> str:
    """A text in which every word that is too long for a line is broken where a path or key has a joint."""
    return " ".join(_broken(word, width) if cell_len(word) > width else word for word in text.split(" "))


def _broken(word: str, width: int) -> str:
    lines = [""]
    for piece in _PIECE.findall(word):
        if lines[-1] and cell_len(lines[-1] + piece) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(lines)


def _keys(rows: Sequence[Sequence[str]]) -> int:
    """How many of the first columns tell the rows apart: none where there is one row, one where nothing does. An empty
    cell says the same as the one above it."""
    filled: list[list[str]] = []
    for row in rows:
        above = filled[-1] if filled else row
        filled.append([cell or said for cell, said in zip(row, above, strict=True)])
    columns = len(rows[0]) if rows else 0
    apart = (count for count in range(columns) if len({tuple(row[:count]) for row in filled}) == len(rows))
    return next(apart, min(columns, 1))


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _BETWEEN * (len(widths) - 1)


def _shared(part: Sequence[int], natural: Sequence[int], least: Sequence[int], width: int) -> dict[int, int]:
    """The width of each column: its natural one, or less where the widest columns have to give way."""
    widths = {index: max(natural[index], 1) for index in part}
    while _total([*widths.values()]) > width:
        can = [index for index in part if widths[index] > least[index]]
        if not can:
            break
        widths[max(can, key=lambda index: widths[index])] -= 1
    return widths
