"""``diffcut-bench segment``: the user's own pictures."""

import argparse
import contextlib
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from diffcut_bench.commands.terminal import console, progress, say, warn
from diffcut_bench.commands.words import split_words
from diffcut_bench.config import RunConfig
from diffcut_bench.errors import UserError
from diffcut_bench.escaping import counted, visible
from diffcut_bench.paths import expanded, portable
from diffcut_bench.segmentation import (
    FileSegmenter,
    NamedPicture,
    PictureSegmenter,
    SegmentedFile,
    SegmentRecord,
    WrittenFiles,
    named_pictures,
    picture_config,
    split_list,
)
from diffcut_bench.segmentation.formats import Format, chosen_formats
from diffcut_bench.traces import CodeError

_FEW = 20  # pictures, of which each has a line even where it was segmented before


def segment(options: argparse.Namespace) -> int:
    """Segment pictures; each is recorded as it is done, and one that was recorded before is skipped.

    Returns:
        2 where one of several could not be read.

    Raises:
        UserError: the only one could not be read, an option is wrong, or the record in the folder is damaged.
    """
    words, overrides = split_words(options.overrides, Image.registered_extensions())
    if not words:
        raise UserError("no picture named", "diffcut-bench segment", "diffcut-bench segment photo.jpg [key=value …]")
    classes = [name.strip() for name in (options.classes or "").split(",") if name.strip()]
    if options.classes is not None and not classes:
        raise UserError("no class named", "--classes", '--classes "cat, sofa, plant"')
    formats = chosen_formats(f"{options.format},explorer" if options.explore else options.format)
    if not 0 <= options.simplify < math.inf:
        raise UserError(f"{options.simplify:g} pixels", "--simplify", "--simplify 1.5")
    config = picture_config([*overrides, *_limit(options.limit_pixels, overrides)], named=bool(classes))
    folder, base = _folders(options.output, config, overrides)
    segmenter = PictureSegmenter(config, classes)
    record = SegmentRecord(folder, base, portable(config.to_dict(), base), segmenter.identity())
    pictures = _pictures(words, options.recursive, record, config)
    files = FileSegmenter(
        segmenter,
        record,
        formats,
        options.simplify,
        config.if_exists == "overwrite",
        config.batch_size,
        config.max_pixels,
    )
    try:
        ended = _segment(files, pictures, record, formats)
    finally:
        record.close()
    if record.path.is_file():
        say(f"segments {record.path}")
    passed = [each for each in ended if each.is_too_large and options.limit_pixels is not None]
    for each in passed:
        warn(f"{each.path}: passed over, it has more than {options.limit_pixels} pixels (--limit-pixels)")
    failed = [each.error for each in ended if each not in passed and each.error is not None]
    if failed and len(pictures) == 1:
        raise failed[0]
    told: set[str] = set()
    for failure in failed:
        origin = failure.trace.origin if isinstance(failure, CodeError) else str(failure)
        if origin not in told:
            warn(str(failure))
        elif isinstance(failure, CodeError):
            warn(f"the same: {failure.where}")
        told.add(origin)
    return 2 if failed else 0


def _limit(limit: int | None, overrides: Sequence[str]) -> list[str]:
    """The limit as the option that says what is decoded."""
    if limit is None:
        return []
    if any(word.startswith("max_pixels=") for word in overrides):
        raise UserError("two limits of one thing", f"--limit-pixels {limit}", "leave max_pixels=N out")
    return [f"max_pixels={limit}"]


def _folders(output: str | None, config: RunConfig, overrides: Sequence[str]) -> tuple[Path, Path]:
    """Where everything goes, and what paths in its record are relative to."""
    if output is None:
        return Path(config.output_dir) / "segments", Path(config.output_dir)
    if any(word.startswith("output_dir=") for word in overrides):
        hint = "-o DIR writes into DIR, output_dir=DIR into DIR/segments"
        raise UserError("two folders to write to", f"-o {output}", f"name one: {hint}")
    folder = Path(expanded(output, "-o"))
    return folder, folder


def _pictures(words: Sequence[str], recursive: bool, record: SegmentRecord, config: RunConfig) -> list[NamedPicture]:
    """Those that are named, or this shard's of them."""
    listed = split_list(sys.stdin.buffer.read()) if "-" in words and sys.stdin is not None else []
    if "-" in words and not listed:
        raise UserError("an empty list", "-", "find photos -name '*.jpg' -print0 | diffcut-bench segment -")
    pictures = named_pictures([word for word in words if word != "-"], recursive, listed, WrittenFiles(record))
    number, count = config.shard_of() or (1, 1)
    return pictures[number - 1 :: count]


def _segment(
    files: FileSegmenter, pictures: Sequence[NamedPicture], record: SegmentRecord, formats: Sequence[Format]
) -> list[SegmentedFile]:
    """Segment, and say how each picture ended; returns those that could not be segmented."""
    ended, before, done, todo = [], 0, 0, len(pictures)
    with contextlib.ExitStack() as stack:
        report = None
        if len(pictures) > 1:
            report = stack.enter_context(progress("segmenting", "images", transient=not console.is_terminal))
            report(done, todo)
        for each in files(pictures):
            if each.before:  # speed and time left are of the others
                todo -= 1
            else:
                done += 1
            if report is not None:
                report(done, todo)
            if each.entry is None:
                ended.append(each)
            elif each.before and len(pictures) > _FEW:
                before += 1
            else:
                say(_line(each, record, formats))
    if before:
        say(f"{counted(before, 'picture')} segmented before (if_exists=overwrite: again)")
    return ended


def _line(ended: SegmentedFile, record: SegmentRecord, formats: Sequence[Format]) -> str:
    """A picture, its segments, their names, and the files besides the label picture."""
    assert ended.entry is not None
    files = record.files(ended.entry)
    told = [f"{ended.path}: {counted(len(ended.entry['segments']), 'segment')}"]
    told += sorted({segment["name"] for segment in ended.entry["segments"] if "name" in segment})
    told += [str(files[each.name]) for each in formats if each.name != "labels" or len(formats) == 1]
    told += ["segmented before (if_exists=overwrite: again)"] if ended.before else []
    return visible(", ".join(told))  # a name may hold line breaks
