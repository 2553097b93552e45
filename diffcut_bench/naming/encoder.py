"""The interface of an encoder of images and texts: a backbone whose features, pooled and projected, lie among words."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from diffcut_bench.backbones.base import PixelTransform, PretrainedBackbone

INPUTS = ("normalised", "unit")


class TextImageEncoder(PretrainedBackbone):
    """A backbone (`forward` gives its dense map of images) with words for its features.

    Args:
        input: colours that the network sees: ``normalised`` as it was trained, or in [0, 1] as they are (``unit``, as
            the released evaluation feeds its convolutional CLIP).

    Attributes:
        image_size: pixels of the longer side that images are brought to by `resized`.

    Raises:
        ValueError: there is no such ``input``.
    """

    image_size: int
    _normalise: PixelTransform

    def __init__(self, input: str = "normalised") -> None:
        super().__init__()
        if input not in INPUTS:
            raise ValueError(f"input must be {' | '.join(INPUTS)}, not {input}")
        self.input = input

    @abstractmethod
    def text(self, texts: Sequence[str]) -> Float[Tensor, "texts dimensions"]:
        """Embeddings of texts, on the encoder's device."""

    def project(self, pooled: Float[Tensor, "segments channels"]) -> Float[Tensor, "segments dimensions"]:
        """From means over the dense map to where texts lie; the dense map lies there already unless said otherwise."""
        return pooled

    @torch.no_grad()
    def resized(self, images: Float[Tensor, "batch 3 _ _"]) -> Float[Tensor, "batch 3 height width"]:
        """Images in the size that the network wants: aspect ratio kept, both sides multiples of a patch."""
        scale = self.image_size / max(images.shape[-2:]) / self.stride
        rows, cols = (max(round(side * scale), 1) * self.stride for side in images.shape[-2:])
        return interpolate(images, (rows, cols), mode="bilinear", antialias=True)

    def _pixels(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
        """What the network is given of colours in [0, 1]."""
        return self._normalise(images) if self.input == "normalised" else images
