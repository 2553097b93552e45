"""What the parts of the method work on: real features, photographs and labels, as many and as large as wanted."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from diffcut_bench.protocol import BackgroundRule

_NOISE = 1e-3  # of the features' own deviation: parts upsampled patches whose cosines would tie


@dataclass(frozen=True)
class Material:
    """Features with photographs and labels.

    Attributes:
        features: real patch features [images, channels, rows, cols], any number and grid.
        photos: colours [images, 3, height, width] at the scored resolution; they and the labels take turns.
        labels: class ids [images, height, width], −1 is void.
        num_classes, background: of the labels.
        rule: of the background.
    """

    features: Tensor
    photos: Tensor
    labels: Tensor
    num_classes: int
    background: int | None
    rule: BackgroundRule

    def of_size(self, patches: int, images: int) -> "Material":
        """With features of no more than so many images, ``patches`` a side."""
        return replace(self, features=resized(self.features[:images], patches))

    def repeated(self, images: int) -> "Material":
        """As many images as wanted, copies where there are not enough."""
        return replace(
            self,
            features=tiled(self.features, images),
            photos=tiled(self.photos, images),
            labels=tiled(self.labels, images),
        )

    @property
    def nodes(self) -> Tensor:
        """The features as patches [images, nodes, channels]."""
        return self.features.flatten(2).transpose(1, 2).contiguous()


def resized(features: Tensor, patches: int, seed: int = 0) -> Tensor:
    """Feature maps [images, channels, rows, cols] bilinearly on ``patches`` × ``patches``, with a little noise."""
    if features.shape[-2:] == (patches, patches):
        return features
    larger = interpolate(features, (patches, patches), mode="bilinear", align_corners=False)
    noise = torch.randn(larger.shape, generator=torch.Generator().manual_seed(seed)).to(larger)
    return larger + _NOISE * features.std() * noise


def tiled(values: Tensor, count: int) -> Tensor:
    """The first ``count`` along the first axis, begun anew where there are fewer."""
    return values[torch.arange(count, device=values.device) % len(values)]
