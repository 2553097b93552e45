"""``make bench``: every segmenter of conf/segmenter/ beside DiffCut."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from benchmarks.segmenters import Speed, measure_speeds
from benchmarks.stages import Material, resized
from diffcut_bench.config import RunConfig, conf_dir, instantiate, load_config
from diffcut_bench.errors import UserError
from diffcut_bench.segmenters import CountingSegmenter, DiffCut, ImageSegmenter

# Options that segment nothing themselves: a folder of results, and patches whose naming is the method.
_NOT_MEASURED = ("precomputed", "maskclip")


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


def _build(config: RunConfig, overrides: Sequence[str], name: str) -> Any:
    """The segmenter of an option with its own settings, and the command's in all other groups."""
    kept = [f"{group}={option}" for group, option in config.choices.items() if group != "segmenter"]
    others = [override for override in overrides if not override.startswith(("segmenter=", "segmenter."))]
    return instantiate("segmenter", load_config([*kept, *others, f"segmenter={name}"]).segmenter)


def _work(segmenter: Any, features: Tensor, material: Material) -> Callable[[], Sequence[Tensor]]:
    """What gives the partition of every image."""
    if isinstance(segmenter, ImageSegmenter):
        return lambda: [segmenter.segment_image(photo) for photo in material.photos]
    if isinstance(segmenter, CountingSegmenter) and segmenter.counts_classes:
        labels = [material.labels[place % len(material.labels)] for place in range(len(features))]
        counts = [max(len(label[label >= 0].unique()), 1) for label in labels]
        return lambda: list(segmenter(features, counts))
    return lambda: list(segmenter(features))
