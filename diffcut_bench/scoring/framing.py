"""Framing: from a decoded pair to what the network sees and what is scored."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from diffcut_bench.backbones import Backbone
from diffcut_bench.evaluation import Protocol


@dataclass(frozen=True)
class Seen:
    """All that decides what a network sees of a picture. The key of its features holds it whole.

    Attributes:
        crop: ``center`` or ``none``; see `center_crop_box`.
        image_size: pixels of the (longer) side.
        resized_for_backbone: ``image_size`` is the network's own, to which the crop is resized with antialiasing; else
            it is the protocol's, resized to without, as the released code does for every network.
        stride: the network's; both sides are rounded to multiples of it.
    """

    crop: str
    image_size: int
    resized_for_backbone: bool = False
    stride: int = 1

    def cropped(self, pixels: Tensor) -> Tensor:
        """The part [..., rows, cols] of a picture or label [..., height, width] that is looked at."""
        if self.crop != "center":
            return pixels
        top, left, side = center_crop_box(pixels.shape[-2], pixels.shape[-1])
        return pixels[..., top : top + side, left : left + side]

    def network_input(self, colours: Float[Tensor, "3 _ _"]) -> Float[Tensor, "3 rows cols"]:
        """The network's input of a cropped picture."""
        size = _scaled(colours.shape[1], colours.shape[2], self.image_size, self.stride)
        if self.resized_for_backbone:
            return interpolate(colours[None], size, mode="bilinear", antialias=True)[0]
        return resize_image(colours, size)


@dataclass(frozen=True)
class Framing:
    """How a pair becomes what the network sees and what is scored: made of a protocol and a backbone.

    Keys hold it whole, so that a new field is in all of them.

    Attributes:
        crop, image_size, eval_size, void: the protocol's fields of these names.
        stride: the network's.
        input_size: pixels of the (longer) side of the network's input; None: ``image_size``.
    """

    crop: str
    image_size: int
    eval_size: int | str
    void: str
    stride: int = 1
    input_size: int | None = None

    @classmethod
    def of(cls, protocol: Protocol, backbone: Backbone) -> "Framing":
        """What the two say together."""
        return cls(**framing_choices(vars(protocol)), stride=backbone.stride, input_size=backbone.image_size)

    @property
    def seen(self) -> Seen:
        """The part of it that features depend on."""
        own = self.input_size is not None
        return Seen(self.crop, self.input_size or self.image_size, own, self.stride)

    def scored_label(self, classes: Int[Tensor, "rows cols"]) -> Int[Tensor, "height width"]:
        """A cropped label at the resolution that is scored: nearest-exact to the image's size, from there by floor."""
        if self.eval_size == "original":
            return classes
        rows, cols = classes.shape
        resized_to = _scaled(rows, cols, self.image_size, self.stride if self.input_size is None else 1)
        return _resize_label(
            _resize_label(classes, resized_to, "nearest-exact"), self.scored_size(rows, cols), "nearest"
        )

    def scored_size(self, rows: int, cols: int) -> tuple[int, int]:
        """Height and width at which a cropped picture of this size is scored."""
        return (rows, cols) if self.eval_size == "original" else _scaled(rows, cols, int(self.eval_size), 1)


def framing_choices(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Every choice of a protocol, checked or not, that decides what is seen and scored."""
    return {field.name: protocol[field.name] for field in fields(Framing) if field.name in protocol}


def seen_choices(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Every choice of a protocol, checked or not, that decides what a network sees."""
    return {field.name: protocol[field.name] for field in fields(Seen) if field.name in protocol}


@dataclass(frozen=True)
class Example:
    """One image ready for the pipeline.

    Attributes:
        index: in the data set.
        id: name in the data set.
        image: network input, colours in [0, 1]; None where the features are there already.
        eval_image: colours in [0, 1] at the resolution of the label, for refinement and pictures.
        label: class ids at the scored resolution, −1 for void.
        digest: SHA-256 of the image file; empty where features are not stored.
        features: of the backbone, where they were stored [channels, rows, cols].
        frame: height and width of the whole picture, before the crop.
        grid: rows and columns of its feature map.
    """

    index: int
    id: str
    image: Float[Tensor, "3 rows cols"] | None
    eval_image: Float[Tensor, "3 height width"]
    label: Int[Tensor, "height width"]
    digest: str = ""
    features: Float[Tensor, "channels grid_rows grid_cols"] | None = None
    frame: tuple[int, int] = (0, 0)
    grid: tuple[int, int] = (0, 0)

    def pin_memory(self) -> "Example":
        """The same in page-locked memory, from where an accelerator can copy while it computes."""
        pinned: dict[str, Any] = {n: value.pin_memory() for n, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **pinned)


def prepare_example(index: int, id: str, picture: Image.Image, label: NDArray[np.int64], framing: Framing) -> Example:
    """Crop and resize one pair.

    Under ``crop=center`` a square of side min(H, W) − 1 is resized to ``image_size``; under ``none`` the longer side
    is, and the other follows the aspect ratio. Images are resized bilinearly without antialiasing, labels
    nearest-exact to that size and then by floor to ``eval_size`` (directly kept where it is ``original``). A network
    that wants another ``input_size`` gets the crop resized to it, antialiased; label and refinement image go the same
    way for every network.

    Args:
        index, id: of the image.
        picture: RGB.
        label: class ids.
        framing: of the protocol and the backbone.
    """
    seen = framing.seen
    colours = seen.cropped(torch.from_numpy(np.array(picture)).permute(2, 0, 1)).float() / 255
    scored = framing.scored_label(seen.cropped(torch.from_numpy(label)))
    image = seen.network_input(colours)
    if framing.eval_size == "original":
        eval_image = colours
    else:
        plain = image if framing.input_size is None else Seen(seen.crop, framing.image_size).network_input(colours)
        eval_image = resize_image(plain, (scored.shape[0], scored.shape[1]))
    grid = (image.shape[1] // framing.stride, image.shape[2] // framing.stride)
    return Example(index, id, image, eval_image, scored, frame=label.shape, grid=grid)


def prepare_prediction(
    ids: Int[Tensor, "rows cols"],
    frame: tuple[int, int],
    framing: Framing,
    *,
    covers: Literal["image", "crop"] = "image",
) -> Int[Tensor, "height width"]:
    """Segment ids that another method made, brought to the resolution that is scored, by the way that labels go.

    Args:
        ids: segment ids [rows, cols] at any resolution.
        frame: height and width of the whole picture.
        framing: of the protocol and the backbone.
        covers: ``image``: the ids show the whole picture; ``crop``: what the protocol scores of it.

    Raises:
        ValueError: ids of the whole picture in another aspect ratio.
    """
    height, width = frame
    rows, cols = ids.shape
    if covers == "crop":
        side = center_crop_box(height, width)[2]
        size = framing.scored_size(*((side, side) if framing.crop == "center" else frame))
        return _resize_label(ids, size, "nearest-exact")
    if abs(rows / height - cols / width) * max(height, width) > max(height / rows, width / cols, 1):
        raise ValueError(
            f"the prediction is {cols}×{rows}, which is no {width}×{height} picture scaled; "
            "segmenter.covers=crop takes predictions of the crop that is scored"
        )
    return framing.scored_label(framing.seen.cropped(_resize_label(ids, frame, "nearest-exact")))


def center_crop_box(height: int, width: int) -> tuple[int, int, int]:
    """Top, left and side of the released centre crop, whose side is one less than the shorter side (at least 1)."""
    side = max(min(height, width) - 1, 1)
    return round((height - side) / 2), round((width - side) / 2), side


def resize_image(image: Float[Tensor, "3 _ _"], size: tuple[int, int]) -> Float[Tensor, "3 height width"]:
    """Bilinear, half-pixel centres, no antialiasing."""
    return interpolate(image[None], size, mode="bilinear", align_corners=False)[0]


def _resize_label(label: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    return interpolate(label[None, None].float(), size, mode=mode)[0, 0].long()


def _scaled(height: int, width: int, longer: int, multiple_of: int) -> tuple[int, int]:
    """Size of the given longer side and the same aspect ratio, rounded to multiples."""
    scale = longer / max(height, width) / multiple_of
    return max(round(height * scale), 1) * multiple_of, max(round(width * scale), 1) * multiple_of
