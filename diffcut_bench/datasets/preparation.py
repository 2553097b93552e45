"""From the original files to a Hugging Face data set on disk: image bytes as they are, labels as PNGs of raw values.

``<folder>/`` is what `datasets.Dataset.save_to_disk` writes, with ``manifest.json`` beside the rows. It is made in
``<folder>.unfinished/``, shard by shard, and gets its name by one rename, so a folder with that name is complete. By a
lock, the second of two preparations waits for the first and then uses its result.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import datasets as hf
import fsspec
from filelock import FileLock

from diffcut_bench.datasets.base import DIGEST, FEATURES, SegmentationDataset, pair_digest, undecoded
from diffcut_bench.datasets.benchmark import Benchmark
from diffcut_bench.errors import UserError
from diffcut_bench.extensions import command
from diffcut_bench.interruption import end_children, process_context
from diffcut_bench.store import sync_folder, sync_tree, unwritable

FORMAT = 1
SHARD = 128  # pairs in a shard: an interrupted preparation loses at most so many for each process

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Manifest:
    """What a prepared folder was made from.

    Attributes:
        source: see `Benchmark`.
        origin: digest of ids, sizes and times of the original files, so that a change there is noticed.
        root: folder of the original files.
        pairs: number of rows.
        format: of the folder.
    """

    source: str
    origin: str
    root: str
    pairs: int
    format: int = FORMAT


def prepared_folder(benchmark: Benchmark, data_dir: Path) -> Path:
    """The folder of a benchmark's prepared form."""
    return data_dir / benchmark.source


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a prepared folder; None if nothing prepared is there."""
    try:
        return _parse_manifest((folder / "manifest.json").read_text())
    except (OSError, ValueError, TypeError):
        return None


def preparation_state(benchmark: Benchmark, data_dir: Path) -> str:
    """Whether a benchmark can be opened from this disk, in one line; ``missing: …`` says what it needs."""
    manifest = read_manifest(prepared_folder(benchmark, data_dir))
    expected = f" of {benchmark.n_expected}" if benchmark.n_expected else ""
    if manifest is not None:
        return f"prepared, {manifest.pairs}{expected} pairs"
    if benchmark.root is not None:
        return f"originals there, {len(benchmark.from_originals())}{expected} pairs, not prepared"
    return f"missing: not prepared; {command(f'data prepare {benchmark.name} dataset.root=DIR')}"


def _parse_manifest(text: str) -> Manifest:
    manifest = Manifest(**json.loads(text))
    if manifest.format != FORMAT:
        raise ValueError(f"prepared in format {manifest.format}, not {FORMAT}")
    return manifest


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
    originals = benchmark.from_originals()
    folder = prepared_folder(benchmark, data_dir)
    root = (benchmark.root_path or Path()).absolute()
    manifest = Manifest(benchmark.source, _origin(originals, root), str(root), len(originals))
    if not _is_current(folder, manifest, benchmark):
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.with_suffix(".lock")):
                if not _is_current(folder, manifest, benchmark):  # the other of two preparations may have made it
                    _write(originals, manifest, folder, num_proc, report)
        except OSError as error:
            hint = "make room or choose another data_dir=DIR; what is done is kept"
            raise unwritable(folder, error, hint) from error
    return benchmark.from_records(_load(str(folder), benchmark))


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


def _write(
    originals: SegmentationDataset, manifest: Manifest, folder: Path, num_proc: int, report: Report | None
) -> None:
    if folder.exists() and not (folder / "manifest.json").is_file():
        what = "a folder that is no prepared data set is in the way"
        raise UserError(what, str(folder.absolute()), "choose another data_dir=DIR")
    work = folder.with_name(f"{folder.name}.unfinished") / f"{manifest.origin[:12]}-{FORMAT}-{SHARD}"
    work.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(originals), SHARD)
    sizes = {start: min(SHARD, len(originals) - start) for start in starts}
    missing = [start for start in starts if _rows(_shard(work, start)) != sizes[start]]
    done = len(originals) - sum(sizes[start] for start in missing)
    if report:
        report(done, len(originals))
    write_shard = partial(_write_shard, originals, work, SHARD)
    with ProcessPoolExecutor(num_proc, process_context()) if num_proc > 1 else nullcontext() as pool:
        try:
            for pairs in (pool.map if pool else map)(write_shard, missing):
                done += pairs
                if report:
                    report(done, len(originals))
        except (BrokenProcessPool, OSError) as error:
            # A pool that breaks while it is given work may raise an OSError without a number, for a handle of its own.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            end_children()  # the pool would wait forever for a process that it started as the other died
            hint = "run the same command with fewer, or with num_proc=1; what is done is kept"
            what = "a process that prepares died, often for lack of memory"
            raise UserError(what, f"num_proc={num_proc}", hint) from error
    whole = hf.concatenate_datasets([hf.load_from_disk(str(_shard(work, start))) for start in starts])
    if whole["id"][:] != originals.records["id"][:]:
        raise UserError("the prepared shards do not add up", str(work), "delete this folder and prepare again")
    complete = work / "complete"
    _save(whole, complete)
    (complete / "manifest.json").write_text(json.dumps(asdict(manifest), indent=1) + "\n")
    del whole
    sync_tree(complete)
    replaced = work / "replaced"
    if folder.exists():
        folder.rename(replaced)
    complete.rename(folder)
    sync_folder(folder.parent)
    shutil.rmtree(work.parent)


def _rows(shard: Path) -> int | None:
    """Rows of a shard that an earlier start wrote; None if it is missing or damaged."""
    try:
        return len(hf.load_from_disk(str(shard)))
    except Exception:  # whatever arrow and datasets raise on damaged files: the shard is written again
        return None


def _write_shard(originals: SegmentationDataset, work: Path, size: int, start: int) -> int:
    """Encode one shard and give it its name with one rename; returns its number of pairs."""
    rows = undecoded(originals.records.select(range(start, min(start + size, len(originals)))))
    table: dict[str, list[object]] = {"id": [], "image": [], "label": [], DIGEST: []}
    for row in rows:
        try:
            image, label = originals.encoded(row)
        except ValueError as error:
            what, hint = f"label can't be read ({error})", "fetch or unpack this file again"
            raise UserError(what, str(row["label"]["path"]), hint) from error
        table["id"].append(row["id"])
        table["image"].append({"path": Path(row["image"]["path"]).name, "bytes": image})
        table["label"].append({"path": Path(row["label"]["path"]).with_suffix(".png").name, "bytes": label})
        table[DIGEST].append(pair_digest(image, label))
    temporary = work / f"writing-{start:08d}"
    _save(hf.Dataset.from_dict(table, features=hf.Features({**FEATURES, DIGEST: hf.Value("string")})), temporary)
    sync_tree(temporary)
    shutil.rmtree(_shard(work, start), ignore_errors=True)
    temporary.rename(_shard(work, start))
    sync_folder(work)
    return len(rows)


def _shard(work: Path, start: int) -> Path:
    return work / f"shard-{start:08d}"


def _load(source: str, benchmark: Benchmark) -> hf.Dataset:
    """Rows of a prepared form: a folder or fsspec URL of `save_to_disk`, or parquet files of the same columns."""
    again = command(f"data prepare {benchmark.name} dataset.root=DIR") + ", or prepared=FOLDER|URL of another one"
    try:
        if source.endswith(".parquet"):
            rows = hf.load_dataset("parquet", data_files=source, split="train")
            return rows.cast_column("image", hf.Image()).cast_column("label", hf.Image())
        with fsspec.open(f"{source.rstrip('/')}/manifest.json", "rt") as file:
            manifest = _parse_manifest(file.read())
        records = hf.load_from_disk(source)
    except Exception as error:  # whatever arrow, fsspec and datasets raise on absent or damaged files
        reason = f"{error}".splitlines()[0] if f"{error}" else type(error).__name__
        user = source.partition("://")[2].partition("/")[0].rpartition("@")[0]
        if user:  # file systems name the URL without its scheme, so that `UserError` can't recognise the credentials
            reason = reason.replace(f"{user}@", "")
        raise UserError(f"no prepared data set there, or a damaged one ({reason})", source, again) from error
    if manifest.source != benchmark.source:
        raise UserError(f"prepared for {manifest.source}, but {benchmark.source} is wanted", source, again)
    if manifest.pairs != len(records):
        raise UserError(f"{len(records)} of the {manifest.pairs} prepared pairs are left", source, again)
    return records


def _origin(originals: SegmentationDataset, root: Path) -> str:
    """Digest of ids, paths below the root, sizes and modification times: cheap, and different after any change."""
    digest = hashlib.sha256()
    for row in undecoded(originals.records):
        digest.update(f"\0{row['id']}".encode())
        for column in ("image", "label"):
            path = Path(row[column]["path"])
            state = path.stat()
            relative = os.path.relpath(path.absolute(), root)
            digest.update(f"\0{relative}\0{state.st_size}\0{state.st_mtime_ns}".encode())
    return digest.hexdigest()


def _save(rows: hf.Dataset, folder: Path) -> None:
    """Write rows in the place of an earlier try, without the progress bars of `datasets`: ours count the pairs."""
    shutil.rmtree(folder, ignore_errors=True)
    were_on = not hf.are_progress_bars_disabled()
    hf.disable_progress_bars()
    try:
        rows.save_to_disk(str(folder))
    finally:
        if were_on:
            hf.enable_progress_bars()
