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
class CountingSegmenter(Protocol):
    """A segmenter that may want to know how many classes are annotated in each image (K* of the paper's table 9).

    Attributes:
        counts_classes: whether it wants to.
    """

    @property
    def counts_classes(self) -> bool: ...

    def __call__(
        self, features: Float[Tensor, "batch channels rows cols"], class_counts: Sequence[int] | None = None
    ) -> Int[Tensor, "batch rows cols"]:
        """As of `Segmenter`; ``class_counts`` holds the classes annotated in each image where they are wanted."""


@runtime_checkable
class FinerSegmenter(Protocol):
    """A segmenter whose partition is finer than the patches, so that no concepts of patches can be assigned to it."""

    def partition_size(self, rows: int, cols: int) -> tuple[int, int]:
        """Height and width of the partition of a feature map of so many rows and columns."""

    def __call__(self, features: Float[Tensor, "batch channels rows cols"]) -> Int[Tensor, "batch height width"]:
        """As of `Segmenter`, for each cell of it."""


@runtime_checkable
class ImageSegmenter(Protocol):
    """Segments the picture itself, at the resolution that is scored: no features are computed for it."""

    def segment_image(self, image: Float[Tensor, "3 height width"]) -> Int[Tensor, "height width"]:
        """Segment of each pixel of an image with colours in [0, 1]."""


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
    segmenters: Sequence[Segmenter],
    features: Float[Tensor, "batch channels rows cols"],
    class_counts: Sequence[int] | None = None,
) -> list[Int[Tensor, "batch rows cols"]]:
    """What each segmenter gives for the features, in their order; those of a class that shares work run together.

    Args:
        segmenters: any.
        features: of a batch.
        class_counts: classes annotated in each image, for a `CountingSegmenter`.
    """
    found: dict[int, Tensor] = {}
    sharing: dict[type, list[int]] = {}
    for place, segmenter in enumerate(segmenters):
        if isinstance(segmenter, SharingSegmenter):
            sharing.setdefault(type(segmenter), []).append(place)
        elif isinstance(segmenter, CountingSegmenter) and segmenter.counts_classes:
            found[place] = segmenter(features, class_counts)
        else:
            found[place] = segmenter(features)
    for kind, places in sharing.items():
        together = kind.together([segmenters[place] for place in places], features)  # type: ignore[attr-defined]
        found |= dict(zip(places, together, strict=True))
    return [found[place] for place in range(len(segmenters))]
