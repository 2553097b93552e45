"""All that waits for a GPU, in ten minutes: its tests, the cut, the encoder, end to end. ``make gpu-check``.

Each part is a process with a time limit, so that one that fails, hangs or spoils the GPU costs the others nothing.
After each part the table is written as gpu_check.json and, for the docs, as gpu_check.md.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_parts import Plan, Row
from benchmarks.report import machine, write_record
from diffcut_bench.commands.terminal import console, errors, say
from diffcut_bench.config import load_config
from diffcut_bench.errors import UserError
from diffcut_bench.interruption import signals_raised
from diffcut_bench.reporting import Column, Table, number_columns
from diffcut_bench.store import write_atomically

_ROOT = Path(__file__).resolve().parent.parent
_ALL_S = 600.0
_ENCODER_IMAGES_PER_S = 55.0  # aim for an H200
_PRECISIONS = "released,vae_bfloat16,vae_float16,bfloat16"
_NO_GPU = "not run: no GPU"
_COLUMNS = (*map(Column, ("part", "what")), *number_columns("measured", "aim"), *map(Column, ("reached", "note")))
# Name in the table's head, field of the machine's record.
_VERSIONS = {"driver": "driver", "CUDA": "cuda", "cuDNN": "cudnn", "GiB": "memory_gib", "torch": "torch"}


@dataclass(frozen=True)
class Part:
    """A process of the check.

    Attributes:
        name: of the part.
        limit_s: after which it is ended.
        arguments: of Python.
        record: file that it leaves, also when it is ended early.
        rows: what the file says.
        not_run: why it isn't, or nothing.
    """

    name: str
    limit_s: float
    arguments: list[str]
    record: Path
    rows: Callable[[Path], list[Row]]
    not_run: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the check; returns the exit code: 0, 1 where it failed, 2 after a user's mistake, 128 + n after signal n."""
    with signals_raised() as ending:
        try:
            return _run(_parser().parse_args(arguments))
        except UserError as mistake:
            errors.print(str(mistake), markup=False, highlight=False, soft_wrap=True)
            return 2
        except KeyboardInterrupt:
            return ending.code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__)
    parser.add_argument("--small", action="store_true", help="tiny shapes, on the CPU: does everything still run?")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="default: cuda, with --small cpu")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="Hydra's overrides, such as output_dir=DIR")
    return parser


def _run(options: argparse.Namespace) -> int:
    device = open_device(options.device or ("cpu" if options.small else "cuda"))
    folder = Path(load_config(options.overrides).output_dir).absolute() / "gpu_check"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"can't be made ({error})", str(folder), "choose another output_dir") from error
    plan = Plan(device.type, str(folder), options.small, options.overrides)
    start, measured_on = time.monotonic(), {**machine(device), **_versions(device)}
    rows: list[Row] = []
    seconds: dict[str, float] = {}
    for part in parts(plan):
        begun = time.monotonic()
        limit_s = min(part.limit_s, start + _ALL_S - begun)
        if not part.not_run:
            say(f"{part.name}, at most {limit_s:.0f} s", style="dim")
        rows += run_part(part, plan, limit_s)
        seconds[part.name] = round(time.monotonic() - begun, 1)
        table = as_table(rows, measured_on, plan)
        record = {"schema_version": 1, "machine": measured_on, "small": plan.small, "seconds": seconds}
        write_record(folder / "gpu_check.json", {**record, "rows": [asdict(row) for row in rows]})
        write_atomically(folder / "gpu_check.md", table.to_markdown())
    table.print(console)
    for suffix in ("json", "md"):
        say(f"record   {folder / f'gpu_check.{suffix}'}")
    wrong = [row for row in rows if row.is_wrong]
    for row in wrong:
        say(f"failed   {row.part}: {row.what}", style="red")
    return 1 if wrong else 0


def open_device(name: str) -> torch.device:
    """The device, once it has computed something.

    Raises:
        UserError: with what to install or to free.
    """
    try:
        torch.zeros(8, device=name).sum().item()
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        in_small = 'in small on the CPU: make gpu-check ARGS="--small"'
        if torch.version.cuda is None and torch.version.hip is None:
            what = "this torch is built for the CPU alone"
            hint = f"make gpu-check VENV=.venv-gpu CONSTRAINTS= installs another one; {in_small}"
        elif "out of memory" in str(error):
            what = f"the GPU has no memory left: {first}"
            hint = "nvidia-smi shows who uses it: end that process, or choose another GPU: CUDA_VISIBLE_DEVICES=1"
        elif not torch.cuda.is_available():
            what = f"torch finds no GPU: {first}"
            hint = f"nvidia-smi must list it: install a driver for {_built_for()}, or an older torch; {in_small}"
        else:
            what = f"the GPU computes nothing: {first}"
            hint = "install a torch that is built for this GPU: https://pytorch.org/get-started/locally"
        raise UserError(what, f"torch {torch.__version__} of {sys.executable}", hint) from error


def _built_for() -> str:
    return f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}"


def _versions(device: torch.device) -> dict[str, Any]:
    """Of what a GPU's figures depend on beside torch; nothing on the CPU."""
    if device.type == "cpu":
        return {}
    driver = None
    with suppress(OSError, subprocess.SubprocessError):
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        told = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        driver = next(iter(told.stdout.splitlines()), None)
    memory = torch.cuda.get_device_properties(device).total_memory
    return {
        "driver": driver,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "memory_gib": round(memory / 2**30, 1),
    }


def parts(plan: Plan) -> Iterator[Part]:
    """The parts in their order; each is made when the one before it has ended, because later ones take the precision
    that an earlier one found. Their limits make ten minutes."""
    folder = Path(plan.folder)

    def own(name: str, limit_s: float, plan: Plan, measures: str, not_run: str = "") -> Part:
        arguments = ["-m", "benchmarks.gpu_parts", measures, json.dumps(asdict(plan))]
        return Part(name, limit_s, arguments, folder / f"{measures}.json", _own_rows, not_run)

    def encoder(name: str, limit_s: float, precisions: str, mode: str, not_run: str = "") -> Part:
        words = (f"--encoder {plan.model} --precisions {precisions} --modes {mode} --repeats 3").split()
        options = [*words, "--batches", str(plan.encoder_batch), *plan.all_overrides, f"output_dir={folder}"]
        record = folder / "bench" / "encoder.json"
        return Part(name, limit_s, ["-m", "benchmarks", *options], record, partial(encoder_rows, name), not_run)

    yield own("tests", 90, plan, "tests")
    yield own("cut", 110, plan, "cut")
    eager = encoder("encoder", 120, "bfloat16" if plan.small else _PRECISIONS, "eager")
    yield eager
    best = fastest_sound(eager.record)
    yield own("end to end", 70, replace(plan, encoder=best), "end_to_end")
    without = _NO_GPU if plan.device == "cpu" else ""
    compiled = encoder("compiled encoder", 120, best.get("precision", "bfloat16"), "compiled", without)
    yield compiled
    again = {} if without else fastest_sound(compiled.record)
    slower = again.get("images_per_s", 0.0) <= best.get("images_per_s", 0.0)
    without = without or ("not run: compiled, the encoder is not faster" if slower else "")
    yield own("compiled end to end", 90, replace(plan, encoder=again), "end_to_end", without)


def run_part(part: Part, plan: Plan, limit_s: float) -> list[Row]:
    """Run a part and read what it left; where it did not end well one more row says so.

    Args:
        part: to run.
        plan: where to write its log, and whether it may see a GPU.
        limit_s: after which it is ended, with all processes that it has started.
    """
    if part.not_run:
        return [Row(part.name, "the whole part", note=part.not_run)]
    part.record.unlink(missing_ok=True)
    log = Path(plan.folder) / f"{part.name.replace(' ', '_')}.log"
    reason = "no time was left" if limit_s <= 0 else _ended(part.arguments, log, limit_s, plan.device == "cpu")
    rows: list[Row] = []
    try:
        rows = part.rows(part.record)
    except (OSError, ValueError, KeyError) as error:
        reason = reason or f"{part.record.name} can't be read: {error}"
    if reason:
        rows.append(Row(part.name, "the whole part", failed=True, note=f"{reason}; see {log.name}"))
    return rows


def _ended(arguments: list[str], log: Path, limit_s: float, without_gpu: bool) -> str | None:
    """Run Python on the arguments; why it did not end well, or None."""
    environment = dict(os.environ)
    if without_gpu:
        environment |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=_ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(limit_s)
        except BaseException as error:  # the time is over, or the user ends it: what it has started ends with it
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            return f"out of time after {limit_s:.0f} s"
    if code == 0:
        return None
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("error: ")] or lines[-1:] or [f"exit code {code}"]
    return told[0][:200]


def _own_rows(record: Path) -> list[Row]:
    return [Row(**row) for row in json.loads(record.read_text())["rows"]]


def encoder_rows(part: str, record: Path) -> list[Row]:
    """A row for each setting of an encoder's record, and its fastest sound one against the aim."""
    found = json.loads(record.read_text())
    rows = []
    for each in found["rows"]:
        layout = ", channels last" if each["channels_last"] else ""
        what = f"{found['encoder']}, {each['precision']}, batch {each['batch']}{layout}"
        if each["error"]:
            rows.append(Row(part, what, failed=True, note=each["error"]))
            continue
        sound = "sound" if each["sound"] else f"not sound: least cosine {each['cosine_min'] or 0:.4f}"
        note = f"{sound}, {each['floor_share']:.0%} of its floor"
        rows.append(Row(part, what, each["images_per_s"], "images/s", note=note))
    best, name = found["fastest_sound"], "fastest sound precision"
    if best is None:
        return [*rows, Row(part, name, failed=True, note="no precision is sound")]
    memory = best["memory_bytes"]
    gib = None if memory is None else memory / 2**30
    return [
        *rows,
        Row(part, name, best["images_per_s"], "images/s", _ENCODER_IMAGES_PER_S, note=best["precision"]),
        Row(part, f"{name}: peak memory", gib, "GiB", note=_NO_GPU if gib is None else ""),
    ]


def fastest_sound(record: Path) -> dict[str, Any]:
    """The fastest sound row of an encoder's record; empty where there is none."""
    with suppress(OSError, ValueError):
        return dict(json.loads(record.read_text())["fastest_sound"] or {})
    return {}


def as_table(rows: Sequence[Row], measured_on: dict[str, Any], plan: Plan) -> Table:
    """The rows as text, under date and machine."""
    cells = []
    for row in rows:
        shown = "" if row.value is None else f"{row.value:.4g} {row.unit}".strip()
        aim = "" if row.aim is None or row.is_check else f"{'≤' if row.at_most else '≥'} {row.aim:g}"
        judged = row.is_wrong or row.is_check or not plan.small
        reached = "no" if row.failed else {True: "yes", False: "no", None: ""}[row.reached if judged else None]
        cells.append((row.part, row.what, shown, aim, reached, row.note))
    versions = [f"{name} {measured_on[key]}" for name, key in _VERSIONS.items() if measured_on.get(key)]
    where = ", ".join([measured_on["date"], measured_on["device"], *versions, measured_on["processor"]])
    notes = ["aims are for an H100 or H200; a row without an aim is a figure, one with `of` a check"]
    if plan.small:
        notes.append("in small: tiny shapes show that everything runs, and no figure means anything")
    return Table("gpu_check", "GPU check", _COLUMNS, tuple(cells), tuple(notes), where)


if __name__ == "__main__":
    sys.exit(main())
