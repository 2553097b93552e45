"""Fetches a data set's archives, over https alone. It may be interrupted and run again."""

import hashlib
import os
import re
import time
import urllib.request as web
from collections.abc import Callable
from contextlib import AbstractContextManager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError

from filelock import FileLock

from diffcut_bench.datasets.benchmark import Benchmark
from diffcut_bench.datasets.card import Archive
from diffcut_bench.datasets.unpacking import file_error, unpack
from diffcut_bench.errors import UserError
from diffcut_bench.store import write_atomically

Report = Callable[[int, int | None], None]
Say = Callable[[str], None]
Progress = Callable[[str, str], AbstractContextManager[Report]]

_TRIES = 5
_PAUSE_S = 1.0
_BLOCK = 1 << 20
_HANDLERS: tuple[type[web.BaseHandler], ...] = (
    web.ProxyHandler,
    web.HTTPSHandler,
    web.UnknownHandler,  # refuses every other kind of address, also after a redirect
    web.HTTPRedirectHandler,
    web.HTTPErrorProcessor,
    web.HTTPDefaultErrorHandler,
)


def fetch_originals(benchmark: Benchmark, progress: Progress, say: Say) -> None:
    """Fetch and unpack the archives of a benchmark's published split into its root; what is there is left alone.

    Args:
        benchmark: with its root set.
        progress: a bar for a walk of this name and unit; see `diffcut_bench.commands.terminal.progress`.
        say: called with the terms of the data set, and with what happens.

    Raises:
        UserError: a login is needed, another split is chosen, or an archive can't be fetched, unpacked or written.
    """
    card, root = benchmark.card, benchmark.root_path
    say(f"{benchmark.name}: {card.homepage}\nlicence: {card.licence}\ncite: {card.citation}")
    if card.by_hand is not None or not card.archives:
        what = f"{benchmark.name} can't be fetched without a login"
        raise UserError(what, card.homepage, card.by_hand or "see there")
    if root is None:
        raise UserError("dataset.root is not set", "where the archives are to go", "add dataset.root=DIR")
    if benchmark.n_expected is None:
        what = "only the published split can be fetched"
        raise UserError(what, f"dataset={benchmark.name}", "leave split and ids out")
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".downloading.lock"):  # two of them would write the same partial file
            _fetch_and_unpack(benchmark, root, progress, say)
    except OSError as error:
        what = f"can't write ({error.strerror or error})"
        raise UserError(what, str(root), "choose another dataset.root=DIR") from error


def _fetch_and_unpack(benchmark: Benchmark, root: Path, progress: Progress, say: Say) -> None:
    archives = benchmark.card.archives
    try:
        benchmark.find(root)
    except UserError:  # something is missing: what was unpacked before, and lost since, is unpacked again
        for archive in archives:
            (root / archive.unpack_into / f".unpacked-{archive.name}").unlink(missing_ok=True)
    for archive in archives:
        with progress(archive.name, "bytes") as report:
            path = fetch(archive, root, report, say=say)
        say(f"unpacking {archive.name}")
        unpack(path, root, archive.unpack_into, archive.unpacked_size)


def fetch(
    archive: Archive,
    folder: Path,
    report: Report | None = None,
    timeout_s: float = 60,
    say: Say = lambda line: None,
) -> Path:
    """Download an archive. A partial ``.part`` file is continued; a complete and correct file is left alone.

    Where no checksum was published, the SHA-256 of the first download is written to ``<archive name>.sha256``, in the
    form of ``sha256sum``, and every later download has to match it.

    Args:
        archive: what to fetch.
        folder: where to put it; made if missing.
        report: called with the bytes so far and the bytes in all (None if unknown) after every block.
        timeout_s: seconds without an answer after which a connection counts as lost.
        say: called with a warning where no checksum was published.

    Returns:
        The file.

    Raises:
        UserError: no address gave the file, its size or checksum is wrong, or it can't be written.
    """
    target = folder / archive.name
    part = folder / f"{archive.name}.part"
    record = folder / f"{archive.name}.sha256"
    try:
        published = archive.md5 is not None or archive.sha256 is not None
        sha256 = archive.sha256 if published else _recorded(record)
        if not target.is_file() or _mismatch(target, archive, sha256) is not None:
            folder.mkdir(parents=True, exist_ok=True)
            if part.is_symlink():
                part.unlink()  # or the download would be written through it
            url = _receive_from_any(archive, part, target, report, timeout_s)
            mismatch = _mismatch(part, archive, sha256)
            if mismatch is not None:
                part.unlink()
                hint = "run again to fetch it from the beginning"
                if not published and sha256 is not None:
                    hint += f"; if its authors have replaced the file, delete {record} first"
                raise UserError(f"the downloaded file is damaged: {mismatch}", url, hint)
            part.replace(target)
        if not published and sha256 is None:
            found = _digest(target, "sha256")
            write_atomically(record, f"{found}  {archive.name}\n", "make room and run again; the archive is kept")
            say(
                f"warning: no checksum of {archive.name} was published. Its SHA-256 is {found}; "
                f"later downloads are compared with it; it is kept in {record}"
            )
    except OSError as error:
        raise file_error(error, target) from error
    return target


def _receive_from_any(archive: Archive, part: Path, target: Path, report: Report | None, timeout_s: float) -> str:
    """Complete ``part`` from the first address that gives it, over several connections if needed."""
    failures = []
    for url in archive.urls:
        failure = ""
        for attempt in range(_TRIES):
            time.sleep(attempt * _PAUSE_S)
            try:
                _receive(url, archive, part, report, timeout_s)
                return url
            except ConnectionError as error:
                failure = str(error)
            except URLError as error:
                failure = str(error if isinstance(error, HTTPError) else error.reason)
                break
        failures.append(f"{url} ({failure})")
    hint = f"run again to continue where it stopped, or get the file by hand and save it as {target.absolute()}"
    raise UserError(f"{archive.name} could not be downloaded", ", ".join(failures) or "no address is known", hint)


def _receive(url: str, archive: Archive, part: Path, report: Report | None, timeout_s: float) -> None:
    """Append to ``part`` what one connection gives: a ConnectionError if another one may continue, an URLError if this
    address does not have the file."""
    have = part.stat().st_size if part.exists() else 0
    if have and have == archive.size:
        return
    try:
        response = _open(url, have, timeout_s)
    except HTTPError as error:
        if error.code != 416 or not have:
            raise
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return  # the part is complete
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
            have = 0  # the server does not support ranges: start over
        block = _read(response)
        page = have == 0 and block.lstrip().lower().startswith((b"<html", b"<!doctype"))
        if page or response.headers.get_content_type() == "text/html":
            raise URLError("the server answered with a web page")
        with part.open("ab" if have else "wb") as file:
            while block and (archive.size is None or have <= archive.size):
                file.write(block)
                have += len(block)
                if report is not None:
                    report(have, total)
                block = _read(response)
            os.fsync(file.fileno())
    longer = archive.size is not None and have > archive.size  # it was cut there, and fails the check of its size
    if total is not None and have < total and not longer:  # http.client does not report an early end
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


def _mismatch(path: Path, archive: Archive, sha256: str | None) -> str | None:
    """Expected and found size or checksum where they differ."""
    size = path.stat().st_size
    if archive.size not in (None, size):
        return f"expected {archive.size} bytes, found {size}"
    for name, kind, expected in (("MD5", "md5", archive.md5), ("SHA-256", "sha256", sha256)):
        if expected is not None and (found := _digest(path, kind)) != expected:
            return f"expected {name} {expected}, found {found}"
    return None


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def _recorded(record: Path) -> str | None:
    """The SHA-256 of an earlier download."""
    if not record.is_file():
        return None
    words = record.read_text(errors="replace").split()
    if not words or not re.fullmatch(r"[0-9a-f]{64}", words[0]):
        raise UserError("no SHA-256 in it", str(record), "delete it, and the next download's is written there")
    return words[0]
