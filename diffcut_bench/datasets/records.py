"""Rows of a data set: id, image and label, of which nothing is read before it is asked for."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, overload

from diffcut_bench.errors import UserError

Encoded = dict[str, Any]  # ``path`` and ``bytes`` of an undecoded picture, of which one may be None


class Records(Protocol):
    """What a data set needs of its rows: a `datasets.Dataset` has it, and `FileRecords`.

    A row has ``id`` (text), ``image`` and ``label`` (`Encoded`), and where it is prepared ``sha256``.
    """

    @property
    def column_names(self) -> list[str]: ...

    def __len__(self) -> int: ...

    @overload
    def __getitem__(self, key: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, key: str) -> Sequence[Any]: ...

    def __iter__(self) -> Iterator[dict[str, Any]]: ...

    def select(self, indices: Iterable[int]) -> Self: ...


@dataclass(frozen=True)
class FileRecords:
    """Rows in memory: names of files, or the bytes of pictures that have none.

    Attributes:
        rows: in the data set's order.
    """

    rows: Sequence[dict[str, Any]]

    @property
    def column_names(self) -> list[str]:
        return ["id", "image", "label"]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, key: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, key: str) -> Sequence[Any]: ...

    def __getitem__(self, key: int | str) -> Any:
        """A row, or a column by its name."""
        return [row[key] for row in self.rows] if isinstance(key, str) else self.rows[key]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def select(self, indices: Iterable[int]) -> "FileRecords":
        """The rows of these numbers."""
        return FileRecords([self.rows[index] for index in indices])


def records_from_files(ids: Sequence[str], images: Sequence[Path], labels: Sequence[Path]) -> FileRecords:
    """Rows that read their files on access.

    Raises:
        UserError: files are missing; the message names the first and says how many.
    """
    missing = [path for path in (*images, *labels) if not path.is_file()]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        what = f"file missing{more}: every image needs its label and the other way round"
        hint = "restore the file, or take its id out of the list that names it"
        raise UserError(what, str(missing[0]), hint)
    return FileRecords(
        [
            {"id": name, "image": {"path": str(image), "bytes": None}, "label": {"path": str(label), "bytes": None}}
            for name, image, label in zip(ids, images, labels, strict=True)
        ]
    )
