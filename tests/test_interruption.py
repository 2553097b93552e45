"""Runs that are ended early lose nothing, say so, and leave no process behind."""

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from conftest import NONE_LEFT_S, driven, finished_cells, linux, shapes_overrides

from diffcut_bench.interruption import Interrupted, held_back, is_interrupted, signals_raised
from diffcut_bench.store import list_sets

CELLS = ("limit=5,8", "segmenter.tau=0.3,0.6", "batch_size=1")
IMAGES = [5, 5, 8, 8]
# Journals get a second name, under which they outlive the cell, and the files of finished cells are noted.
SWEEP = """
import json, os, random, signal, sys, time
from pathlib import Path
from killing import end, start

kills, arguments = int(sys.argv[1]), sys.argv[2:]
moments = random.Random(7)
kept = Path("kept")
kept.mkdir()
finished = {}

def look():
    for journal in Path("out/unfinished").glob("*/journal*.jsonl"):
        name = kept / f"{journal.parent.name}-{journal.name}"
        if not name.exists():
            os.link(journal, name)
    for path in Path("out/results").glob("*/*"):
        # cell.json goes when the cell is finished.
        if path.suffix in (".json", ".parquet", ".yaml") and path.name != "cell.json":
            seen = path.stat()
            finished.setdefault(str(path), [seen.st_ino, seen.st_mtime_ns])

def batches():
    return sum(path.read_bytes().count(b'"rows": [{') for path in kept.iterdir())

def run(more, delay, number):
    child = start(arguments, Path("errors.txt"))
    before, due = batches(), None
    while not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        try:
            look()
        except FileNotFoundError:  # moved meanwhile
            pass
        if due is None and (more is None or batches() - before >= more):
            due = time.monotonic() + delay
        if number is not None and due is not None and time.monotonic() >= due:
            ended = end(child, number)
            look()
            return ended
        time.sleep(0.001)
    return end(child)

ended = []
for kill in range(kills):
    # Every third at any moment of the start, the others in the middle of the work.
    early = kill % 3 == 0
    more, delay = 0 if early else moments.randint(1, 5), moments.uniform(0, 1.0 if early else 0.08)
    ended.append(run(more, delay, signal.SIGTERM if kill % 2 else signal.SIGKILL))
ended.append(run(10**9, 0.0, None))
now = {path: [os.stat(path).st_ino, os.stat(path).st_mtime_ns] for path in finished}
print(json.dumps({"ended": ended, "finished": finished, "now": now}))
"""


@linux
@pytest.mark.slow
def test_a_sweep_killed_ten_times_ends_as_an_undisturbed_one(cli, shapes, tmp_path, monkeypatch):
    for folder in ("undisturbed", "killed"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "shapes").symlink_to(shapes)
    monkeypatch.chdir(tmp_path / "undisturbed")
    base = [*shapes_overrides(Path("shapes"), Path("out")), *CELLS]
    assert cli("run", "-m", *base).code == 0
    monkeypatch.chdir(tmp_path / "killed")
    report = driven(SWEEP, "10", "run", "-m", *base)
    codes = [code for code, _ in report["ended"]]
    assert codes[-1] == 0
    # A start that is killed before its first line has no handler yet.
    assert set(codes[:-1]) <= {-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM, 0}
    assert codes.count(-signal.SIGKILL) >= 3, f"the sweep was over before it could be killed: {codes}"
    assert codes.count(128 + signal.SIGTERM) >= 3, f"the sweep was over before it could be asked to end: {codes}"
    assert max(seconds for _, seconds in report["ended"][:-1]) < NONE_LEFT_S

    assert finished_cells(Path("out")) == finished_cells(Path("../undisturbed/out"))
    assert len(finished_cells(Path("out"))) == 4
    assert report["now"] == report["finished"], "a finished cell was touched again"
    journalled = sorted(rows_of(path) for path in Path("kept").iterdir())
    assert journalled == [list(range(images)) for images in IMAGES], "every image's row is journalled once"


def rows_of(journal: Path) -> list[int]:
    """Indices of the images that a journal holds, as often as it holds them."""
    indices = []
    for line in journal.read_text(errors="replace").splitlines():
        try:
            indices += [row["index"] for row in json.loads(line)["rows"]]
        except json.JSONDecodeError:  # cut off by a kill
            continue
    return sorted(indices)


SIGNALS = """
import json, signal, sys
from pathlib import Path
from killing import end, journalled, processes, start, wait_for

ended = {}
for name in ("SIGINT", "SIGTERM", "SIGHUP", "ignored"):
    out, errors = Path(name), Path(f"{name}.txt")
    ignored = signal.SIGHUP if name == "ignored" else None
    child = start([*sys.argv[1:], f"output_dir={out}"], errors, ignored)
    wait_for(lambda: journalled(out) >= 2)
    code, seconds = end(child, ignored or signal.Signals[name])
    ended[name] = [code, seconds, errors.read_text(), journalled(out)]

# The main process is gone before its reader could read.
child = start([*sys.argv[1:], "output_dir=readers", "num_workers=1"], Path("readers.txt"))
wait_for(lambda: len(processes(child)) >= 3)  # with the one that keeps count of semaphores
ended["readers"] = [*end(child, signal.SIGKILL), "", 0]
print(json.dumps(ended))
"""


@linux
@pytest.mark.slow
def test_a_signal_keeps_features_says_so_and_ends_as_shells_expect(place):
    base = [*place("here"), "batch_size=1"]
    ended = driven(SIGNALS, "run", *base)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        code, seconds, said, batches = ended[number.name]
        assert code == 128 + number
        assert seconds < NONE_LEFT_S
        assert said == f"interrupted ({number.name}); what is done is kept, and the same command continues from here\n"
        (features,) = list_sets(Path(number.name) / "features")
        assert features.images >= batches >= 2
    assert ended["ignored"][0] == 0, "nohup"
    assert len(finished_cells(Path("ignored"))) == 1
    code, seconds, *_ = ended["readers"]
    assert code == -signal.SIGKILL
    assert seconds < NONE_LEFT_S


TORCHRUN = """
import json, signal, subprocess, sys, time
from pathlib import Path
from killing import processes, wait_for

ended = {}
for number in (signal.SIGTERM, signal.SIGKILL):
    out, said = Path(number.name), Path(f"{number.name}.txt")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    with said.open("w") as file:
        command = [*launcher, "-m", "diffcut_bench", *sys.argv[1:], f"output_dir={out}"]
        agent = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file)
    wait_for(lambda: len(list(out.glob("unfinished/*/journal*.jsonl"))) == 2)
    children = [int(pid) for pid in Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()]
    agent.send_signal(number)
    agent.wait()
    begin = time.monotonic()
    wait_for(lambda: not any(processes(child) for child in children))  # each has a session of its own
    ended[number.name] = [len(children), time.monotonic() - begin, said.read_text()]
print(json.dumps(ended))
"""


@linux
@pytest.mark.slow
def test_no_process_of_torchrun_is_left(place):
    # Large images: there has to be work left when the signal comes, and when the end of the parent is noticed.
    ended = driven(TORCHRUN, "run", *place("here"), "batch_size=1", "protocol.image_size=768")
    for number, (children, seconds, said) in ended.items():
        assert children >= 2, number
        assert seconds < NONE_LEFT_S, number
        assert said.count("interrupted (SIGTERM)") == 1, "one process speaks"


@pytest.mark.slow
def test_a_reader_that_dies_is_said_and_what_is_done_is_kept(cli, place):
    base = [*place("here"), "batch_size=1"]

    def kill_reader() -> None:
        while not list(Path("out").glob("unfinished/*/journal.jsonl")) or not multiprocessing.active_children():
            time.sleep(0.01)
        for reader in multiprocessing.active_children():
            os.kill(reader.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_reader)
    killer.start()
    done = cli("run", *base, "num_workers=1")
    killer.join()
    assert done.code == 2
    assert "a process that reads images died" in done.err
    assert "num_workers=0" in done.err
    assert "Traceback" not in done.err
    assert cli("run", *base).code == 0
    (cell,) = finished_cells(Path("out")).values()
    assert cell[0]["failures"] == []


def test_what_is_held_back_is_finished_before_the_signal_counts():
    finished = False
    with signals_raised() as ending:
        with pytest.raises(Interrupted):
            with held_back():
                os.kill(os.getpid(), signal.SIGTERM)
                finished = True
            pytest.fail("goes on after the signal")
        assert finished
        assert ending.code == 143
        os.kill(os.getpid(), signal.SIGTERM)  # of the same event: nothing more happens
    assert not is_interrupted()


def test_handlers_are_put_back_and_those_of_others_are_left_alone():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        others = signal.getsignal(signal.SIGTERM)
        with signals_raised():
            os.kill(os.getpid(), signal.SIGTERM)
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        assert heard == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is others
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)


SECOND = """
import os, signal, time
from diffcut_bench import interruption

with interruption.signals_raised(), interruption.held_back():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(1.2)
    os.kill(os.getpid(), signal.SIGTERM)
    print("was not ended")
"""


def test_a_second_signal_ends_a_run_that_does_not_end():
    done = subprocess.run([sys.executable, "-c", SECOND], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (143, "")


@linux
def test_a_signal_while_the_program_is_still_imported_is_said_too():
    process = subprocess.Popen([sys.executable, "-m", "diffcut_bench", "doctor"], stderr=subprocess.PIPE, text=True)
    status = Path(f"/proc/{process.pid}/status")
    caught = 0
    while not caught & 1 << signal.SIGTERM - 1:  # no handler yet
        (mask,) = [line for line in status.read_text().splitlines() if line.startswith("SigCgt:")]
        caught = int(mask.partition(":")[2], 16)
    process.terminate()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert said == "interrupted (SIGTERM); what is done is kept, and the same command continues from here\n"


class Swallowing:
    """One segment; is told to end while it works, and takes the exception for its own, as callbacks of C do."""

    def __init__(self, **settings: object) -> None: ...

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        with contextlib.suppress(BaseException):
            os.kill(os.getpid(), signal.SIGTERM)
        return torch.zeros(image.shape[1:], dtype=torch.long)


def test_a_signal_that_was_swallowed_ends_the_run_after_the_batch(cli, place):
    swallowing = ("segmenter=slic", "segmenter._target_=test_interruption.Swallowing", "refiner=none", "batch_size=2")
    done = cli("run", *place("here"), *swallowing)
    assert done.code == 143
    assert "interrupted (SIGTERM)" in done.err
    assert finished_cells(Path("out")) == {}
    (journal,) = Path("out").glob("unfinished/*/journal.jsonl")
    assert rows_of(journal) == [0, 1]
