"""From the original files to a Hugging Face data set on disk: image bytes as they are, labels as PNGs of raw values.

``<folder>/`` is what `datasets.Dataset.save_to_disk` writes, with ``manifest.json`` beside the rows. It is made in
``<folder>.unfinished/``, shard by shard, and gets its name by one rename, so a folder with that name is complete. By a
lock, the second of two preparations waits for the first and then uses its result.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from diffcut_bench.datasets.base import SegmentationDataset
from diffcut_bench.datasets.benchmark import Benchmark
from diffcut_bench.datasets.manifest import Manifest, read_manifest
from diffcut_bench.datasets.records import Records
from diffcut_bench.errors import UserError
from diffcut_bench.extensions import command
from diffcut_bench.extras import require
from diffcut_bench.store import unwritable

Report = Callable[[int, int], None]


def prepared_folder(benchmark: Benchmark, data_dir: Path) -> Path:
    """The folder of a benchmark's prepared form."""
    return data_dir / benchmark.source


def preparation_state(benchmark: Benchmark, data_dir: Path) -> str:
    """Whether a benchmark can be opened from this disk, in one line; ``missing: …`` says what it needs."""
    manifest = read_manifest(prepared_folder(benchmark, data_dir))
    expected = f" of {benchmark.n_expected}" if benchmark.n_expected else ""
    if manifest is not None:
        return f"prepared, {manifest.pairs}{expected} pairs"
    if benchmark.root is not None:
        return f"originals there, {len(benchmark.from_originals())}{expected} pairs, not prepared"
    return f"missing: not prepared; {command(f'data prepare {benchmark.name} dataset.root=DIR')}"


def open_benchmark(
    benchmark: Benchmark, data_dir: Path, prepared: str = "auto", num_proc: int = 1, report: Report | None = None
) -> SegmentationDataset:
    """Open a benchmark for scoring.

    Args:
        benchmark: which.
        data_dir: folder of prepared data sets.
        prepared: ``auto``: the prepared form, made now if the originals are there and it is missing or older than they
            are; ``never``: the originals; otherwise the folder or URL (``s3://…``, ``hf://…``, any fsspec file
            system) of a prepared form.
        num_proc: processes for a preparation.
        report: called with pairs done and pairs in all.

    Raises:
        UserError: neither a prepared form nor originals are there, or they are incomplete.
    """
    if prepared == "never":
        return benchmark.from_originals()
    if prepared != "auto":
        return benchmark.from_records(_load(prepared, benchmark))
    folder = prepared_folder(benchmark, data_dir)
    if benchmark.root_path is not None and (benchmark.root_path.is_dir() or not folder.is_dir()):
        return prepare(benchmark, data_dir, num_proc, report)
    if not folder.is_dir():
        hint = f"{command(f'data prepare {benchmark.name} dataset.root=DIR')} (add --download to fetch it)"
        raise UserError(f"{benchmark.name} is not prepared, and dataset.root is not set", str(folder), hint)
    return benchmark.from_records(_load(str(folder), benchmark))


def prepare(
    benchmark: Benchmark, data_dir: Path, num_proc: int = 1, report: Report | None = None
) -> SegmentationDataset:
    """Prepare a benchmark's originals, unless that is done. An interrupted preparation continues with the next shard.

    Args:
        benchmark: with its root set.
        data_dir: folder of prepared data sets.
        num_proc: processes that read and encode.
        report: called with pairs done and pairs in all.

    Raises:
        UserError: originals are missing, a label can't be read, or the folder can't be written.
    """
    _require_datasets(benchmark)
    from diffcut_bench.datasets.shards import write_rows

    originals = benchmark.from_originals()
    folder = prepared_folder(benchmark, data_dir)
    root = (benchmark.root_path or Path()).absolute()
    manifest = Manifest(benchmark.source, _origin(originals, root), str(root), len(originals))
    if not _is_current(folder, manifest, benchmark):
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.with_suffix(".lock")):
                if not _is_current(folder, manifest, benchmark):  # the other of two preparations may have made it
                    write_rows(originals, manifest, folder, num_proc, report)
        except OSError as error:
            hint = "make room or choose another data_dir=DIR; what is done is kept"
            raise unwritable(folder, error, hint) from error
    return benchmark.from_records(_load(str(folder), benchmark))


def _require_datasets(benchmark: Benchmark) -> None:
    where = f"the prepared form of {benchmark.name} (prepared=never reads the original files instead)"
    require("data", where, "datasets")


def _load(source: str, benchmark: Benchmark) -> Records:
    """Rows of a prepared form; see `shards.load_rows`."""
    _require_datasets(benchmark)
    from diffcut_bench.datasets.shards import load_rows

    return load_rows(source, benchmark)


def _is_current(folder: Path, manifest: Manifest, benchmark: Benchmark) -> bool:
    """Whether the prepared folder is complete and was made from these originals."""
    found = read_manifest(folder)
    if found is None or found.origin != manifest.origin:
        return False
    try:
        _load(str(folder), benchmark)
    except UserError:
        return False
    return True


def _origin(originals: SegmentationDataset, root: Path) -> str:
    """Digest of ids, paths below the root, sizes and modification times: cheap, and different after any change."""
    digest = hashlib.sha256()
    for row in originals.records:
        digest.update(f"\0{row['id']}".encode())
        for column in ("image", "label"):
            path = Path(row[column]["path"])
            state = path.stat()
            relative = os.path.relpath(path.absolute(), root)
            digest.update(f"\0{relative}\0{state.st_size}\0{state.st_mtime_ns}".encode())
    return digest.hexdigest()
