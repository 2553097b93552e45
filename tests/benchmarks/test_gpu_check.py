"""`make gpu-check` in small on the CPU, and what it says where something is missing, fails or hangs."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Finished, linux, program

from benchmarks import gpu_check
from benchmarks.gpu_check import Part, encoder_rows, main
from benchmarks.gpu_parts import Plan, Row

_OF_A_GPU = {
    "the cut waits at most once a pass",
    "further taus of a tree wait for nothing",
    "concept assignment waits at most once a batch",
    "pamr waits for nothing",
    "counting does not wait for each image",
    "the cut of a large grid takes what was predicted",
    "a batch that does not fit goes on in halves and says so",
    "fastest sound precision: peak memory",
    "the whole part",  # of `_COMPILED`
}
_COMPILED = ["compiled encoder", "compiled end to end"]


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Callable[..., Finished]:
    """Run `python -m benchmarks.gpu_check` in this process."""
    return program(main, capsys)


@pytest.mark.slow
def test_in_small_every_part_runs_on_the_cpu(check, tmp_path):
    """Half a minute, and not among the slow tests: it keeps a command from rotting that is needed on rare days."""
    done = check("--small", f"output_dir={tmp_path}")
    record = json.loads((tmp_path / "gpu_check" / "gpu_check.json").read_text())
    logs = [path.read_text()[-2000:] for path in (tmp_path / "gpu_check").glob("*.log")]
    assert done.code == 0, [done.err, *logs]
    assert list(record["seconds"]) == ["tests", "cut", "encoder", "end to end", *_COMPILED]
    rows = [Row(**row) for row in record["rows"]]
    assert {row.what for row in rows if row.note == "not run: no GPU"} == _OF_A_GPU
    assert [row for row in rows if row.value is None and row.what not in _OF_A_GPU] == []
    assert not any(row.failed for row in rows)
    measured = {row.what: row for row in rows}
    for alpha in (5, 10):
        assert measured[f"cut, alpha {alpha}, batch 2: times the textbook"].value > 0
        assert measured[f"cut, alpha {alpha}, batch 2: equal to the textbook"].value == 100
        assert {f"{stage}, alpha {alpha}, batch 2" for stage in ("concepts", "pamr", "matching")} <= set(measured)
    assert measured["the cut gives the released partitions"].value == 4
    assert measured["fastest sound precision"].aim == 55
    assert measured["tiny, random weights, batch 1"].aim == 50
    assert measured["tiny, random weights, batch 1"].value > 0
    page = (tmp_path / "gpu_check" / "gpu_check.md").read_text()
    for text in (record["machine"]["date"], "torch " + torch.__version__, "≥ 50 |", "not run: no GPU", "in small"):
        assert text in page
    assert "4 of 4" in done.out and "gpu_check.md" in done.out


@pytest.mark.parametrize(
    ("error", "cuda", "available", "what", "hint"),
    [
        (AssertionError("Torch not compiled with CUDA enabled"), None, False, "CPU alone", "VENV=.venv-gpu"),
        (RuntimeError("Found no NVIDIA driver on your system."), "13.0", False, "Found no NVIDIA driver", "CUDA 13.0"),
        (RuntimeError("CUDA error: out of memory\nmore"), "13.0", True, "no memory left", "nvidia-smi"),
        (torch.OutOfMemoryError("CUDA out of memory."), "13.0", True, "no memory left", "CUDA_VISIBLE_DEVICES"),
        (RuntimeError("no kernel image is available"), "13.0", True, "no kernel image", "built for this GPU"),
    ],
)
def test_without_a_gpu_it_says_what_to_install(check, tmp_path, monkeypatch, error, cuda, available, what, hint):
    def fail(*size: int, device: str) -> torch.Tensor:
        raise error

    monkeypatch.setattr(torch, "zeros", fail)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    done = check(f"output_dir={tmp_path}")
    assert done.code == 2
    said, where, follows = done.err.splitlines()
    assert what in said and hint in follows and sys.executable in where
    assert not list(tmp_path.iterdir())


def scripted(monkeypatch: pytest.MonkeyPatch, *parts: tuple[str, float, str]) -> None:
    """Parts that run Python code; ``RECORD`` in it is the path of what they leave."""

    def made(plan: Plan) -> list[Part]:
        records = [Path(plan.folder) / f"{name}.json" for name, _, _ in parts]
        return [
            Part(name, limit_s, ["-c", code.replace("RECORD", repr(str(record)))], record, gpu_check._own_rows)
            for (name, limit_s, code), record in zip(parts, records, strict=True)
        ]

    monkeypatch.setattr(gpu_check, "parts", made)


_WRITE = "import json; open(RECORD, 'w').write(json.dumps({'rows': [{'part': 'p', 'what': 'w', 'value': 1.5}]}))\n"


@linux
@pytest.mark.slow
def test_a_part_that_fails_or_hangs_is_told_and_the_next_goes_on(check, tmp_path, monkeypatch):
    child = tmp_path / "child"
    hang = (
        f"import subprocess, time; p = subprocess.Popen(['sleep', '99']); open({str(child)!r}, 'w').write(str(p.pid))\n"
    )
    written = tmp_path / "gpu_check" / "gpu_check.json"
    scripted(
        monkeypatch,
        ("broken", 20, "print('before'); raise RuntimeError('CUDA error: an illegal memory access')"),
        ("mistaken", 20, "print('error: no such thing\\nwhere: here\\nnext:  there'); exit(2)"),
        ("hanging", 4, _WRITE + hang + "time.sleep(99)"),
        ("empty", 20, ""),
        ("good", 20, _WRITE + f"import shutil; shutil.copy({str(written)!r}, {str(tmp_path / 'so_far.json')!r})"),
    )
    done = check("--small", f"output_dir={tmp_path}")
    assert done.code == 1
    rows = [Row(**row) for row in json.loads(written.read_text())["rows"]]
    notes = {row.part: row.note for row in rows if row.failed}
    assert notes["broken"] == "RuntimeError: CUDA error: an illegal memory access; see broken.log"
    assert notes["mistaken"] == "error: no such thing; see mistaken.log"
    assert notes["hanging"] == "out of time after 4 s; see hanging.log"
    assert "empty.json can't be read" in notes["empty"]
    assert [row.value for row in rows if not row.failed] == [1.5, 1.5], "what a part had measured is kept"
    so_far = json.loads((tmp_path / "so_far.json").read_text())
    assert list(so_far["seconds"]) == ["broken", "mistaken", "hanging", "empty"]
    stat = Path(f"/proc/{child.read_text()}/stat")
    assert not stat.exists() or stat.read_text().split()[2] == "Z", "what a part has started ends with it"
    assert "failed   hanging: the whole part" in done.out


def test_a_part_for_which_no_time_is_left_is_told(check, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "_ALL_S", 0.0)
    scripted(monkeypatch, ("late", 20, _WRITE))
    assert check("--small", f"output_dir={tmp_path}").code == 1
    assert "no time was left" in (tmp_path / "gpu_check" / "gpu_check.md").read_text()


def test_what_an_earlier_run_left_is_not_taken_for_this_ones(check, tmp_path, monkeypatch):
    (tmp_path / "gpu_check").mkdir()
    (tmp_path / "gpu_check" / "silent.json").write_text(json.dumps({"rows": [{"part": "p", "what": "w", "value": 9}]}))
    scripted(monkeypatch, ("silent", 20, "exit(3)"))
    assert check("--small", f"output_dir={tmp_path}").code == 1
    assert [row["value"] for row in json.loads((tmp_path / "gpu_check" / "gpu_check.json").read_text())["rows"]] == [
        None
    ]


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        (Row("p", "w", 40.0, aim=50.0), False),  # slow: told, no failure
        (Row("p", "w", 99.0, aim=100.0, is_check=True), True),
        (Row("p", "w", 100.0, aim=100.0, is_check=True), False),
        (Row("p", "w", 1.0, aim=0.0, at_most=True, is_check=True), True),
        (Row("p", "w", note="not run: no GPU"), False),
        (Row("p", "w", failed=True), True),
    ],
)
def test_checks_fail_the_command_and_aims_do_not(row, wrong):
    assert row.is_wrong == wrong


def test_aims_are_judged_at_real_sizes_alone():
    rows = [Row("p", "slow", 40.0, "images/s", 50.0), Row("p", "quick", 20.0, "ms", 30.0, at_most=True)]
    measured_on = {"date": "2026-11-28", "device": "cuda A", "processor": "B", "torch": "2.13", "driver": "580.1"}

    def cells(small: bool) -> list[tuple[str, ...]]:
        table = gpu_check.as_table(rows, measured_on, Plan("cuda", "folder", small, []))
        assert table.shared == "2026-11-28, cuda A, driver 580.1, torch 2.13, B"
        return [row[2:5] for row in table.rows]

    assert cells(small=False) == [("40 images/s", "≥ 50", "no"), ("20 ms", "≤ 30", "yes")]
    assert cells(small=True) == [("40 images/s", "≥ 50", ""), ("20 ms", "≤ 30", "")]


@pytest.mark.slow
def test_a_failed_test_and_a_recorded_figure_are_rows_even_if_the_last_test_kills_the_process(tmp_path):
    (tmp_path / "test_example.py").write_text(
        "import os\nimport pytest\n\npytestmark = pytest.mark.gpu\n\n\n"
        "@pytest.mark.parametrize('most', [3, 2])\ndef test_it_is_enough(most):\n    assert 3 <= most\n\n\n"
        "@pytest.mark.skipif(True, reason='no GPU')\ndef test_it_waits():\n    pass\n\n\n"
        "def test_memory(record_property):\n    record_property('peak over predicted', 1.07)\n\n\n"
        "def test_the_driver_fails():\n    os._exit(9)\n"
    )
    record = tmp_path / "tests.json"
    code = f"from pathlib import Path; from benchmarks import gpu_parts; gpu_parts.record_tests({str(tmp_path)!r}, "
    command = [sys.executable, "-c", f"{code} Path({str(record)!r}))"]
    finished = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert finished.returncode == 9, finished.stdout
    enough, waits, memory, figure = (Row(**row) for row in json.loads(record.read_text())["rows"])
    assert (enough.what, enough.value, enough.unit, enough.is_wrong) == ("it is enough", 1, "of 2", True)
    assert "AssertionError" in enough.note
    assert (waits.value, waits.note, waits.is_wrong) == (None, "not run: no GPU", False)
    assert (memory.value, memory.is_wrong) == (1, False)
    assert (figure.what, figure.value) == ("peak over predicted", 1.07)


def test_an_encoder_that_fails_in_one_setting_is_told(tmp_path):
    def setting(**others: Any) -> dict[str, Any]:
        return {"precision": "bfloat16", "batch": 4, "channels_last": True, "error": None, **others}

    measured = {"images_per_s": 60.0, "sound": True, "cosine_min": 0.9999, "floor_share": 0.5, "memory_bytes": 3 << 30}
    failed = setting(error="OutOfMemoryError: no memory")
    record = {"encoder": "ssd1b", "rows": [failed, setting(**measured)], "fastest_sound": setting(**measured)}
    path = tmp_path / "encoder.json"
    path.write_text(json.dumps(record))
    lost, quick, best, memory = encoder_rows("encoder", path)
    assert lost.is_wrong and lost.note == "OutOfMemoryError: no memory"
    assert (quick.value, quick.note) == (60.0, "sound, 50% of its floor")
    assert (best.reached, memory.value, memory.unit) == (True, 3.0, "GiB")
    assert gpu_check.fastest_sound(path)["images_per_s"] == 60.0
    path.write_text(json.dumps({**record, "fastest_sound": None}))
    assert encoder_rows("encoder", path)[-1].is_wrong
    assert gpu_check.fastest_sound(path) == gpu_check.fastest_sound(tmp_path / "none") == {}


def test_the_limits_of_the_parts_make_ten_minutes_and_what_is_faster_compiled_runs_compiled(tmp_path):
    def not_run(eager: float, compiled: float) -> str:
        told = []
        for part in gpu_check.parts(Plan("cuda", str(tmp_path), False, [])):
            told.append(part)
            if "encoder" in part.name:
                best = {"images_per_s": eager if part.name == "encoder" else compiled, "precision": "float32"}
                part.record.parent.mkdir(exist_ok=True)
                part.record.write_text(json.dumps({"fastest_sound": best}))
        assert sum(part.limit_s for part in told) <= gpu_check._ALL_S == 600
        *others, last = told
        assert not any(part.not_run for part in others)
        assert "float32" in others[-1].arguments, "compiled in the precision that is fastest without"
        return last.not_run

    assert not_run(eager=30.0, compiled=40.0) == ""
    assert "not faster" in not_run(eager=40.0, compiled=30.0)


def test_ctrl_c_ends_the_part_and_the_command(check, tmp_path, monkeypatch):
    wait = subprocess.Popen.wait

    def interrupted(process: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        if timeout is not None:
            raise KeyboardInterrupt
        return wait(process)

    scripted(monkeypatch, ("long", 60, "import time; time.sleep(60)"))
    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    start = time.monotonic()
    assert check("--small", f"output_dir={tmp_path}").code == 130
    assert time.monotonic() - start < 30
