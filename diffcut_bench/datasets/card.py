"""What people must know before they fetch a data set: its terms, its citation, and the files it comes in."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Archive:
    """One file to fetch.

    Attributes:
        name: file name.
        urls: addresses of this same file, https alone, tried in order.
        md5: hexadecimal checksum; None where none was published.
        size: bytes, where known.
        unpack_into: folder below the data set's root where its content goes.
        sha256: hexadecimal checksum, where one was published. An archive without any is known by the one that its first
            download had, which is kept beside it.
        unpacked_size: bytes that its content may take on a disk; None: ten times its own size and 16 MiB, which fits
            pictures and PNG labels. Larger for what packs better.
    """

    name: str
    urls: tuple[str, ...]
    md5: str | None = None
    size: int | None = None
    unpack_into: str = "."
    sha256: str | None = None
    unpacked_size: int | None = None


@dataclass(frozen=True)
class Card:
    """A data set's origin.

    Attributes:
        homepage: address of the authors' page.
        licence: terms, one or two lines.
        citation: what to cite.
        archives: files that can be fetched without a login.
        by_hand: what to do where a login is needed.
        download_bytes: of all archives together, roughly; None: not known.
    """

    homepage: str
    licence: str
    citation: str
    archives: tuple[Archive, ...] = ()
    by_hand: str | None = None
    download_bytes: int | None = None
