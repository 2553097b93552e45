"""Unpacks a data set's archive safely, whatever is in it: nothing is written outside the data set's folder, no link is
made or followed, and no more is written than the archive may hold."""

import errno
import gzip
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from io import BufferedReader
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from diffcut_bench.errors import UserError

_BLOCK = 1 << 20
_LEAST = 4096  # bytes that a file or folder takes of a disk at least, so that their number is limited too
# Pictures, and label maps as PNG, are compressed already: archives of them hold about their own size.
_TIMES = 10
_SLACK = 16 << 20  # for small archives
_OURS = (".unpacked-", ".unpacking-")
_LONGEST_READ = 16 << 20  # content is read in blocks; only a false header asks for more at once
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError)


def unpack(path: Path, root: Path, into: str = ".", unpacked_size: int | None = None) -> None:
    """Unpack a .tar, .tar.gz, .tgz or .zip beside what is there already; a second call does nothing.

    Args:
        path: the archive.
        root: the data set's folder; made if missing. Nothing is written through links below it.
        into: folder below it where the content goes. ``.unpacked-<archive name>`` in it marks it as done.
        unpacked_size: bytes that the content may take, each file and folder counted as 4096 at least; None: ten times
            the archive's own size and 16 MiB.

    Raises:
        UserError: the archive is damaged or of another kind; it holds links, devices or paths outside its folder; it
            unpacks to more than it may; a link is in the way (nothing is unpacked in all these cases); or a file can't
            be written.
    """
    destination = root / into
    marker = destination / f".unpacked-{path.name}"
    # Below the destination, so that moving is renaming; a fixed name, so that the next run clears what a crash left.
    temporary = destination / f".unpacking-{path.name}"
    try:
        for folder in (destination, *destination.parents):
            if folder == root:
                break
            _refuse_link(folder)
        if os.path.lexists(marker) and not marker.is_symlink():
            return
        _refuse_link(marker)
        _refuse_link(temporary)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            _extract(path, temporary, _Budget(path, unpacked_size))
            for entry in sorted(temporary.rglob("*")):
                _refuse_link(destination / entry.relative_to(temporary))
            _move_into(temporary, destination)
            marker.touch(exist_ok=False)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except _DAMAGED as error:
        hint = "delete it and fetch it again"
        raise UserError(f"the archive is truncated or damaged ({error})", str(path), hint) from error
    except OSError as error:
        raise file_error(error, destination) from error


class _Budget:
    """Bytes that may still be written, and read from a compressed stream."""

    def __init__(self, path: Path, unpacked_size: int | None) -> None:
        self.path = path
        self.limit = _TIMES * path.stat().st_size + _SLACK if unpacked_size is None else unpacked_size
        self.left = self.limit

    def take(self, size: int) -> None:
        """Spend what one entry takes."""
        self.left -= max(size, _LEAST)
        if self.left < 0:
            self.exceed()

    def exceed(self) -> None:
        what = f"the archive unpacks to more than {self.limit} bytes, which is more than it should hold"
        hint = "if you trust it, unpack it by hand and leave --download out"
        raise UserError(what, str(self.path), f"{hint}; a data set's file sets Archive.unpacked_size")


class _LimitedStream:
    """A decompressed tar stream that ends with an error when headers, padding or content make it too long."""

    def __init__(self, stream: gzip.GzipFile | BufferedReader, budget: _Budget) -> None:
        # Each entry counts for `_LEAST` bytes or more; with header and padding it is at most twice as long.
        self.stream, self.budget, self.left = stream, budget, 2 * budget.limit + tarfile.RECORDSIZE

    def read(self, size: int) -> bytes:
        if size > _LONGEST_READ:
            raise tarfile.ReadError(f"a header of {size} bytes")
        block = self.stream.read(size)
        self.left -= len(block)
        if self.left < 0:
            self.budget.exceed()
        return block

    def tell(self) -> int:
        return self.stream.tell()

    def seek(self, offset: int) -> int:
        return self.stream.seek(offset)


def _extract(path: Path, folder: Path, budget: _Budget) -> None:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            _extract_zip(archive, folder, budget)
    elif path.name.endswith((".tar.gz", ".tgz")):
        with gzip.open(path) as stream:
            _extract_tar(_LimitedStream(stream, budget), folder, budget)
    elif path.suffix == ".tar":
        with path.open("rb") as file:
            _extract_tar(_LimitedStream(file, budget), folder, budget)
    else:
        raise UserError("unknown kind of archive", str(path), "known are .tar, .tar.gz, .tgz and .zip")


def _extract_zip(archive: zipfile.ZipFile, folder: Path, budget: _Budget) -> None:
    for entry in archive.infolist():
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _unsafe(budget.path, entry.filename, "a link or a device")
        if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _unsafe(budget.path, entry.filename, "encrypted, or packed in an unusual way")
        target = _target(budget.path, entry.filename, folder)
        budget.take(entry.file_size)
        _write(None if entry.is_dir() else archive.open(entry), target)


def _extract_tar(stream: _LimitedStream, folder: Path, budget: _Budget) -> None:
    with tarfile.open(fileobj=stream, mode="r:") as archive:  # type: ignore[call-overload]
        for entry in archive:
            if not (entry.isreg() or entry.isdir()) or entry.issparse():
                raise _unsafe(budget.path, entry.name, "a link, a device or a sparse file")
            target = _target(budget.path, entry.name, folder)
            budget.take(entry.size)
            _write(archive.extractfile(entry), target)
        # tarfile takes a truncated or broken header for the end; reading the rest also checks gzip's checksum.
        ended = stream.tell() == archive.offset + tarfile.BLOCKSIZE
        if not ended or any(block.strip(b"\0") for block in iter(lambda: stream.read(_BLOCK), b"")):
            raise tarfile.ReadError("it breaks off")


def _write(content: IO[bytes] | None, target: Path) -> None:
    """A file with the content of an entry, or a folder. It is in a new folder, in which no links are ever made."""
    (target.parent if content else target).mkdir(parents=True, exist_ok=True)
    if content:
        with content, target.open("wb") as file:
            shutil.copyfileobj(content, file, _BLOCK)


def _target(path: Path, name: str, folder: Path) -> Path:
    """The path of an entry, inside ``folder`` however Windows or POSIX reads its name."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if PureWindowsPath(name).anchor or name.startswith("/") or ".." in parts or "\0" in name:
        raise _unsafe(path, name, "it leads outside")
    if parts and parts[0].startswith(_OURS):
        raise _unsafe(path, name, "a name that marks what is unpacked")
    return folder.joinpath(*parts)


def _move_into(source: Path, destination: Path) -> None:
    for entry in source.iterdir():
        target = destination / entry.name
        if entry.is_dir() and target.is_dir() and not target.is_symlink():
            _move_into(entry, target)
        else:
            entry.replace(target)  # a rename replaces a link and does not follow it


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        hint = "remove the link, or give the folder itself as dataset.root"
        what = "a link is in the way: an archive is not unpacked through it"
        raise UserError(what, f"{path} -> {path.readlink()}", hint)


def _unsafe(path: Path, name: str, why: str) -> UserError:
    hint = "don't use it; get it from its authors' page"
    return UserError(f"unsafe entry in the archive: {name} ({why})", str(path), hint)


def file_error(error: OSError, where: Path) -> UserError:
    """The user error for a file that can't be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError("the disk is full", str(where), "make room and run again; what was fetched is kept")
    return UserError(f"file error: {error}", str(where), "check the path and its permissions, then run again")
