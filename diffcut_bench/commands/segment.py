"""``diffcut-bench segment``: the user's own pictures."""

import argparse
import re
from pathlib import Path
from typing import Any

from PIL import Image

from diffcut_bench.commands.terminal import errors, say
from diffcut_bench.config import load_config
from diffcut_bench.errors import UserError
from diffcut_bench.paths import expanded, portable
from diffcut_bench.segmentation import PictureSegmenter, SegmentRecord

_NAMER = "clip_b16"  # where classes are given and no namer is


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``segment`` takes besides overrides."""
    text = "name each segment: classes with commas between, synonyms with |, such as 'cat|kitten, sofa, background'"
    parser.add_argument("--classes", metavar="LIST", help=text)


def segment(options: argparse.Namespace) -> int:
    """Segment pictures; each is recorded as it is done, and one that was recorded before is passed over.

    Returns:
        2 where one of several could not be read.

    Raises:
        UserError: the only one could not be read, an option is wrong, or the record in the folder is damaged.
    """
    overrides = [word for word in options.overrides if _is_override(word)]
    images = [path for word in options.overrides if not _is_override(word) for path in _pictures(word)]
    images = list(dict.fromkeys(images))
    if not images:
        raise UserError("no picture named", "diffcut-bench segment", "diffcut-bench segment photo.jpg [key=value …]")
    classes = [name.strip() for name in (options.classes or "").split(",") if name.strip()]
    if options.classes is not None and not classes:
        raise UserError("no class named", "--classes", '--classes "cat, sofa, plant"')
    if classes and not _chosen_namer(overrides):
        overrides = [f"namer={_NAMER}", *overrides]
    config = load_config(["protocol=strict", *overrides])
    segmenter = PictureSegmenter(config, classes)
    output_dir = Path(config.output_dir)
    record = SegmentRecord(output_dir / "segments", portable(config.to_dict(), output_dir), segmenter.identity())
    failed: list[UserError] = []
    for image in images:
        entry = record.find(image) if config.if_exists != "overwrite" else None
        if entry is not None:
            _say(image, entry, f"{record.folder / entry['overlay']}, segmented before (if_exists=overwrite: again)")
            continue
        try:
            result = segmenter(image)
        except Exception as error:  # whatever it is, the other pictures are segmented
            if len(images) == 1:
                raise
            failed.append(error if isinstance(error, UserError) else _unexpected(error, image))
            continue
        entry = record.add(image, result)
        _say(image, entry, f"{record.folder / entry['overlay']}")
    if record.path.is_file():
        say(f"segments {record.path}")
    for failure in dict.fromkeys(map(str, failed)):
        errors.print(failure, markup=False, highlight=False, soft_wrap=True)
    return 2 if failed else 0


def _unexpected(error: Exception, image: Path) -> UserError:
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    return UserError(what, str(image), "segment this picture alone to see more")


def _say(image: Path, entry: dict[str, Any], end: str) -> None:
    named = sorted({each["name"] for each in entry["segments"] if "name" in each})
    count = len(entry["segments"])
    say(", ".join([f"{image}: {count} segment{'' if count == 1 else 's'}", *named, end]))


def _is_override(word: str) -> bool:
    is_picture = Path(word).exists() or Path(word).suffix.lower() in Image.registered_extensions()
    return not is_picture and re.match(r"[+~]*[\w./@]+=", word) is not None


def _pictures(word: str) -> list[Path]:
    """The picture that is named, or every picture in the folder that is."""
    path = Path(expanded(word, "picture"))
    if not path.is_dir():
        return [path]
    suffixes = Image.registered_extensions()
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in suffixes and p.name[0] != "." and p.is_file())
    if not found:
        raise UserError("no picture in this folder", str(path), "name the pictures, or a folder that holds them")
    return found


def _chosen_namer(overrides: list[str]) -> bool:
    """Whether the overrides, or an option among them, choose a namer; what they set of one comes after that."""
    if any(override.startswith("namer=") for override in overrides):
        return True
    config = load_config([override for override in overrides if not override.startswith("namer.")])
    return bool(config.namer.get("_target_"))
