"""What benchmarks leave: tables on the terminal, a JSON record, and the machine that both are of."""

import contextlib
import json
import platform
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from diffcut_bench.commands.terminal import console
from diffcut_bench.environment import device_name, installed_packages
from diffcut_bench.reporting import Column, Table
from diffcut_bench.store import write_atomically


def machine(device: torch.device) -> dict[str, Any]:
    """When and on what something is measured."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "packages": installed_packages(),
    }


def _processor() -> str:
    """The processor's model if the system tells it, else its architecture."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record whole, in place of an older one."""
    write_atomically(path, json.dumps(record, indent=1) + "\n")


def print_table(rows: Iterable[Mapping[str, Any]], fields: str, *notes: str) -> None:
    """Print fields of a record's rows under their names.

    Args:
        rows: values by field; a cell is empty where one is missing or None.
        fields: names in their order, those of numbers with a format: ``what images:d seconds:.4f``.
        notes: under the table.
    """
    formats = dict(word.partition(":")[::2] for word in fields.split())
    columns = tuple(Column(name.replace("_", " "), numeric=form != "") for name, form in formats.items())
    cells = tuple(
        tuple("" if row.get(name) is None else format(row[name], form) for name, form in formats.items())
        for row in rows
    )
    Table("benchmark", "Benchmark", columns, cells, notes).print(console)
