import errno
import gzip
import hashlib
import io
import random
import re
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from diffcut_bench.datasets import download
from diffcut_bench.datasets.card import Archive
from diffcut_bench.datasets.download import fetch, unpack
from diffcut_bench.errors import UserError

BODY = random.Random(0).randbytes(3_000_000)
MD5 = hashlib.md5(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves BODY in the manner that the first folder of the path names; records (path, Range, bytes sent)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.log: list[tuple[str, str | None, int]] = []

    def url(self, manner: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{manner}"

    def ranges(self) -> list[str | None]:
        return [asked for _, asked, _ in self.log]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None: ...

    def answer(self, code: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.server.log.append((self.path, self.headers.get("Range"), len(body)))
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        manner, size = self.path.strip("/"), len(BODY)
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(found[1]) if found else 0
        first = not self.server.log
        if manner == "missing":
            self.answer(404, {})
        elif manner == "moved":
            self.answer(302, {"Location": "/file"})
        elif manner == "to-ftp":
            self.answer(302, {"Location": "ftp://127.0.0.1/file"})
        elif manner == "page":
            self.answer(200, {"Content-Type": "text/html; charset=utf-8"}, b"please log in")
        elif manner == "disguised-page":
            self.answer(200, {"Content-Type": "application/x-tar"}, b"\n <!DOCTYPE html><p>please log in")
        elif manner == "wrong-range" and found:
            self.answer(206, {"Content-Range": f"bytes 0-{size - 1}/{size}", "Content-Length": f"{size}"}, BODY)
        elif not found or manner in ("no-ranges", "always-drops"):
            drop = manner == "always-drops" or (manner == "drops" and first)
            self.answer(200, {"Content-Length": f"{size}"}, BODY[: 2_000_000 if drop else size])
        elif start >= size:
            self.answer(416, {"Content-Range": f"bytes */{size}"})
        else:
            length = {"Content-Length": f"{size - start}"}
            self.answer(206, {"Content-Range": f"bytes {start}-{size - 1}/{size}"} | length, BODY[start:])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "_PAUSE_S", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def archive(*urls: str, md5: str | None = MD5, size: int | None = None) -> Archive:
    return Archive("data.tar", urls, md5, size)


def test_fetches(server, tmp_path):
    seen = []
    path = fetch(archive(server.url("file"), size=len(BODY)), tmp_path / "new", lambda *step: seen.append(step))
    assert path == tmp_path / "new" / "data.tar"
    assert path.read_bytes() == BODY
    assert list(path.parent.iterdir()) == [path]
    assert seen == [(1 << 20, 3_000_000), (1 << 21, 3_000_000), (3_000_000, 3_000_000)]


def test_resumes_and_transfers_only_the_rest(server, tmp_path):
    (tmp_path / "data.tar.part").write_bytes(BODY[:2_500_000])
    seen = []
    path = fetch(archive(server.url("file")), tmp_path, lambda *step: seen.append(step))
    assert path.read_bytes() == BODY
    assert server.log == [("/file", "bytes=2500000-", 500_000)]
    assert seen == [(3_000_000, 3_000_000)]


def test_range_survives_a_redirect(server, tmp_path):
    (tmp_path / "data.tar.part").write_bytes(BODY[:2_500_000])
    assert fetch(archive(server.url("moved")), tmp_path).read_bytes() == BODY
    assert server.log[-1] == ("/file", "bytes=2500000-", 500_000)


@pytest.mark.parametrize("manner", ["no-ranges", "wrong-range"])
def test_starts_over_where_ranges_are_not_honoured(server, tmp_path, manner):
    (tmp_path / "data.tar.part").write_bytes(BODY[:2_500_000])
    assert fetch(archive(server.url(manner), md5=None), tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("size", [None, len(BODY)])
def test_complete_part_is_not_transferred_again(server, tmp_path, size):
    (tmp_path / "data.tar.part").write_bytes(BODY)
    assert fetch(archive(server.url("file"), size=size), tmp_path).read_bytes() == BODY
    assert server.log == ([("/file", "bytes=3000000-", 0)] if size is None else [])


def test_part_that_is_too_long_is_fetched_anew(server, tmp_path):
    (tmp_path / "data.tar.part").write_bytes(BODY + b"more")
    assert fetch(archive(server.url("file"), md5=None), tmp_path).read_bytes() == BODY


def test_dropped_connection_goes_on_from_where_it_was(server, tmp_path):
    assert fetch(archive(server.url("drops")), tmp_path).read_bytes() == BODY
    assert server.ranges() == [None, "bytes=2000000-"]


def test_gives_up_after_a_few_drops_and_keeps_the_part(server, tmp_path):
    with pytest.raises(UserError, match="could not be downloaded") as caught:
        fetch(archive(server.url("always-drops")), tmp_path)
    assert "lost after 2000000 of 3000000 bytes" in caught.value.where
    assert len(server.log) == 5
    assert (tmp_path / "data.tar.part").read_bytes() == BODY[:2_000_000]


@pytest.mark.parametrize(
    ("expected", "says"),
    [
        ({"md5": "0" * 32}, f"expected MD5 {'0' * 32}, found {MD5}"),
        ({"size": 2_999_999}, "expected 2999999 bytes, found 3000000"),
    ],
)
def test_damaged_file_is_removed(server, tmp_path, expected, says):
    with pytest.raises(UserError, match=says) as caught:
        fetch(archive(server.url("file"), **expected), tmp_path)
    assert "run again" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_file_that_is_there_is_not_fetched_again(server, tmp_path):
    (tmp_path / "data.tar").write_bytes(BODY)
    assert fetch(archive(server.url("file"), size=len(BODY)), tmp_path) == tmp_path / "data.tar"
    assert server.log == []


def test_wrong_file_that_is_there_is_replaced(server, tmp_path):
    (tmp_path / "data.tar").write_bytes(b"half")
    assert fetch(archive(server.url("file")), tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("manner", ["page", "disguised-page"])
def test_web_page_is_refused(server, tmp_path, manner):
    part = tmp_path / "data.tar.part"
    part.write_bytes(BODY[:10])
    with pytest.raises(UserError) as caught:
        fetch(archive(server.url(manner), md5=None), tmp_path)
    assert f"{server.url(manner)} (the server answered with a web page)" in caught.value.where
    assert list(tmp_path.iterdir()) == [part]
    assert part.read_bytes() == BODY[:10]


def test_next_address_is_tried(server, tmp_path):
    assert fetch(archive(server.url("missing"), server.url("page"), server.url("file")), tmp_path).read_bytes() == BODY
    assert [path for path, _, _ in server.log] == ["/missing", "/page", "/file"]


def test_no_network_names_addresses_and_the_place_by_hand(tmp_path):
    server = Server()
    url = server.url("file")
    server.server_close()
    with pytest.raises(UserError) as caught:
        fetch(archive(url, f"{url}2"), tmp_path)
    assert f"{url} (" in caught.value.where
    assert f"{url}2 (" in caught.value.where
    assert str(tmp_path / "data.tar") in caught.value.hint


def test_only_http(server, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(BODY)
    with pytest.raises(UserError) as caught:
        fetch(archive(secret.as_uri(), server.url("to-ftp")), tmp_path)
    assert "unknown url type: file" in caught.value.where
    assert "unknown url type: ftp" in caught.value.where
    assert list(tmp_path.iterdir()) == [secret]


def test_full_disk_keeps_the_part(server, tmp_path, monkeypatch):
    class SmallDisk(io.FileIO):
        def write(self, block: bytes) -> int:
            if self.tell() + len(block) > 2_500_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(block)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda self, mode: SmallDisk(self, mode))
        with pytest.raises(UserError, match="the disk is full"):
            fetch(archive(server.url("file")), tmp_path)
    kept = (tmp_path / "data.tar.part").stat().st_size
    assert kept == 1 << 21
    assert fetch(archive(server.url("file")), tmp_path).read_bytes() == BODY
    assert server.ranges() == [None, f"bytes={kept}-"]


def test_unwritable_place_is_a_user_error(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match="file error"):
        fetch(archive("http://127.0.0.1/never-asked"), tmp_path / "taken")


FILES = {"VOC/a.txt": b"a" * 3000, "VOC/deep/b.txt": b"b" * 700, "readme": b"hello"}


def pack(path: Path, files: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in files.items():
                packed.writestr(name, content)
        return path
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as packed:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content))
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


KINDS = ["x.tar", "x.tar.gz", "x.tgz", "x.zip"]


@pytest.mark.parametrize("name", KINDS)
def test_unpacks_beside_what_is_there(tmp_path, name):
    (tmp_path / "out/VOC/deep").mkdir(parents=True)
    (tmp_path / "out/VOC/deep/mine").write_bytes(b"kept")
    (tmp_path / "out/readme").write_bytes(b"old")
    unpack(pack(tmp_path / name, FILES), tmp_path / "out")
    assert content(tmp_path / "out") == FILES | {"VOC/deep/mine": b"kept", f".unpacked-{name}": b""}
    assert not (tmp_path / f"out/.unpacking-{name}").exists()


def test_second_call_does_nothing(tmp_path):
    path = pack(tmp_path / "x.tar", FILES)
    unpack(path, tmp_path / "out")
    (tmp_path / "out/readme").write_bytes(b"mine now")
    path.unlink()
    unpack(path, tmp_path / "out")
    assert (tmp_path / "out/readme").read_bytes() == b"mine now"


def pack_with_link(path: Path) -> Path:
    with tarfile.open(pack(path, FILES), "a") as packed:
        link = tarfile.TarInfo("latest")
        link.type, link.linkname = tarfile.SYMTYPE, "VOC"
        packed.addfile(link)
    return path


def test_unpacks_again_after_a_crash_while_moving(tmp_path):
    for _ in range(2):
        unpack(pack_with_link(tmp_path / "x.tar"), tmp_path / "out")
        (tmp_path / "out/.unpacked-x.tar").unlink()
    assert (tmp_path / "out/latest").readlink() == Path("VOC")
    assert content(tmp_path / "out").items() >= FILES.items()


def test_link_is_not_followed_into_a_folder_of_its_name(tmp_path):
    (tmp_path / "out/latest").mkdir(parents=True)
    with pytest.raises(UserError, match="file error"):
        unpack(pack_with_link(tmp_path / "x.tar"), tmp_path / "out")
    assert list((tmp_path / "out/latest").iterdir()) == []


def test_clears_what_a_crash_left(tmp_path):
    (tmp_path / "out/.unpacking-x.tar").mkdir(parents=True)
    (tmp_path / "out/.unpacking-x.tar/half").write_bytes(b"ha")
    unpack(pack(tmp_path / "x.tar", FILES), tmp_path / "out")
    assert content(tmp_path / "out") == FILES | {".unpacked-x.tar": b""}


def assert_refused(path: Path, what: str) -> UserError:
    with pytest.raises(UserError, match=what) as caught:
        unpack(path, path.parent / "out")
    assert list((path.parent / "out").iterdir()) == []
    assert caught.value.where == str(path)
    return caught.value


# A tar cut within its first file, between two entries, and within a header; the others near their end.
@pytest.mark.parametrize(
    ("name", "keep"), [("x.tar", 3000), ("x.tar", 3584), ("x.tar", 3700), *((name, -30) for name in KINDS[1:])]
)
def test_truncated_archive(tmp_path, name, keep):
    path = pack(tmp_path / name, FILES)
    path.write_bytes(path.read_bytes()[:keep])
    assert "fetch it again" in assert_refused(path, "truncated or damaged").hint


def test_damaged_checksum(tmp_path):
    path = pack(tmp_path / "x.tar.gz", FILES)
    damaged = bytearray(path.read_bytes())
    damaged[-8] ^= 1
    path.write_bytes(damaged)
    assert_refused(path, "CRC")


def test_damaged_header_is_not_taken_for_the_end(tmp_path):
    path = pack(tmp_path / "x.tar", FILES)
    damaged = bytearray(path.read_bytes())
    damaged[3584] ^= 1
    path.write_bytes(gzip.compress(damaged))
    assert_refused(path.rename(tmp_path / "x.tgz"), "breaks off")


@pytest.mark.parametrize("name", KINDS)
def test_entry_outside_the_folder(tmp_path, name):
    path = pack(tmp_path / name, {"good": b"1", "../evil": b"2"})
    assert_refused(path, "unsafe entry in the archive: ../evil")
    assert not list(tmp_path.rglob("evil"))


def test_unknown_kind(tmp_path):
    (tmp_path / "x.rar").write_bytes(b"")
    assert_refused(tmp_path / "x.rar", "unknown kind")
