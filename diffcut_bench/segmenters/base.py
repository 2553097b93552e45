"""The interface of a segmenter: feature map -> partition. Knows tensors only."""

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

Covers = Literal["image", "crop"]


@runtime_checkable
class Segmenter(Protocol):
    """Groups the patches of each image; images do not influence each other."""

    def __call__(self, features: Float[Tensor, "batch channels rows cols"]) -> Int[Tensor, "batch rows cols"]:
        """Segment of each patch, contiguous from 0 within each image; the numbering carries no meaning."""


@runtime_checkable
class SharingSegmenter(Segmenter, Protocol):
    """A segmenter that does less than n times the work for n settings of itself."""

    @classmethod
    def together(
        cls, segmenters: Sequence["SharingSegmenter"], features: Float[Tensor, "batch channels rows cols"]
    ) -> list[Int[Tensor, "batch rows cols"]]:
        """What each of the segmenters, all of this class, gives for the features."""


@runtime_checkable
class LabelSource(Protocol):
    """Gives finished segment ids by image instead of grouping patches: no features are computed for it.

    Attributes:
        covers: whole pictures (``image``) or what the protocol scores of them (``crop``).
    """

    @property
    def covers(self) -> Covers: ...

    def read(self, image_id: str) -> NDArray[np.int64]:
        """Segment ids [rows, cols] at any resolution; a `ValueError` where there are none."""

    def fingerprint(self, image_ids: Sequence[str]) -> str:
        """Digest of what `read` gives for these images."""


def segment_together(
    segmenters: Sequence[Segmenter], features: Float[Tensor, "batch channels rows cols"]
) -> list[Int[Tensor, "batch rows cols"]]:
    """What each segmenter gives for the features, in their order; those of a class that shares work run together."""
    found: dict[int, Tensor] = {}
    sharing: dict[type, list[int]] = {}
    for place, segmenter in enumerate(segmenters):
        if isinstance(segmenter, SharingSegmenter):
            sharing.setdefault(type(segmenter), []).append(place)
        else:
            found[place] = segmenter(features)
    for kind, places in sharing.items():
        together = kind.together([segmenters[place] for place in places], features)  # type: ignore[attr-defined]
        found |= dict(zip(places, together, strict=True))
    return [found[place] for place in range(len(segmenters))]
