"""Fetches a data set's archives and unpacks them. Both steps may be interrupted and run again."""

import errno
import gzip
import hashlib
import os
import re
import shutil
import tarfile
import time
import urllib.request as web
import zipfile
import zlib
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from io import BufferedReader
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError, URLError

from diffcut_bench.datasets.card import Archive
from diffcut_bench.errors import UserError

Report = Callable[[int, int | None], None]

_TRIES = 5
_PAUSE_S = 1.0
_BLOCK = 1 << 20
_HANDLERS: tuple[type[web.BaseHandler], ...] = (
    *(web.ProxyHandler, web.HTTPHandler, web.HTTPSHandler, web.UnknownHandler),
    *(web.HTTPRedirectHandler, web.HTTPErrorProcessor, web.HTTPDefaultErrorHandler),
)
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError)


def fetch(archive: Archive, folder: Path, report: Report | None = None, timeout_s: float = 60) -> Path:
    """Download an archive; a partial ``.part`` file is gone on with, a complete and correct file is left alone.

    Args:
        archive: what to fetch.
        folder: where to put it; made if missing.
        report: called with bytes so far and bytes in all (None if unknown) after every block.
        timeout_s: seconds without an answer after which a connection counts as lost.

    Returns:
        The file.

    Raises:
        UserError: no address gave the file, its size or MD5 is not the expected one, or it can't be written.
    """
    target = folder / archive.name
    part = folder / f"{archive.name}.part"
    try:
        if target.is_file() and _mismatch(target, archive) is None:
            return target
        folder.mkdir(parents=True, exist_ok=True)
        failures = []
        for url in archive.urls:
            failure = _try_url(url, archive, part, report, timeout_s)
            if failure is None:
                break
            failures.append(f"{url} ({failure})")
        else:
            raise UserError(
                f"{archive.name} could not be downloaded",
                ", ".join(failures) or "no address is known",
                f"run again to go on where it stopped, or get the file by hand and save it as {target.absolute()}",
            )
        mismatch = _mismatch(part, archive)
        if mismatch is not None:
            part.unlink()
            raise UserError(f"the downloaded file is damaged: {mismatch}", url, "run again: it is fetched anew")
        part.replace(target)
    except OSError as error:
        raise _file_error(error, target) from error
    return target


def unpack(path: Path, destination: Path) -> None:
    """Unpack a .tar, .tar.gz, .tgz or .zip; entries join what is there, and a second call does nothing.

    Args:
        path: the archive.
        destination: where its content goes; made if missing. ``.unpacked-<archive name>`` in it marks it as done.

    Raises:
        UserError: the archive is damaged or of another kind, it points outside its folder, or a file can't be written.
    """
    marker = destination / f".unpacked-{path.name}"
    if marker.exists():
        return
    # Below the destination, so that moving is renaming; a fixed name, so that the next run clears what a crash left.
    temporary = destination / f".unpacking-{path.name}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        _extract(path, temporary)
        _move_into(temporary, destination)
        marker.touch()
    except tarfile.FilterError as error:
        raise _unsafe(path, error.tarinfo.name) from error
    except _DAMAGED as error:
        hint = "delete it and fetch it again"
        raise UserError(f"the archive is truncated or damaged ({error})", str(path), hint) from error
    except OSError as error:
        raise _file_error(error, destination) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _try_url(url: str, archive: Archive, part: Path, report: Report | None, timeout_s: float) -> str | None:
    """Complete ``part`` from one address, over several connections if need be; why not, if that fails."""
    failure = ""
    for attempt in range(_TRIES):
        time.sleep(attempt * _PAUSE_S)
        try:
            _receive(url, archive, part, report, timeout_s)
            return None
        except ConnectionError as error:
            failure = str(error)
        except URLError as error:
            return str(error) if isinstance(error, HTTPError) else str(error.reason)
    return failure


def _receive(url: str, archive: Archive, part: Path, report: Report | None, timeout_s: float) -> None:
    """Append to ``part`` what one connection gives.

    Raises:
        ConnectionError: it broke off, and another may go on.
        URLError: this address does not have the file.
        OSError: the file can't be written.
    """
    have = part.stat().st_size if part.exists() else 0
    if have and have == archive.size:
        return
    try:
        response = _open(url, have, timeout_s)
    except HTTPError as error:
        if error.code != 416 or not have:
            raise
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return  # all of it was there
        part.unlink()
        raise ConnectionError("the partial file does not fit the server's") from error
    with response:
        length = response.headers.get("Content-Length")
        total = int(length) if length else archive.size
        if response.status == 206:
            match = re.fullmatch(rf"bytes {have}-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            if match is None:
                part.unlink(missing_ok=True)
                raise ConnectionError("the server sent another range than the one asked for")
            total = int(match[1]) if match[1] != "*" else archive.size
        else:
            have = 0  # the server does not do ranges: start over
        block = _read(response)
        page = have == 0 and block.lstrip().lower().startswith((b"<html", b"<!doctype"))
        if page or response.headers.get_content_type() == "text/html":
            raise URLError("the server answered with a web page")
        with part.open("ab" if have else "wb") as file:
            while block:
                file.write(block)
                have += len(block)
                if report is not None:
                    report(have, total)
                block = _read(response)
            os.fsync(file.fileno())
    if total is not None and have < total:  # http.client takes an early end for the end
        raise ConnectionError(f"the connection was lost after {have} of {total} bytes")


def _open(url: str, have: int, timeout_s: float) -> HTTPResponse:
    opener = web.OpenerDirector()  # not build_opener, which would read file: and ftp: addresses too
    for handler in _HANDLERS:
        opener.add_handler(handler())
    headers = {"User-Agent": "diffcut-bench"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response: HTTPResponse = opener.open(web.Request(url, headers=headers), timeout=timeout_s)
    except URLError:
        raise
    except (OSError, HTTPException) as error:
        raise ConnectionError(f"no answer: {error}") from error
    return response


def _read(response: HTTPResponse) -> bytes:
    try:
        return response.read(_BLOCK)
    except (OSError, HTTPException) as error:
        raise ConnectionError(f"the connection was lost: {error}") from error


def _mismatch(path: Path, archive: Archive) -> str | None:
    """Expected and found size or MD5 where they differ."""
    size = path.stat().st_size
    if archive.size not in (None, size):
        return f"expected {archive.size} bytes, found {size}"
    if archive.md5 is not None:
        with path.open("rb") as file:
            md5 = hashlib.file_digest(file, "md5").hexdigest()
        if md5 != archive.md5:
            return f"expected MD5 {archive.md5}, found {md5}"
    return None


def _extract(path: Path, folder: Path) -> None:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():  # zipfile would quietly put these elsewhere
                if name.startswith("/") or ".." in PurePosixPath(name.replace("\\", "/")).parts:
                    raise _unsafe(path, name)
            archive.extractall(folder)
    elif path.name.endswith((".tar.gz", ".tgz")):
        with gzip.open(path) as stream:
            _extract_tar(stream, folder)
    elif path.suffix == ".tar":
        with path.open("rb") as file:
            _extract_tar(file, folder)
    else:
        raise UserError("unknown kind of archive", str(path), "known are .tar, .tar.gz, .tgz and .zip")


def _extract_tar(stream: gzip.GzipFile | BufferedReader, folder: Path) -> None:
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        archive.extractall(folder, filter="data")
        # tarfile takes a cut or broken header for the end; reading on to the end also checks gzip's checksum.
        ended = stream.tell() == archive.offset + tarfile.BLOCKSIZE
        if not ended or any(block.strip(b"\0") for block in iter(lambda: stream.read(_BLOCK), b"")):
            raise tarfile.ReadError("it breaks off")


def _move_into(source: Path, destination: Path) -> None:
    for entry in source.iterdir():
        target = destination / entry.name
        if target.is_dir() and entry.is_dir() and not entry.is_symlink():
            _move_into(entry, target)
        else:
            entry.replace(target)


def _unsafe(path: Path, name: str) -> UserError:
    return UserError(f"unsafe entry in the archive: {name}", str(path), "don't use it; get it from its authors' page")


def _file_error(error: OSError, where: Path) -> UserError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError("the disk is full", str(where), "make room and run again; what was fetched is kept")
    return UserError(f"file error: {error}", str(where), "check the path and its permissions, then run again")
