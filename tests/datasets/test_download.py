import errno
import hashlib
import io
import random
import re
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from diffcut_bench.config import instantiate, load_config
from diffcut_bench.datasets import download
from diffcut_bench.datasets.card import Archive
from diffcut_bench.datasets.download import fetch
from diffcut_bench.errors import UserError

BENCHMARKS = ("voc", "context", "coco_object", "cityscapes27", "ade20k")
BODY = random.Random(0).randbytes(3_000_000)
MD5 = hashlib.md5(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves BODY in the manner that the first folder of the path names; records (path, Range, bytes sent)."""

    daemon_threads = True

    def __init__(self, tls: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.log: list[tuple[str, str | None, int]] = []

    def url(self, manner: str) -> str:
        return f"https://127.0.0.1:{self.server_port}/{manner}"

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
        elif manner == "to-http":
            self.answer(302, {"Location": f"http://127.0.0.1:{self.server.server_port}/file"})
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
def server(monkeypatch: pytest.MonkeyPatch, tls: ssl.SSLContext) -> Iterator[Server]:
    monkeypatch.setattr(download, "_PAUSE_S", 0.0)
    with Server(tls) as running:
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


def test_no_network_names_addresses_and_the_place_by_hand(tmp_path, tls):
    server = Server(tls)
    url = server.url("file")
    server.server_close()
    with pytest.raises(UserError) as caught:
        fetch(archive(url, f"{url}2"), tmp_path)
    assert f"{url} (" in caught.value.where
    assert f"{url}2 (" in caught.value.where
    assert str(tmp_path / "data.tar") in caught.value.hint


def test_only_https(server, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(BODY)
    plain = server.url("file").replace("https", "http")
    with pytest.raises(UserError) as caught:
        fetch(archive(secret.as_uri(), server.url("to-ftp"), server.url("to-http"), plain), tmp_path)
    assert "unknown url type: file" in caught.value.where
    assert "unknown url type: ftp" in caught.value.where
    assert caught.value.where.count("unknown url type: http)") == 2
    assert list(tmp_path.iterdir()) == [secret]


def test_a_server_that_is_not_who_it_says_gives_nothing(server, tmp_path, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(UserError) as caught:
        fetch(archive(server.url("file")), tmp_path)
    assert "CERTIFICATE_VERIFY_FAILED" in caught.value.where
    assert list(tmp_path.iterdir()) == []


def test_every_known_archive_comes_over_https():
    built = [instantiate("dataset", load_config([f"dataset={name}"]).dataset) for name in BENCHMARKS]
    urls = [url for benchmark in built for archive in benchmark.card.archives for url in archive.urls]
    assert len(urls) >= 6
    assert all(url.startswith("https://") for url in urls)


def test_credentials_of_an_address_are_not_shown(tmp_path, monkeypatch):
    with pytest.raises(UserError) as caught:
        fetch(archive("http://me:secret@127.0.0.1/file?token=hidden"), tmp_path)
    assert "http://127.0.0.1/file?token=***" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_without_a_published_checksum_the_first_one_met_is_kept_and_compared(server, tmp_path):
    unknown, digest = archive(server.url("file"), md5=None), hashlib.sha256(BODY).hexdigest()
    said: list[str] = []
    path = fetch(unknown, tmp_path, say=said.append)
    record = tmp_path / "data.tar.sha256"
    assert record.read_text() == f"{digest}  data.tar\n"
    assert len(said) == 1
    assert digest in said[0]
    assert str(record) in said[0]
    fetch(unknown, tmp_path, say=said.append)
    path.unlink()
    fetch(unknown, tmp_path, say=said.append)
    assert len(said) == 1
    record.write_text(f"{'0' * 64}  data.tar\n")
    with pytest.raises(UserError, match=f"expected SHA-256 {'0' * 64}, found {digest}") as caught:
        fetch(unknown, tmp_path, say=said.append)
    assert f"delete {record}" in caught.value.hint


def test_a_file_got_by_hand_is_remembered_too(tmp_path):
    (tmp_path / "data.tar").write_bytes(BODY)
    said: list[str] = []
    fetch(archive("https://127.0.0.1/never-asked", md5=None), tmp_path, say=said.append)
    assert hashlib.sha256(BODY).hexdigest() in said[0]


def test_a_published_sha256_is_compared(server, tmp_path):
    with pytest.raises(UserError, match=f"expected SHA-256 {'0' * 64}"):
        fetch(Archive("data.tar", (server.url("file"),), sha256="0" * 64), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_is_none_is_a_user_error(tmp_path):
    (tmp_path / "data.tar").write_bytes(BODY)
    (tmp_path / "data.tar.sha256").write_bytes(b"\xff\x00")
    with pytest.raises(UserError, match="no SHA-256 in it"):
        fetch(archive("https://127.0.0.1/never-asked", md5=None), tmp_path)


@pytest.mark.parametrize("name", ["data.tar.part", "data.tar.sha256", ".data.tar.sha256.new"])
def test_nothing_is_written_through_a_link_that_lies_there(server, tmp_path, name):
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / name).symlink_to(outside)
    if name == "data.tar.sha256":
        outside.write_text(hashlib.sha256(BODY).hexdigest())
    kept = outside.read_bytes()
    fetch(archive(server.url("file"), md5=None), folder)
    assert outside.read_bytes() == kept


def test_more_than_was_announced_is_not_received(server, tmp_path):
    with pytest.raises(UserError, match=r"expected 1000 bytes, found 1048576"):
        fetch(archive(server.url("no-ranges"), size=1000), tmp_path)


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
        fetch(archive("https://127.0.0.1/never-asked"), tmp_path / "taken")
