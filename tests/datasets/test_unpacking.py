import gzip
import io
import random
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from diffcut_bench.datasets.unpacking import unpack
from diffcut_bench.errors import UserError

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


def test_unpacks_again_after_a_crash_while_moving(tmp_path):
    for _ in range(2):
        unpack(pack(tmp_path / "x.tar", FILES), tmp_path / "out")
        (tmp_path / "out/.unpacked-x.tar").unlink()
    assert content(tmp_path / "out") == FILES


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
@pytest.mark.parametrize(
    "evil", ["../evil", "/tmp/evil", "a/../../evil", "..\\evil", "C:/evil", "C:evil", "\\\\host\\evil", "\\evil"]
)
def test_entry_outside_the_folder(tmp_path, name, evil):
    path = pack(tmp_path / name, {"good": b"1", evil: b"2"})
    assert "it leads outside" in assert_refused(path, "unsafe entry in the archive").what
    assert not list(tmp_path.rglob("*evil"))


@pytest.mark.parametrize("name", KINDS)
def test_an_entry_does_not_mark_another_archive_as_unpacked(tmp_path, name):
    assert_refused(pack(tmp_path / name, {".unpacked-labels.zip": b""}), "unsafe entry")


def test_unknown_kind(tmp_path):
    (tmp_path / "x.rar").write_bytes(b"")
    assert_refused(tmp_path / "x.rar", "unknown kind")


# --- links and devices


def tar_of(path: Path, *entries: tuple[str, bytes, str]) -> Path:
    """A tar of (name, kind, link's target or file's content)."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as packed:
        for name, kind, value in entries:
            entry = tarfile.TarInfo(name)
            entry.type = kind
            if kind == tarfile.REGTYPE:
                entry.size = len(value)
                packed.addfile(entry, io.BytesIO(value.encode()))
            else:
                entry.linkname = value
                packed.addfile(entry)
    return path


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.GNUTYPE_SPARSE],
)
@pytest.mark.parametrize("target", ["VOC", "/etc", "../outside"])
def test_links_and_devices_are_refused_wherever_they_lead(tmp_path, kind, target):
    path = tar_of(tmp_path / "x.tar", ("VOC", tarfile.DIRTYPE, ""), ("entry", kind, target))
    assert_refused(path, "unsafe entry in the archive: entry")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out", "x.tar"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_in_a_zip_are_refused(tmp_path, kind):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as packed:
        entry = zipfile.ZipInfo("entry")
        entry.create_system, entry.external_attr = 3, (kind | 0o777) << 16
        packed.writestr(entry, "/etc/passwd")
    assert_refused(tmp_path / "x.zip", "unsafe entry in the archive: entry")


def test_the_chain_of_links_that_deceives_the_data_filter(tmp_path):
    """CVE-2025-4517: a path through links so long that realpath gives up on it, and takes what follows for harmless."""
    long = "d" * 247
    entries: list[tuple[str, bytes, str]] = []
    prefix = ""
    for step in "abcdefghijklmnop":
        entries += [(prefix + long, tarfile.DIRTYPE, ""), (prefix + step, tarfile.SYMTYPE, long)]
        prefix += f"{long}/"
    chain = "/".join("abcdefghijklmnop")
    entries += [
        (f"{chain}/{'l' * 254}", tarfile.SYMTYPE, "../" * 16),
        ("escape", tarfile.SYMTYPE, f"{chain}/{'l' * 254}/../../outside"),
        ("victim", tarfile.LNKTYPE, "escape/victim"),
        ("victim", tarfile.REGTYPE, "overwritten"),
        ("escape/new", tarfile.REGTYPE, "written outside"),
    ]
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "victim").write_text("mine")
    path = tar_of(tmp_path / "x.tar", *entries)
    assert_refused(path, "unsafe entry in the archive: a ")
    assert content(tmp_path / "outside") == {"victim": b"mine"}
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out", "outside", "x.tar"]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("link", ["VOC", "VOC/deep", "VOC/a.txt", "readme", ".", "{mark}", "{work}"])
@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_that_lies_in_the_destination_is_not_written_through(tmp_path, name, link, dangling):
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    (outside / "a.txt").write_bytes(b"mine")
    before = content(outside)
    linked = root / "into" / link.format(mark=f".unpacked-{name}", work=f".unpacking-{name}")
    linked.parent.mkdir(parents=True)
    is_file = link in ("VOC/a.txt", "readme", "{mark}")
    linked.symlink_to(outside / ("not there" if dangling else "a.txt" if is_file else "."))
    path = pack(tmp_path / name, FILES)
    with pytest.raises(UserError, match="a link is in the way") as caught:
        unpack(path, root, "into")
    assert str(linked) in caught.value.where
    assert content(outside) == before
    left = [entry for entry in root.rglob("*") if not entry.is_symlink() and entry.is_file()]
    assert left == [], "nothing of it is unpacked"


def test_the_data_set_s_folder_itself_may_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "disk")
    unpack(pack(tmp_path / "x.zip", FILES), tmp_path / "root", "into")
    assert content(tmp_path / "disk" / "into").items() >= FILES.items()


# --- size

ZEROS = {"zeros": bytes(40 << 20)}


@pytest.mark.parametrize("name", ["x.tar.gz", "x.zip"])
def test_a_small_archive_does_not_fill_the_disk(tmp_path, name):
    path = pack(tmp_path / name, ZEROS)
    assert path.stat().st_size < 50_000
    caught = assert_refused(path, f"unpacks to more than {10 * path.stat().st_size + (16 << 20)} bytes")
    assert "Archive.unpacked_size" in caught.hint
    unpack(path, tmp_path / "out", unpacked_size=40 << 20)
    assert (tmp_path / "out/zeros").stat().st_size == 40 << 20


@pytest.mark.parametrize("name", ["x.tar.gz", "x.zip"])
def test_nor_does_it_with_many_files_of_nothing(tmp_path, name):
    path = pack(tmp_path / name, {f"{number}": b"" for number in range(5000)})
    with pytest.raises(UserError, match="more than 20000000 bytes"):
        unpack(path, tmp_path / "out", unpacked_size=20_000_000)
    unpack(path, tmp_path / "out", unpacked_size=5000 * 4096)


def test_nor_with_padding_or_headers_that_are_none(tmp_path):
    (tmp_path / "x.tgz").write_bytes(gzip.compress(bytes(80 << 20)))
    assert_refused(tmp_path / "x.tgz", "unpacks to more than")
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 30
    (tmp_path / "y.tgz").write_bytes(gzip.compress(header.tobuf(tarfile.USTAR_FORMAT) + bytes(20 << 20)))
    with pytest.raises(UserError, match="a header of 1073741824 bytes"):
        unpack(tmp_path / "y.tgz", tmp_path / "out")


def test_a_zip_that_understates_its_sizes_is_damaged(tmp_path):
    path = pack(tmp_path / "x.zip", {"zeros": bytes(1 << 20)})
    size = (1 << 20).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(size, (100).to_bytes(4, "little")))
    assert_refused(path, "truncated or damaged")


def test_pictures_and_label_maps_are_within_the_default(tmp_path):
    noise = {f"{number}.png": random.Random(number).randbytes(3000) for number in range(8000)}
    unpack(pack(tmp_path / "x.zip", noise), tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.png"))) == 8000


def test_an_encrypted_zip_is_refused(tmp_path):
    path = pack(tmp_path / "x.zip", {"a": b"1"})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    assert_refused(path, "encrypted")


def test_a_zip_packed_in_an_unusual_way_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_LZMA) as packed:
        packed.writestr("a", b"1" * 1000)
    assert_refused(tmp_path / "x.zip", "unusual")
