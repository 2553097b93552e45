"""Results as tidy tables: a row a cell, a row a class, a row an image; numbers are numbers, and unknown is empty."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from diffcut_bench.escaping import csv_cell
from diffcut_bench.evaluation import known_metrics
from diffcut_bench.redaction import public_text
from diffcut_bench.settings import Value, every_setting
from diffcut_bench.store import Bracket, ImageRow, Result, Score

Row = Mapping[str, Value]
_NUMBERS = ("score", "count", "timing")  # blocks of columns
_MOST = 2**63  # whole numbers of a column are smaller
_CLASSES = pa.schema(
    [
        *((name, pa.string()) for name in ("key", "dataset_name", "metric")),
        ("index", pa.int64()),
        ("class", pa.string()),
        *((name, pa.float64()) for name in ("score", "low", "high")),
    ]
)


def cells_table(cells: Sequence[tuple[str, Result]]) -> pa.Table:
    """A row a cell: what it is, every setting, every score with its interval, counts, timings, environment.

    Args:
        cells: name of the folder, and result.
    """
    blocks = [_blocks(name, result) for name, result in cells]
    names: dict[tuple[str, str], str] = {}  # of columns, by block and name in it
    for block in blocks[0] if blocks else ():
        for name in _grouped(dict.fromkeys(name for own in blocks for name in own[block])):
            free = name
            while free in names.values():
                free = f"{block}.{free}"
            names[block, name] = free
    return pa.table(
        {
            column: _array([own[block].get(name) for own in blocks], of_numbers=block in _NUMBERS)
            for (block, name), column in names.items()
        }
    )


def _grouped(names: Iterable[str]) -> list[str]:
    """Names with those of one group side by side, groups and names in the order that they come in."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.partition(".")[0], []).append(name)
    return [name for group in groups.values() for name in group]


def classes_table(results: Sequence[Result]) -> pa.Table:
    """A row for each cell, metric and class."""
    rows = []
    for result in results:
        for metric, score in _ordered(result.scores).items():
            for index, (name, value) in enumerate(score.per_class.items()):
                low, high = score.per_class_ci95.get(name) or (None, None)
                texts = (result.key, result.dataset.name, metric, name)
                told, *others = map(public_text, texts)
                values = (told, *others[:2], index, others[2], value, low, high)
                rows.append(dict(zip(_CLASSES.names, values, strict=True)))
    return pa.Table.from_pylist(rows, schema=_CLASSES)


def images_table(key: str, rows: Sequence[ImageRow], measured: Iterable[str]) -> pa.Table:
    """A row an image of a cell: segments, pixels, and for each class pixels that are true and false positives and false
    negatives.

    Args:
        key: of the cell.
        rows: of its images.
        measured: names of all statistics that some cell of the export has, so that all have the same columns.
    """
    counts, statistics = pa.list_(pa.int64()), sorted(measured)
    columns = [("key", pa.string()), ("index", pa.int64()), ("id", pa.string())]
    columns += [(name, pa.int64()) for name in ("segments", "pixels", "void")]
    columns += [(name, counts) for name in ("tp", "fp", "fn")]
    columns += [(f"measured.{name}", pa.list_(pa.float64())) for name in statistics]
    lines = [
        {
            "key": _text(key),
            **{name: getattr(row, name) for name in ("index", "segments", "pixels", "void", "tp", "fp", "fn")},
            "id": _text(row.id),
            **{f"measured.{name}": row.measured.get(name) for name in statistics},
        }
        for row in rows
    ]
    return pa.Table.from_pylist(lines, schema=pa.schema(columns))


def measured_names(folder: Path) -> list[str]:
    """Names of the statistics in the rows of a finished cell, of which nothing else is read; none without rows."""
    try:
        measured = pq.read_schema(folder / "per_image.parquet").field("measured").type
        return [measured.field(index).name for index in range(measured.num_fields)]
    except (OSError, KeyError, pa.ArrowException):
        return []


def to_parquet(table: pa.Table) -> bytes:
    """A parquet file; equal tables give equal bytes."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def to_csv(table: pa.Table) -> str:
    """Comma-separated values under one line of names. Text that a spreadsheet would take for a formula has an
    apostrophe before it, and control characters are written out."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([csv_cell(name) for name in table.column_names])
    for row in zip(*(column.to_pylist() for column in table.columns), strict=True):
        writer.writerow([_csv(value) for value in row])
    return buffer.getvalue()


def score_row(name: str, score: Score) -> dict[str, Value]:
    """A score and its 95 % interval, in the unit of result.json."""
    low, high = score.ci95 or (None, None)
    return {name: score.value, f"{name}_low": low, f"{name}_high": high}


def _blocks(name: str, result: Result) -> dict[str, Row]:
    dataset, timings, made_in = result.dataset, asdict(result.timings), result.environment
    scores: dict[str, Value] = {}
    for metric, score in _ordered(result.scores).items():
        told, bracket = public_text(metric), result.reference.of(metric) if result.reference else None
        scores |= {**score_row(told, score), f"{told}_images": score.n}
        scores |= _reference(told, bracket) if bracket else {}
    counts: dict[str, Value] = {
        "images": dataset.n_images,
        "images_scored": dataset.n_images - len(result.failures),
        "images_failed": len(result.failures),
        "images_published": dataset.n_expected,
        "images_available": dataset.n_available,
        **{f"segments_{end}": value for end, value in asdict(result.segments_per_image).items()},
        "void_share": dataset.void_share,
    }
    if result.linking:
        linking = {key: value for key, value in asdict(result.linking).items() if key != "miou"}
        counts |= {f"linking_{key}": value for key, value in linking.items()}
    environment: dict[str, Value] = {
        "device_name": public_text(made_in.device),
        "noise_generator": public_text(made_in.noise_generator),
        **{key: public_text(str(made_in.git[key])) for key in ("commit",) if made_in.git.get(key)},
        "dirty": bool(made_in.git.get("dirty")),
        **{f"version_{public_text(key)}": public_text(version) for key, version in sorted(made_in.packages.items())},
    }
    about: dict[str, Value] = {
        "cell": public_text(name),
        "key": public_text(result.key),
        "dataset_name": public_text(dataset.name),
        "fingerprint": public_text(dataset.fingerprint),
        "protocol_name": public_text(str(result.protocol.get("name", ""))),
        "limited": result.limited,
    }
    return {
        "cell": about,
        "setting": every_setting(result.config),
        "score": scores,
        "count": counts,
        "timing": timings,
        "environment": environment,
        "file": {"schema_version": result.schema_version},
    }


def _reference(metric: str, bracket: Bracket) -> dict[str, Value]:
    ends = {f"{metric}_{end}": getattr(bracket, end).value for end in ("floor", "ceiling")}
    return {**ends, **score_row(f"{metric}_lift", bracket.lift)}


def _ordered(scores: Mapping[str, Score]) -> dict[str, Score]:
    """Scores in the order of tables, those of metrics that are not here last."""
    order = [name for name in known_metrics() if name in scores]
    return {name: scores[name] for name in [*order, *sorted(scores.keys() - {*order})]}


def _array(values: Sequence[Value], *, of_numbers: bool) -> pa.Array:
    """A column of the narrowest type that holds all of its values: truth values, whole numbers, numbers, or text. One
    without values is of numbers or text."""
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, bool) for value in known):
        return pa.array(values, pa.bool_())
    if known and all(_is_number(value) for value in known):
        if all(isinstance(value, int) and -_MOST <= value < _MOST for value in known):
            return pa.array(values, pa.int64())
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    if not known and of_numbers:
        return pa.array(values, pa.float64())
    return pa.array([None if value is None else _as_text(value) for value in values], pa.string())


def _is_number(value: Value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def _as_text(value: Value) -> str:
    return _text(value) if isinstance(value, str) else json.dumps(value)


def _text(text: str) -> str:
    """Text that every file can hold: halves of surrogate pairs are question marks."""
    return text.encode(errors="replace").decode()


def _csv(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return csv_cell(value) if isinstance(value, str) else json.dumps(value)
