"""Speed of every segmenter of conf/segmenter/ beside DiffCut: what table 11 asks, without encoders."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.material import Material, resized
from benchmarks.timing import timed
from diffcut_bench.config import RunConfig, conf_dir, instantiate, load_config
from diffcut_bench.errors import UserError
from diffcut_bench.segmenters import DiffCut, Inputs, as_segmenter

_ENOUGH_S = 10.0  # of a segmenter; a slower one is not repeated
# Options that segment nothing themselves (folders of results, the annotation, patches whose naming is the method), and
# one that needs a file of trained weights.
_NOT_MEASURED = ("precomputed", "ucm", "maskclip", "oracle", "cluster_probe")


@dataclass(frozen=True)
class Speed:
    """One segmenter.

    Attributes:
        segmenter: name of the option.
        images: at a time.
        rows, cols: of the partition: patches, or pixels where it is finer.
        images_per_s: at the least time of the repeats; None where it failed.
        ratio: images/s as a multiple of the first segmenter's.
        segments: mean an image.
        error: what it raised, if it did.
    """

    segmenter: str
    images: int
    rows: int
    cols: int
    images_per_s: float | None
    ratio: float | None
    segments: float | None
    error: str | None = None


def compare_segmenters(
    config: RunConfig, overrides: Sequence[str], own: DiffCut, material: Material, side: int
) -> tuple[list[Speed], dict[str, str]]:
    """Speed of every segmenter, DiffCut first: features are given, whichever encoder a segmenter was published with.

    Args:
        config: of the command, with DiffCut as its segmenter.
        overrides: that made it; those of the segmenter are DiffCut's alone.
        own: the segmenter of the config.
        material: its features, photographs and labels.
        side: patches that the features are resized to.

    Returns:
        A row for each, and why others could not be built.
    """
    features = resized(material.features, side)
    segmenters: dict[str, Any] = {config.choices["segmenter"]: own}
    missing: dict[str, str] = {}
    for name in sorted(path.stem for path in (conf_dir() / "segmenter").glob("*.yaml")):
        if name not in (*_NOT_MEASURED, *segmenters):
            try:
                segmenters[name] = _build(config, overrides, name)
            except UserError as error:
                missing[name] = error.what
    works = {name: _work(segmenter, features, material) for name, segmenter in segmenters.items()}
    return measure_speeds(works, features.device), missing


def measure_speeds(
    works: Mapping[str, Callable[[], Sequence[Tensor]]], device: torch.device | None = None, repeats: int = 2
) -> list[Speed]:
    """Time segmenters one after the other; one that fails is a row without times and leaves the others alone.

    Args:
        works: by name; each gives the partition [rows, cols] of every image, ids contiguous from 0. The first is what
            the others are compared with.
        device: an accelerator is waited for.
        repeats: of each; the first also warms up.
    """
    rows: list[Speed] = []
    for name, work in works.items():
        try:
            (one,) = timed([work], repeats, device, _ENOUGH_S)
        except Exception as error:  # an option of any origin, on features that it was not made for
            rows.append(Speed(name, 0, 0, 0, None, None, None, f"{type(error).__name__}: {error}"))
            continue
        speed = len(one.result) / one.least
        first = rows[0].images_per_s if rows else speed
        segments = sum(int(partition.max()) + 1 for partition in one.result) / len(one.result)
        height, width = one.result[0].shape
        rows.append(Speed(name, len(one.result), height, width, speed, first and speed / first, segments))
    return rows


def _build(config: RunConfig, overrides: Sequence[str], name: str) -> Any:
    """The segmenter of an option with its own settings, and the command's in all other groups."""
    kept = [f"{group}={option}" for group, option in config.choices.items() if group != "segmenter"]
    others = [override for override in overrides if not override.startswith(("segmenter=", "segmenter."))]
    return instantiate("segmenter", load_config([*kept, *others, f"segmenter={name}"]).segmenter)


def _work(segmenter: Any, features: Tensor, material: Material) -> Callable[[], Sequence[Tensor]]:
    """What gives the partition of every image."""
    labels = [material.labels[index % len(material.labels)] for index in range(len(features))]
    counts = [max(len(label[label >= 0].unique()), 1) for label in labels]
    height, width = material.labels.shape[1:]
    inputs = Inputs(features, material.photos, counts, scored_sizes=[(height, width)] * len(features))
    segment = as_segmenter(segmenter)
    return lambda: list(segment(inputs))
