"""A finished cell's files: written with their checksums, and checked when they are read."""

import hashlib
import io
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from diffcut_bench.errors import UserError
from diffcut_bench.store.atomic import write_atomically
from diffcut_bench.store.rows import ImageRow
from diffcut_bench.store.schema import NewerSchemaError, Result, typed

SUMS = "SHA256SUMS"
_RESULT, _ROWS = "result.json", "per_image.parquet"


class DamagedError(UserError):
    """A finished cell's file is missing, or is not what was written."""

    def __init__(self, what: str, where: Path) -> None:
        hint = "the next run of this cell computes it again; `diffcut-bench verify` has all"
        super().__init__(what, str(where), hint)


def publish(folder: Path, result: Result, rows: Sequence[ImageRow], config_yaml: str, images: Collection[int]) -> None:
    """Write a cell's files into a folder, and last their checksums, in the form of ``sha256sum``.

    Args:
        folder: where they go.
        result, rows, config_yaml: contents.
        images: indices in the data set that the cell is of.

    Raises:
        UserError: an image is in neither rows nor failures, or twice; or the folder can't be written.
    """
    _check_complete(folder, result, rows, images)
    contents = {_ROWS: rows_to_parquet(rows), "config.yaml": config_yaml.encode(), _RESULT: result.to_json().encode()}
    for name, content in contents.items():
        write_atomically(folder / name, content)
    write_atomically(folder / SUMS, "".join(f"{_sha256(content)}  {name}\n" for name, content in contents.items()))


def republish(folder: Path, result: Result) -> None:
    """Replace the result of a finished cell by one that says more of the same rows; whoever looks meanwhile, or after a
    kill half-way, sees a whole cell.

    Raises:
        UserError: the folder can't be written.
    """
    content = result.to_json().encode()
    if not (folder / SUMS).is_file():  # of an older version
        write_atomically(folder / _RESULT, content)
        return
    before = (folder / SUMS).read_text()
    line, own = f"{_sha256(content)}  {_RESULT}\n", re.compile(rf"^.*  {re.escape(_RESULT)}\n", re.MULTILINE)
    write_atomically(folder / SUMS, before + line)  # for as long as it is either
    write_atomically(folder / _RESULT, content)
    write_atomically(folder / SUMS, own.sub("", before) + line)


def read_result(folder: Path) -> Result:
    """The result of a finished cell.

    Raises:
        DamagedError: the file is missing, changed, or no result.
        UserError: a newer version wrote it.
    """
    path = folder / _RESULT
    try:
        return Result.from_json(_content(path).decode())
    except NewerSchemaError as error:
        raise UserError(str(error), str(path), "update diffcut_bench, or take another output_dir") from error
    except ValueError as error:
        raise DamagedError(f"result can't be read ({error})", path) from error


def read_rows(folder: Path, prototypes: bool = False) -> list[ImageRow]:
    """Rows of a finished cell's per_image.parquet.

    Args:
        folder: of the cell.
        prototypes: whether they are read too, and checked: they are much the largest part, and few need them.

    Raises:
        DamagedError: the file is missing, changed, or holds no rows of images.
    """
    path = folder / _ROWS
    try:
        file = pq.ParquetFile(io.BytesIO(_content(path)))
        names = [name for name in file.schema_arrow.names if prototypes or name != "prototypes"]
        rows = rows_of_table(file.read(names))
        if any(len(entry) != 3 for row in rows for entry in row.table or ()):
            raise ValueError("entries of a table that are not class, cluster and pixels")
        channels = {row.unpack_prototypes().shape[1] for row in rows if row.prototypes}
        if len(channels) > 1:
            raise ValueError(f"prototypes of {' and '.join(map(str, sorted(channels)))} channels")
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DamagedError(f"rows of this cell can't be read ({str(error).splitlines()[0]})", path) from error
    classes = {len(counts) for row in rows for counts in (row.tp, row.fp, row.fn)}
    if len(classes) > 1 or len({row.index for row in rows}) < len(rows):
        raise DamagedError("rows of an image twice, or of several numbers of classes", path)
    for row in rows:
        entries = row.table or ()
        of_classes = all(0 <= class_id < len(row.tp) and min(own) >= 0 for class_id, *own in entries)
        if row.table is not None and not (of_classes and sum(pixels for *_, pixels in entries) == row.pixels):
            what = f"the table of {row.id} is not of its {row.pixels} pixels and {len(row.tp)} classes"
            raise DamagedError(what, path)
    return rows


def check_published(folder: Path, key: str | None = None, prototypes: bool = False) -> tuple[Result, list[ImageRow]]:
    """Result and rows of a finished cell, after everything that must hold between them was looked at.

    Args:
        folder: of the cell.
        key: that the result must have; None: the one that the folder is named by, if it is.
        prototypes: see `read_rows`.

    Raises:
        DamagedError: something does not hold.
        UserError: a newer version wrote the result.
    """
    result, rows = read_result(folder), read_rows(folder, prototypes)
    check_key(folder, result, key)
    failed = [failure.index for failure in result.failures if failure.index is not None]
    if len(rows) + len(result.failures) != result.dataset.n_images or {row.index for row in rows} & set(failed):
        have = f"{len(rows)} rows and {len(result.failures)} failures"
        raise DamagedError(f"{have} of {result.dataset.n_images} images", folder)
    if any(len(row.tp) != len(result.class_names) for row in rows):
        raise DamagedError(f"rows of another number of classes than {len(result.class_names)}", folder)
    return result, rows


def check_key(folder: Path, result: Result, key: str | None = None) -> None:
    """See that a result is of the cell whose folder it lies in; see `check_published`.

    Raises:
        DamagedError: it is of another.
    """
    if key is None:
        named = re.fullmatch(r".*-([0-9a-f]{12})", folder.name)
        key = named[1] if named else ""
    if not result.key.startswith(key):
        raise DamagedError(f"the result of another cell, with key {result.key[:12]!r} instead of {key[:12]}", folder)


def check_sums(folder: Path) -> None:
    """Compare every file of a finished cell that has a checksum with it.

    Raises:
        DamagedError: one differs or is missing.
    """
    try:
        for name in _sums(folder) if (folder / SUMS).is_file() else ():
            _content(folder / name)
    except ValueError as error:
        raise DamagedError(f"a file can't be read ({error})", folder) from error


def _content(path: Path, again: bool = True) -> bytes:
    """Bytes of a published file, which have to agree with its checksum where its folder has any."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(error.strerror or f"{error}") from error
    if (path.parent / SUMS).is_file() and _sha256(content) not in _sums(path.parent).get(path.name, ()):
        if again and path.name == _RESULT:  # it may have been replaced between the two looks
            return _content(path, again=False)
        raise ValueError(f"{path.name} is not what was written: its SHA-256 is not the one in {SUMS}")
    return content


def _sums(folder: Path) -> dict[str, set[str]]:
    """Checksums of the files in a folder, by name; two of one that is being replaced."""
    sums: dict[str, set[str]] = {}
    try:
        for line in (folder / SUMS).read_text().splitlines():
            digest, name = line.split("  ")
            sums.setdefault(name, set()).add(digest)
    except (OSError, ValueError) as error:
        raise ValueError(f"{SUMS}: {error}") from error
    if any(Path(name).name != name for name in sums) or not {_RESULT, _ROWS} <= sums.keys():
        raise ValueError(f"{SUMS} names no result and rows")
    return sums


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _check_complete(folder: Path, result: Result, rows: Sequence[ImageRow], images: Collection[int]) -> None:
    have = [*(row.index for row in rows), *(failure.index for failure in result.failures)]
    lacking = len(set(images) - set(have))
    if lacking or len(have) != len(images):
        surplus = len(have) - len(images) + lacking
        what = f"not published: of {len(images)} images {lacking} are missing and {surplus} are too many"
        raise UserError(what, str(folder.absolute()), "run the same command again: it computes what is missing")


def rows_of_table(table: pa.Table) -> list[ImageRow]:
    """Rows of a table of images.

    Raises:
        ValueError: they are none.
    """
    rows: list[ImageRow] = typed(list[ImageRow], table.to_pylist())
    return rows


def rows_to_parquet(rows: Sequence[ImageRow]) -> bytes:
    """A parquet file of rows of images."""
    counts = pa.list_(pa.int64())
    columns = dict.fromkeys(("index", "id", "segments", "pixels"), pa.int64()) | {"id": pa.string()}
    columns |= dict.fromkeys(("tp", "fp", "fn"), counts)
    if any(row.table is not None for row in rows):
        columns["table"] = pa.list_(counts)
    if any(row.void is not None for row in rows):
        columns["void"] = pa.int64()
    if any(row.prototypes is not None for row in rows):
        columns["prototypes"] = pa.string()
    measured = {name: pa.list_(pa.float64()) for row in rows for name in row.measured}
    if measured:
        columns["measured"] = pa.struct(measured)
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([vars(row) for row in rows], schema=pa.schema(columns)), buffer)
    return buffer.getvalue()
