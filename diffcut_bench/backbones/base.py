"""The interface of a backbone: images in [0, 1] -> feature map. Knows tensors only."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor


class Backbone(torch.nn.Module, ABC):
    """A frozen network that turns images into patch features.

    A subclass sets ``stride`` and ``channels``, does its own pixel normalisation, and says by `fingerprint` what its
    features depend on. Parameters are frozen and in evaluation mode when `forward` is called.

    Attributes:
        name: option name.
        stride: pixels a patch, in both directions; image sides are multiples of it.
        channels: feature channels.
    """

    name: str
    stride: int
    channels: int

    @abstractmethod
    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels rows cols"]:
        """Feature map of images with colours in [0, 1]; ``rows = height / stride``. An image's features do not
        depend on its neighbours in the batch."""

    @abstractmethod
    def fingerprint(self) -> dict[str, str]:
        """Names and values of all that can change the features: model, weights' hash, layer, precision …"""
