import os
import stat
from pathlib import Path

import pytest

from diffcut_bench.errors import UserError
from diffcut_bench.store import write_atomically


def test_replaces_whole_files_and_leaves_nothing_beside_them(tmp_path):
    path = tmp_path / "a" / "b.txt"
    write_atomically(path, "old")
    write_atomically(path, b"new")
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["b.txt"]


def test_a_failed_write_keeps_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "b.txt"
    write_atomically(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["b.txt"]


def test_files_follow_the_users_umask_without_changing_it(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "b.txt", "x")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "b.txt").stat().st_mode) == 0o640


def test_folders_are_synced_where_a_name_was_added(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync

    def noted(file: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{file}").readlink()))
        fsync(file)

    monkeypatch.setattr("os.fsync", noted)
    write_atomically(tmp_path / "a" / "b.txt", "x")
    assert str(tmp_path) in synced, "the new folder's name"
    assert synced[-1] == str(tmp_path / "a"), "the file's name, after the file"
