"""The stages of one cell, as its config names them, and whether they go together."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from diffcut_bench.backbones import NoBackbone
from diffcut_bench.config import RunConfig, build_protocol, instantiate
from diffcut_bench.errors import UserError
from diffcut_bench.evaluation import Protocol
from diffcut_bench.linking import KMeansLinker
from diffcut_bench.naming import ClassNamer
from diffcut_bench.scoring.features import FeatureSource
from diffcut_bench.segmenters import HasTree, Segmenter, as_segmenter

Upsampler = Callable[..., Tensor]  # of features, partition and size; of images too where it says ``takes_images``
Refiner = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Pipeline:
    """The stages of one cell. What a namer gives is scored as it is: clusters are classes then. What a linker makes one
    of the segments of all images is matched once, when all are there."""

    features: FeatureSource
    segmenter: Segmenter
    upsampler: Upsampler
    refiner: Refiner | None
    protocol: Protocol
    namer: ClassNamer | None = None
    max_seconds: float | None = None  # that segmenting an image may take
    linker: KMeansLinker | None = None
    linked_by: FeatureSource | None = None  # what the linker compares, if that is not ``features``
    smallest_segment: float = 0.0  # fraction of the picture's area, see `merge_speckles`

    @property
    def needs_features(self) -> bool:
        return "features" in self.segmenter.needs or (self.linker is not None and self.linked_by is None)

    @property
    def needs_images(self) -> bool:
        """Whether a stage looks at pictures of the scored size."""
        by_colour = self.smallest_segment > 0 and "features" not in self.segmenter.needs
        return "images" in self.segmenter.needs or self.refiner is not None or by_colour or self.upsamples_by_colour

    @property
    def upsamples_by_colour(self) -> bool:
        """Whether the upsampler looks at pictures of the scored size, its last argument."""
        return getattr(self.upsampler, "takes_images", False)

    @property
    def tree_method(self) -> HasTree | None:
        """The method, if its segments at every tau come from one tree."""
        method: object = self.segmenter.method
        return method if isinstance(method, HasTree) and method.tree_fault(nested=False) is None else None

    @classmethod
    def of(
        cls,
        config: RunConfig,
        features: FeatureSource,
        namer: ClassNamer | None = None,
        segmenter: Any = None,
        linked_by: FeatureSource | None = None,
    ) -> "Pipeline":
        """The stages that a config names; ``segmenter``: in the place of the one that it names; ``linked_by``: see
        `open_linked`.

        The protocol is the config's with what the stages' own options say. Names need no matching, and merge what is
        background by themselves; linked segments are matched once for the data set, where no rule merges any.

        Raises:
            UserError: an option is out of range, or stages do not go together.
        """
        choices = asdict(build_protocol(config.protocol))
        of_stages = {"label_codes": config.segmenter, "zero_affinity": config.segmenter, "similarity": config.upsampler}
        choices |= {name: stage[name] for name, stage in of_stages.items() if name in stage}
        if namer is not None:
            choices |= {"matching": "named", "background_rule": "one_to_one"}
            choices |= {"name_pooling": namer.pooling, "name_input": namer.encoder.input}
        linker = instantiate("linker", {n: value for n, value in config.linker.items() if n != "backbone"})
        if linker is not None:
            _check_linker(config, linked_by or features)
            choices |= {"matching": "dataset", "background_rule": "one_to_one"}
        protocol = build_protocol(choices)
        method = as_segmenter(instantiate("segmenter", config.segmenter) if segmenter is None else segmenter)
        taken, given = method.attention_channels, features.backbone.attention_channels
        if taken is not None and taken != given:
            what = f"the segmenter takes the last {taken} channels for attention, and the backbone gives {given} of it"
            where = " ".join(f"{group}={config.choices.get(group)}" for group in ("segmenter", "backbone"))
            raise UserError(what, where, f"segmenter.attention_channels={given}")
        upsampler, refiner = instantiate("upsampler", config.upsampler), instantiate("refiner", config.refiner)
        if method.gives == "finer_partition" and getattr(upsampler, "assigns_concepts", False):
            what = "concepts are assigned to segments of patches, and this segmenter's are finer"
            raise UserError(what, "segmenter, upsampler", "use upsampler=nearest")
        others = (namer, config.max_seconds, linker, linked_by, config.smallest_segment)
        return cls(features, method, upsampler, refiner, protocol, *others)


def _check_linker(config: RunConfig, features: FeatureSource) -> None:
    """Raise a UserError where a linker has nothing to compare."""
    given, group = features.backbone, "linker.backbone" if config.linker.get("backbone") else "backbone"
    where = f"linker={config.choices.get('linker')}, {group}={config.choices.get(group)}"
    if isinstance(given, NoBackbone):
        what = "a linker compares the features of segments, and there is no backbone"
    elif given.channels_are_patches:
        what = "attention to each patch says where a segment is and not what: a linker has nothing to compare"
    else:
        return
    raise UserError(what, where, "add linker.backbone=NAME, such as linker.backbone=efficientnet_lite0")
