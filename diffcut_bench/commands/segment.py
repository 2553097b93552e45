"""``diffcut-bench segment``: the user's own pictures."""

import argparse
import math
from pathlib import Path

from PIL import Image

from diffcut_bench.commands.terminal import say, warn
from diffcut_bench.commands.words import split_words
from diffcut_bench.errors import UserError
from diffcut_bench.escaping import counted
from diffcut_bench.paths import portable
from diffcut_bench.segmentation import PictureSegmenter, SegmentRecord, picture_config, picture_files, segment_files
from diffcut_bench.segmentation.formats import ALWAYS, EXPLORER, FORMATS, chosen_formats


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``segment`` takes besides overrides."""
    text = "name each segment: classes with commas between, synonyms with |, such as 'cat|kitten, sofa, background'"
    parser.add_argument("--classes", metavar="LIST", help=text)
    text = f"write besides, with commas between: {', '.join(FORMATS)}; {' and '.join(ALWAYS)} are always written"
    parser.add_argument("--format", metavar="LIST", help=text)
    text = "smooth the polygons: how far their borders may move, in pixels (default: 0, the edges of pixels)"
    parser.add_argument("--simplify", metavar="PIXELS", type=float, default=0, help=text)
    text = "also write a page for each picture: a slider moves tau, segments can be walked through and downloaded"
    parser.add_argument("--explore", action="store_true", help=text)


def segment(options: argparse.Namespace) -> int:
    """Segment pictures; each is recorded as it is done, and one that was recorded before is passed over.

    Returns:
        2 where one of several could not be read.

    Raises:
        UserError: the only one could not be read, an option is wrong, or the record in the folder is damaged.
    """
    words, overrides = split_words(options.overrides, Image.registered_extensions())
    paths = picture_files(words)
    if not paths:
        raise UserError("no picture named", "diffcut-bench segment", "diffcut-bench segment photo.jpg [key=value …]")
    classes = [name.strip() for name in (options.classes or "").split(",") if name.strip()]
    if options.classes is not None and not classes:
        raise UserError("no class named", "--classes", '--classes "cat, sofa, plant"')
    formats = () if options.format is None else chosen_formats(options.format)
    if options.explore and EXPLORER not in formats:
        formats += (EXPLORER,)
    if not 0 <= options.simplify < math.inf:
        raise UserError(f"{options.simplify:g} pixels", "--simplify", "--simplify 1.5")
    config = picture_config(overrides, named=bool(classes))
    segmenter, output_dir = PictureSegmenter(config, classes), Path(config.output_dir)
    record = SegmentRecord(output_dir / "segments", portable(config.to_dict(), output_dir), segmenter.identity())
    failed = []
    for each in segment_files(paths, segmenter, record, config.if_exists, formats, options.simplify):
        if each.entry is None:
            failed.append(str(each.error))
            continue
        names = sorted({segment["name"] for segment in each.entry["segments"] if "name" in segment})
        told = [f"{each.path}: {counted(len(each.entry['segments']), 'segment')}", *names]
        told += [f"{record.folder / each.entry['overlay']}"]
        told += [each.entry["formats"][one.name]["path"] for one in formats]
        told += ["segmented before (if_exists=overwrite: again)"] if each.before else []
        say(", ".join(told))
    if record.path.is_file():
        say(f"segments {record.path}")
    for failure in dict.fromkeys(failed):
        warn(failure)
    return 2 if failed else 0
