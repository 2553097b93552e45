"""``diffcut-bench segment``: the user's own pictures."""

import argparse
import itertools
import json
import re
from pathlib import Path

from PIL import Image

from diffcut_bench.commands.terminal import errors, say
from diffcut_bench.config import (
    load_config,
)
from diffcut_bench.errors import UserError
from diffcut_bench.segmentation import PictureSegmenter
from diffcut_bench.store import write_atomically

_NAMER = "clip_b16"  # where classes are given and no namer is


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``segment`` takes besides overrides."""
    text = "name each segment: classes with commas between, synonyms with |, such as 'cat|kitten, sofa, background'"
    parser.add_argument("--classes", metavar="LIST", help=text)


def segment(options: argparse.Namespace) -> int:
    """Segment pictures; 2 where one of several could not be read."""

    def is_override(word: str) -> bool:
        is_picture = Path(word).exists() or Path(word).suffix.lower() in Image.registered_extensions()
        return not is_picture and re.match(r"[+~]*[\w./@]+=", word) is not None

    overrides = [word for word in options.overrides if is_override(word)]
    images = [Path(word) for word in options.overrides if not is_override(word)]
    if not images:
        raise UserError("no picture named", "diffcut-bench segment", "diffcut-bench segment photo.jpg [key=value …]")
    classes = [name.strip() for name in (options.classes or "").split(",") if name.strip()]
    if options.classes is not None and not classes:
        raise UserError("no class named", "--classes", '--classes "cat, sofa, plant"')
    if classes and not _chosen_namer(overrides):
        overrides = [f"namer={_NAMER}", *overrides]
    config = load_config(["protocol=strict", *overrides])
    folder = Path(config.output_dir) / "segments"
    segmenter = PictureSegmenter(config, classes)
    described, failed = [], []
    names: set[str] = set()
    for image in images:
        try:
            result = segmenter(image)
        except UserError as error:
            if len(images) == 1:
                raise
            failed.append(error)
            continue
        name = next(
            n
            for n in itertools.chain([image.stem], (f"{image.stem}-{i}" for i in itertools.count(2)))
            if n not in names
        )
        names.add(name)
        labels_path, overlay_path = folder / f"{name}_labels.png", folder / f"{name}_overlay.png"
        result.save(labels_path, overlay_path)
        height, width = result.labels.shape
        described.append(
            {
                **{"image": str(image), "width": width, "height": height},
                **{"labels": labels_path.name, "overlay": overlay_path.name},
                "segments": result.describe(),
            }
        )
        named = sorted({name for name, _ in result.names or ()})
        say(f"{image}: {result.num_segments} segments{''.join(f', {name}' for name in named)}, {overlay_path}")
    if described:
        record = {"schema_version": 1, "config": config.to_dict(), "images": described}
        write_atomically(folder / "segments.json", json.dumps(record, indent=1) + "\n")
        say(f"segments {folder / 'segments.json'}")
    for failure in failed:
        errors.print(str(failure), markup=False, highlight=False, soft_wrap=True)
    return 2 if failed else 0


def _chosen_namer(overrides: list[str]) -> bool:
    """Whether the overrides, or an option among them, choose a namer; what they set of one comes after that."""
    if any(override.startswith("namer=") for override in overrides):
        return True
    config = load_config([override for override in overrides if not override.startswith("namer.")])
    return bool(config.namer.get("_target_"))
