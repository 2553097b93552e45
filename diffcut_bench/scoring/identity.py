"""What a cell's key is the digest of: everything that can change its numbers, and nothing else."""

from dataclasses import asdict
from typing import Any

import torch

from diffcut_bench.config import RunConfig, setting_of_option
from diffcut_bench.datasets import SegmentationDataset
from diffcut_bench.evaluation import choices_in_force
from diffcut_bench.scoring.features import FEATURES_VERSION, backbone_identity
from diffcut_bench.scoring.fingerprints import code_fingerprint
from diffcut_bench.scoring.stages import Pipeline

# Raise when a change of ours changes numbers, so that old results are not taken for new ones.
NUMERICS_VERSION = 2


def cell_identity(
    config: RunConfig, pipeline: Pipeline, dataset: SegmentationDataset, fingerprint: str
) -> dict[str, Any]:
    """Everything that can change the numbers. Batch size, workers and folders can't; the
    versions of other packages are recorded beside."""
    features = pipeline.features
    stages: list[object] = [pipeline.segmenter.method, pipeline.upsampler, pipeline.refiner, pipeline.namer]
    stages += [features.backbone, pipeline.linker]
    groups = ("dataset", "backbone", "segmenter", "upsampler", "refiner", "namer", "linker")
    code = code_fingerprint(stages, [getattr(config, group) for group in groups])
    return {
        "numerics_version": NUMERICS_VERSION,
        "dataset": {"name": dataset.name, "fingerprint": fingerprint},
        "backbone": {**backbone_identity(features.backbone, config.backbone), **_size_asked_for(config)},
        "features_version": FEATURES_VERSION,
        "features_dtype": features.kept_as,
        "segmenter": pipeline.segmenter.identity(config.segmenter, dataset.ids),
        "upsampler": config.upsampler,
        "refiner": config.refiner,
        **({} if pipeline.namer is None else {"namer": pipeline.namer.identity()}),
        **({} if pipeline.linker is None else {"linker": _linker_identity(config, pipeline)}),
        **({"smallest_segment": config.smallest_segment} if config.smallest_segment else {}),
        **({"code": code} if code else {}),
        "protocol": {n: value for n, value in choices_in_force(asdict(pipeline.protocol)).items() if n != "name"},
        "shard": config.shard,
        "seed": config.seed,
        "device_type": features.device.type,
        "torch": torch.__version__.partition("+")[0],
    }


def _size_asked_for(config: RunConfig) -> dict[str, Any]:
    """The size at which the backbone sees pictures, where it is not the one of its option: without it are the keys of
    what was scored before, at the options' own sizes."""
    size = config.backbone.get("image_size")
    own = setting_of_option("backbone", config.choices.get("backbone", ""), "image_size")
    return {} if size == own else {"image_size": size}


def _linker_identity(config: RunConfig, pipeline: Pipeline) -> dict[str, Any]:
    """Settings of the linker, and all that the features depend on that it compares, where they are not the cell's."""
    source = pipeline.linked_by
    if source is None:
        return config.linker
    compared = {"seen": asdict(source.framing.seen), "features_dtype": source.kept_as}
    return {**config.linker, "backbone": {**backbone_identity(source.backbone, config.linker["backbone"]), **compared}}
