"""What is kept of a reproduction: its tables and curves, for people and for programs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffcut_bench.reporting import Table, stored_curves, write_figure
from diffcut_bench.reproduction.spec import Reproduction
from diffcut_bench.store import write_atomically


def write_reproduction(
    folder: Path, reproduction: Reproduction, tables: Mapping[str, Table], curves: dict[str, Any] | None
) -> list[Path]:
    """Write reproduction.json, the tables and the figure.

    Args:
        folder: that they are written to.
        reproduction: whose.
        tables: by name, see `redraw`.
        curves: of a figure, see `figure_curves`.

    Returns:
        Paths of the tables and the figure.
    """
    record = {"schema_version": 1, "name": reproduction.name, "title": reproduction.title, "curves": curves}
    record |= {name: table.to_dict() for name, table in tables.items()}
    write_atomically(folder / "reproduction.json", json.dumps(record, indent=1) + "\n")
    paths = [path for table in tables.values() for path in table.write(folder)]
    figure = stored_curves(curves)
    if figure is not None:
        paths += write_figure(figure, folder, reproduction.name)
    return paths
