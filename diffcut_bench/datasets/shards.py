"""Rows of a prepared data set on disk, by Hugging Face's `datasets`: written shard by shard, read, checked.

Imported only where a prepared form is made or opened: `datasets` takes half a second, and is an extra.
"""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path

import datasets as hf
import fsspec

from diffcut_bench.datasets.base import DIGEST, SegmentationDataset, pair_digest
from diffcut_bench.datasets.benchmark import Benchmark
from diffcut_bench.datasets.manifest import FORMAT, Manifest, parse_manifest
from diffcut_bench.errors import UserError
from diffcut_bench.extensions import command
from diffcut_bench.interruption import end_children, process_context
from diffcut_bench.store import sync_folder, sync_tree

SHARD = 128  # pairs in a shard: an interrupted preparation loses at most so many for each process
_FEATURES = hf.Features({"id": hf.Value("string"), "image": hf.Image(), "label": hf.Image()})

Report = Callable[[int, int], None]


def write_rows(
    originals: SegmentationDataset, manifest: Manifest, folder: Path, num_proc: int, report: Report | None
) -> None:
    """Make a prepared folder; an interrupted one goes on with the next shard.

    Args:
        originals: data set read from its original files.
        manifest: of them.
        folder: that gets its name when it is complete.
        num_proc: processes that read and encode.
        report: called with pairs done and pairs in all.

    Raises:
        UserError: a label can't be read, another folder is in the way, or a process died.
        OSError: it can't be written.
    """
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
    if whole["id"][:] != originals.ids:
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
    rows = originals.records.select(range(start, min(start + size, len(originals))))
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
    _save(hf.Dataset.from_dict(table, features=hf.Features({**_FEATURES, DIGEST: hf.Value("string")})), temporary)
    sync_tree(temporary)
    shutil.rmtree(_shard(work, start), ignore_errors=True)
    temporary.rename(_shard(work, start))
    sync_folder(work)
    return len(rows)


def _shard(work: Path, start: int) -> Path:
    return work / f"shard-{start:08d}"


def load_rows(source: str, benchmark: Benchmark) -> hf.Dataset:
    """Rows of a prepared form, their pictures not decoded.

    Args:
        source: a folder or fsspec URL of `datasets.Dataset.save_to_disk`, or parquet files of the same columns.
        benchmark: that they are to be of.

    Raises:
        UserError: there are none, they are damaged or incomplete, or of another data set.
    """
    again = command(f"data prepare {benchmark.name} dataset.root=DIR") + ", or prepared=FOLDER|URL of another one"
    try:
        if source.endswith(".parquet"):
            rows = hf.load_dataset("parquet", data_files=source, split="train")
            return _undecoded(rows)
        with fsspec.open(f"{source.rstrip('/')}/manifest.json", "rt") as file:
            manifest = parse_manifest(file.read())
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
    return _undecoded(records)


def _undecoded(rows: hf.Dataset) -> hf.Dataset:
    """The same rows with path and bytes instead of pictures."""
    return rows.cast_column("image", hf.Image(decode=False)).cast_column("label", hf.Image(decode=False))


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
