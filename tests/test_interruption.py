"""A sweep that is killed ten times ends as one that is left alone, and repeats nothing but the batch in flight."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import shapes_overrides

FILES = ("config.yaml", "per_image.parquet")
CELLS = ("limit=5,8", "segmenter.tau=0.3,0.6", "batch_size=1")
IMAGES = [5, 5, 8, 8]

# Imports the program once; each start is a fork, killed when `random` says so. Journals get a second name, under which
# they outlive the cell, and the files of finished cells are noted.
DRIVER = """
import json, os, random, signal, sys, time
from pathlib import Path
from diffcut_bench.cli import main

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
        if path.suffix in (".json", ".parquet", ".yaml"):
            seen = path.stat()
            finished.setdefault(str(path), [seen.st_ino, seen.st_mtime_ns])

def batches():
    return sum(path.read_bytes().count(b'"rows": [{') for path in kept.iterdir())

def start(more, delay):
    child = os.fork()
    if child == 0:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os._exit(main(arguments))
    before, began, due = batches(), time.monotonic(), None
    while True:
        try:
            look()
        except FileNotFoundError:  # moved meanwhile
            pass
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if due is None and (more is None or batches() - before >= more):
            due = time.monotonic() + delay
        if delay is not None and due is not None and time.monotonic() >= due:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            look()
            return -9
        time.sleep(0.001)

codes = []
for kill in range(kills):
    # Every third at any moment of the start, the others in the middle of the work.
    early = kill % 3 == 0
    codes.append(start(0 if early else moments.randint(1, 5), moments.uniform(0, 1.0 if early else 0.08)))
codes.append(start(10**9, 0.0))
now = {path: [os.stat(path).st_ino, os.stat(path).st_mtime_ns] for path in finished}
print(json.dumps({"codes": codes, "finished": finished, "now": now}))
"""


@pytest.mark.slow
def test_a_sweep_killed_ten_times_ends_as_an_undisturbed_one(cli, shapes, tmp_path, monkeypatch):
    for place in ("undisturbed", "killed"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "shapes").symlink_to(shapes)
    monkeypatch.chdir(tmp_path / "undisturbed")
    base = [*shapes_overrides(Path("shapes"), Path("out")), *CELLS]
    assert cli("run", "-m", *base).code == 0
    monkeypatch.chdir(tmp_path / "killed")
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, "10", "run", "-m", *base],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["codes"][-1] == 0, done.stderr
    assert report["codes"].count(-9) >= 7, f"the sweep was over before it could be killed: {report['codes']}"

    assert results(Path("out")) == results(Path("../undisturbed/out"))
    assert len(results(Path("out"))) == 4
    assert report["now"] == report["finished"], "a finished cell was touched again"
    journalled = sorted(rows_of(path) for path in Path("kept").iterdir())
    assert journalled == [list(range(images)) for images in IMAGES], "every image's row is journalled once"


def results(folder: Path) -> dict[str, tuple[object, ...]]:
    """What does not depend on a clock of every finished cell, by name."""
    found = {}
    for cell in folder.glob("results/*"):
        result = json.loads((cell / "result.json").read_text())
        del result["timings"]
        found[cell.name] = (result, *((cell / name).read_bytes() for name in FILES))
    return found


def rows_of(journal: Path) -> list[int]:
    """Places of the images that a journal holds, as often as it holds them."""
    places = []
    for line in journal.read_text(errors="replace").splitlines():
        try:
            places += [row["index"] for row in json.loads(line)["rows"]]
        except json.JSONDecodeError:  # cut off by a kill
            continue
    return sorted(places)
