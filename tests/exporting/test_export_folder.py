"""The folder of an export is whole at any time, and nobody's own files are lost."""

import hashlib
import shutil
from pathlib import Path

import pytest

from diffcut_bench.errors import UserError
from diffcut_bench.exporting import folder as export_folder
from diffcut_bench.exporting.folder import write_folder

FIRST = {"cells.csv": b"1", "README.md": b"card", "per_image/a.parquet": b"a", "per_image/b.parquet": b"b"}
SECOND = {"cells.csv": b"2", "README.md": b"card", "per_image/a.parquet": b"c", "per_image/d.parquet": b"d"}


def files_of(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("after", range(len(SECOND) + 2))
def test_one_that_was_killed_is_replaced_by_the_next(tmp_path, monkeypatch, after):
    target, written = tmp_path / "export", []
    write_folder(target, FIRST)
    write = export_folder.write_atomically

    def dying(path: Path, content: bytes | str, hint: str) -> None:
        if len(written) == after:
            raise KeyboardInterrupt
        written.append(path)
        write(path, content, hint)

    monkeypatch.setattr(export_folder, "write_atomically", dying)
    with pytest.raises(KeyboardInterrupt):
        write_folder(target, SECOND)
    monkeypatch.undo()
    write_folder(target, FIRST)
    assert files_of(target) == FIRST
    sums = [f"{hashlib.sha256(FIRST[name]).hexdigest()}  {name}\n" for name in sorted(FIRST)]
    assert (target / "SHA256SUMS").read_text() == "".join(sums)


@pytest.mark.parametrize(
    "listed", [None, "nonsense", "", "README.md", "../victim.parquet", "per_image/../../victim.parquet"]
)
def test_a_folder_of_somebody_elses_is_refused(tmp_path, listed):
    own, victim = tmp_path / "own", tmp_path / "victim.parquet"
    own.mkdir()
    (own / "cells.csv").write_text("mine")
    victim.write_bytes(b"precious")
    if listed is not None:
        line = f"{hashlib.sha256(b'precious').hexdigest()}  {listed}\n" if "." in listed else listed
        (own / "SHA256SUMS").write_text(line)
    with pytest.raises(UserError, match="holds no export"):
        write_folder(own, FIRST)
    assert files_of(own) == {"cells.csv": b"mine"}
    assert victim.read_bytes() == b"precious"


def test_a_file_and_a_link_are_no_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="no folder"):
        write_folder(tmp_path / "file", FIRST)
    target = tmp_path / "export"
    write_folder(target, FIRST)
    shutil.move(target / "per_image", tmp_path / "elsewhere")
    (target / "per_image").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="folder of its own"):
        write_folder(target, SECOND)
    assert files_of(tmp_path / "elsewhere") == {"a.parquet": b"a", "b.parquet": b"b"}


def test_other_files_stay_and_changed_ones_stop_it(tmp_path):
    target = tmp_path / "export"
    target.mkdir()
    write_folder(target, FIRST)
    (target / "per_image" / "mine.parquet").write_bytes(b"mine")
    write_folder(target, SECOND)
    assert files_of(target) == {**SECOND, "per_image/mine.parquet": b"mine"}
    (target / "per_image" / "d.parquet").write_bytes(b"changed")
    with pytest.raises(UserError, match="would be lost"):
        write_folder(target, FIRST)
    assert files_of(target) == {**SECOND, "per_image/mine.parquet": b"mine", "per_image/d.parquet": b"changed"}


def test_two_at_once_do_not_mix(tmp_path, monkeypatch):
    target, write = tmp_path / "export", export_folder.write_atomically
    refused = []

    def beside(path: Path, content: bytes | str, hint: str) -> None:
        monkeypatch.undo()
        with pytest.raises(UserError, match="another process is writing") as raised:
            write_folder(target, SECOND)
        refused.append(raised)
        write(path, content, hint)

    monkeypatch.setattr(export_folder, "write_atomically", beside)
    write_folder(target, FIRST)
    assert files_of(target) == FIRST and refused


def test_a_kill_in_the_first_write_leaves_no_folder_of_somebody_elses(tmp_path):
    (tmp_path / f".SHA256SUMS.{16 * '0'}.partial").write_text("half")
    write_folder(tmp_path, FIRST)
    assert files_of(tmp_path) == FIRST
    assert not list(tmp_path.glob(".*"))


def test_a_link_to_nowhere_is_no_folder(tmp_path):
    (tmp_path / "export").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match="no folder"):
        write_folder(tmp_path / "export", FIRST)
