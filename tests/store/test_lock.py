"""One holder at a time, and none that outlives its process."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffcut_bench.errors import UserError
from diffcut_bench.store.lock import CellLock

HOLD = """
import sys, time
from pathlib import Path
from diffcut_bench.store.lock import CellLock
lock = CellLock(Path(sys.argv[1]))
assert lock.acquire()
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "unfinished" / "abc.lock"


def test_a_second_holder_has_to_wait_for_the_first(path):
    first, second = CellLock(path), CellLock(path)
    assert first.acquire()
    assert first.acquire(), "whoever has it has it"
    assert not second.acquire()
    assert f"process {os.getpid()} on" in second.holder()
    first.release()
    assert second.acquire()
    second.release()
    assert not list(path.parent.iterdir()), "nothing is left behind"


def test_a_killed_holder_holds_nothing(path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    lock, told = CellLock(path), []
    assert not lock.acquire()
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    lock.wait(told.append)
    assert all(f"process {holder.pid} on" in line for line in told)
    lock.release()


@pytest.mark.parametrize("note", ["", "null", "5", "[]", "{}", '{"since": 1e999, "process": 1, "host": ""}'])
def test_a_holder_without_a_readable_note_is_another_process(path, note):
    lock = CellLock(path)
    assert lock.acquire()
    path.with_suffix(".holder.json").write_text(note)
    assert CellLock(path).holder() == "another process"
    lock.release()


def count(path: str, counter: str) -> None:
    lock = CellLock(Path(path))
    for _ in range(50):
        lock.wait(lambda holder: None)
        value = json.loads(Path(counter).read_text())
        time.sleep(0.0005)
        Path(counter).write_text(json.dumps(value + 1))
        lock.release()


def test_many_who_take_and_give_back_at_once(path, tmp_path, monkeypatch):
    counter = tmp_path / "counter"
    counter.write_text("0")
    context = multiprocessing.get_context("fork")
    monkeypatch.setattr("diffcut_bench.store.lock._LOOK_S", 0.001)
    processes = [context.Process(target=count, args=(str(path), str(counter))) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert counter.read_text() == "150"


def test_a_folder_that_can_not_be_written(tmp_path):
    (tmp_path / "unfinished").write_text("in the way")
    with pytest.raises(UserError, match="can't write"):
        CellLock(tmp_path / "unfinished" / "abc.lock").acquire()
