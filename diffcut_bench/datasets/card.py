"""What people must know before they fetch a data set: its terms, its citation, and the files it comes in."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Archive:
    """One file to fetch.

    Attributes:
        name: file name.
        urls: addresses of this same file, http or https, tried in order.
        md5: hexadecimal checksum; None where none was published (the unpacked content is what `data verify` checks).
        size: bytes, where known.
        unpack_into: folder below the data set's root where its content goes.
    """

    name: str
    urls: tuple[str, ...]
    md5: str | None = None
    size: int | None = None
    unpack_into: str = "."


@dataclass(frozen=True)
class Card:
    """A data set's origin.

    Attributes:
        homepage: address of the authors' page.
        licence: terms, one or two lines.
        citation: what to cite.
        archives: files that can be fetched without a login.
        by_hand: what to do where a login is needed.
    """

    homepage: str
    licence: str
    citation: str
    archives: tuple[Archive, ...] = ()
    by_hand: str | None = None
