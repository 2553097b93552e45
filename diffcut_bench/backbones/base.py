"""The interface of a backbone: images in [0, 1] -> feature map. Knows tensors only."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Outline:
    """What features of one image are and take, as far as that is known without the weights.

    Attributes:
        rows, cols, channels: of the feature map.
        dtype: that it is computed in.
        operations: of the network, two for a multiply-add; None where nobody has counted.
        parameters: that a download has at least; None where nobody has counted.
    """

    rows: int
    cols: int
    channels: int
    dtype: torch.dtype
    operations: float | None = None
    parameters: int | None = None


def grid_of(image_size: int, stride: int, aspect: int) -> tuple[int, int]:
    """Rows and columns of a wide image in patches of ``stride`` pixels; arguments as of `Backbone.outline`."""
    cols = image_size // stride
    return max(cols // aspect, 1), cols


class Backbone(torch.nn.Module, ABC):
    """A frozen network that turns images into patch features.

    A subclass sets ``stride`` and ``channels``, does its own pixel normalisation, and says by `fingerprint` what its
    features depend on. It is in evaluation mode, and `forward` builds no graph.

    Attributes:
        name: option name.
        stride: pixels a patch, in both directions; image sides are multiples of it.
        channels: feature channels.
        channels_are_patches: there is a channel for each patch, so that a picture of another shape has another number.
        image_size: pixels of the (longer) side of the images that the network wants; None: what the protocol says.
        attention_channels: last channels that are the class token's attention.
    """

    name: str
    stride: int
    channels: int
    channels_are_patches: bool = False
    image_size: int | None = None
    attention_channels: int = 0
    # Settings of its own that cannot change features beyond what `fingerprint` says; all others are part of the key.
    immaterial: tuple[str, ...] = ()

    @classmethod
    def outline(cls, settings: Mapping[str, Any], image_size: int, device_type: str, aspect: int = 1) -> Outline | None:
        """What features will be and take, before there are weights; None where that can't be told.

        Args:
            settings: as configured.
            image_size: pixels of the (longer) side that the protocol gives; a backbone's own size goes before it.
            device_type: that will compute.
            aspect: longer side over the shorter one.
        """
        return None

    @property
    def feature_dtype(self) -> torch.dtype:
        """Precision of what `forward` gives on the device that the backbone is on. The store keeps it; who says nothing
        is kept in float32."""
        return torch.float32

    @abstractmethod
    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels rows cols"]:
        """Feature map of images with colours in [0, 1]; ``rows = height / stride``. An image's features do not
        depend on its neighbours in the batch."""

    @abstractmethod
    def fingerprint(self) -> dict[str, str]:
        """Names and values of all that can change the features: model, weights' hash, layer, precision …

        It is asked for on the device that the features are computed on, and reads no more than it must: features in
        the store are found by it without the weights being loaded.
        """


class PixelTransform(torch.nn.Module):
    """Brings colours in [0, 1] to what a network was trained on; factor and summand are [1, 3, 1, 1]."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
        return images * self.scale + self.shift


class PretrainedBackbone(Backbone):
    """A backbone whose weights are read at the first image: where every feature is in the store, they never are.

    A subclass finds its files in ``__init__`` (so that a missing one is said at once), builds the network in `_read`
    and computes with it in `_extract`.
    """

    def __init__(self) -> None:
        super().__init__()
        # Follows .to(), so that weights read later go where the others would have gone.
        self.register_buffer("_follower", torch.empty(0), persistent=False)
        self._is_read = False

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.get_buffer("_follower").device

    def read(self) -> None:
        """Read the weights, if that has not been done."""
        if not self._is_read:
            self._read()
            self.eval()
            self._is_read = True

    # Parameters keep requires_grad: torch's linear layer sums in another order without it, and features shall equal
    # those of the libraries' own pipelines bit for bit.
    @torch.no_grad()
    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels rows cols"]:
        self.read()
        return self._extract(images)

    @abstractmethod
    def _read(self) -> None:
        """Build the network with its weights on `device`, as sub-modules."""

    @abstractmethod
    def _extract(self, images: Tensor) -> Tensor:
        """What `forward` gives, with the weights read."""
