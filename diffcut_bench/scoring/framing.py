"""Framing: from a decoded pair to what the network sees and what is scored."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from diffcut_bench.backbones import Backbone
from diffcut_bench.evaluation import Protocol

# Values of a picture up to which it is resized at once (22 megapixels; no benchmark's is larger). Colour by colour the
# last bit differs.
_LARGE = 1 << 26


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

    def cropped_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the part that is looked at."""
        side = center_crop_box(height, width)[2]
        return (side, side) if self.crop == "center" else (height, width)

    def input_size(self, rows: int, cols: int) -> tuple[int, int]:
        """Height and width of the network's input of a cropped picture of this size."""
        return _scaled(rows, cols, self.image_size, self.stride)

    def network_input(self, pixels: UInt8[Tensor, "3 rows cols"]) -> Float[Tensor, "3 height width"]:
        """The network's input of a cropped picture, colours in [0, 1], made where the pixels are."""
        size = self.input_size(*pixels.shape[1:])
        return resize_pixels(pixels, size, antialias=self.resized_for_backbone)


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

    @property
    def _scored(self) -> Seen:
        """The way of labels and refinement images to the scored size, which is one for all networks."""
        return Seen(self.crop, self.image_size, stride=self.stride if self.input_size is None else 1)

    @property
    def patches(self) -> int:
        """Of the feature map along its longer side."""
        return max(round(self.seen.image_size / self.stride), 1)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the feature map of a whole picture of this size."""
        rows, cols = self.seen.input_size(*self.seen.cropped_size(height, width))
        return rows // self.stride, cols // self.stride

    def eval_image(self, pixels: UInt8[Tensor, "3 rows cols"]) -> Float[Tensor, "3 height width"]:
        """A cropped picture at the resolution that is scored, colours in [0, 1], made where the pixels are."""
        if self.eval_size == "original":
            return pixels / 255
        return resize_image(self._scored.network_input(pixels), self.scored_size(*pixels.shape[1:]))

    def scored_label(self, classes: Int[Tensor, "*maps rows cols"]) -> Int[Tensor, "*maps height width"]:
        """A cropped label at the resolution that is scored: nearest-exact to the image's size, from there by floor."""
        if self.eval_size == "original":
            return classes
        rows, cols = classes.shape[-2:]
        steps = (self._scored.input_size(rows, cols), "nearest-exact"), (self.scored_size(rows, cols), "nearest")
        return _resize_label(classes, *steps)

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
    """One image ready for the pipeline. Its picture is cropped, not resized: it is resized on the device that needs it.

    Attributes:
        index: in the data set.
        id: name in the data set.
        framing: of the protocol and the backbone.
        frame: height and width of the whole picture, before the crop.
        label: class ids at the scored resolution, −1 for void; where several people annotated it, the first one's
            segments.
        pixels: what is seen of the picture, 0..255; None where nobody looks at it.
        digest: SHA-256 of the image file; empty where no features of it are looked for in a store.
        features: of each network, None where it was not stored; empty where nobody looked.
        annotations: segments of each annotator, like ``label``; None where that holds classes.
    """

    index: int
    id: str
    framing: Framing
    frame: tuple[int, int]
    label: Int[Tensor, "height width"]
    pixels: UInt8[Tensor, "3 rows cols"] | None = None
    digest: str = ""
    features: tuple[Float[Tensor, "_ _ _"] | None, ...] = ()
    annotations: Int[Tensor, "annotators height width"] | None = None

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of its feature map."""
        return self.framing.grid(*self.frame)

    @property
    def image(self) -> Float[Tensor, "3 rows cols"]:
        """The network's input, colours in [0, 1], made where the pixels are."""
        return self.framing.seen.network_input(self.seen_pixels)

    @property
    def eval_image(self) -> Float[Tensor, "3 height width"]:
        """Colours in [0, 1] at the resolution of the label, for refinement and pictures; made where the pixels are."""
        return self.framing.eval_image(self.seen_pixels)

    @property
    def eval_pixels(self) -> UInt8[Tensor, "3 height width"]:
        """`eval_image` in 0..255."""
        if self.framing.eval_size == "original":
            return self.seen_pixels
        return (self.eval_image * 255).round().to(torch.uint8)

    @property
    def seen_pixels(self) -> UInt8[Tensor, "3 rows cols"]:
        """`pixels`, which somebody asked for."""
        assert self.pixels is not None, f"{self.id} was read without its picture"
        return self.pixels


def prepare_example(
    index: int, id: str, picture: Image.Image | None, label: NDArray[np.int64], framing: Framing
) -> Example:
    """Crop a pair, and bring its label to the scored size.

    Under ``crop=center`` a square of side min(H, W) − 1 is resized to ``image_size``; under ``none`` the longer side
    is, and the other follows the aspect ratio. Images are resized bilinearly without antialiasing, labels
    nearest-exact to that size and then by floor to ``eval_size`` (directly kept where it is ``original``). A network
    that wants another ``input_size`` gets the crop resized to it, antialiased; label and refinement image go the same
    way for every network.

    Args:
        index, id: of the image.
        picture: RGB; None where nobody looks at it.
        label: class ids [height, width], or segments of annotators [annotators, height, width].
        framing: of the protocol and the backbone.
    """
    seen = framing.seen
    pixels = None
    if picture is not None:
        colours = seen.cropped(torch.from_numpy(np.array(picture)).permute(2, 0, 1))
        # By NumPy: for a copy of this size torch would start threads of its own beside those that compute.
        pixels = torch.from_numpy(np.ascontiguousarray(colours.numpy()))
    scored = framing.scored_label(seen.cropped(torch.from_numpy(label)))
    frame = (label.shape[-2], label.shape[-1])
    if scored.dim() == 3:
        return Example(index, id, framing, frame, scored[0], pixels, annotations=scored)
    return Example(index, id, framing, frame, scored, pixels)


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
        return _resize_label(ids, (framing.scored_size(*framing.seen.cropped_size(*frame)), "nearest-exact"))
    if abs(rows / height - cols / width) * max(height, width) > max(height / rows, width / cols, 1):
        raise ValueError(
            f"the prediction is {cols}×{rows}, which is no {width}×{height} picture scaled; "
            "segmenter.covers=crop takes predictions of the crop that is scored"
        )
    return framing.scored_label(framing.seen.cropped(_resize_label(ids, (frame, "nearest-exact"))))


def center_crop_box(height: int, width: int) -> tuple[int, int, int]:
    """Top, left and side of the released centre crop, whose side is one less than the shorter side (at least 1)."""
    side = max(min(height, width) - 1, 1)
    return round((height - side) / 2), round((width - side) / 2), side


def resize_image(image: Float[Tensor, "3 _ _"], size: tuple[int, int]) -> Float[Tensor, "3 height width"]:
    """Bilinear, half-pixel centres, no antialiasing."""
    return interpolate(image[None], size, mode="bilinear", align_corners=False)[0]


def resize_pixels(
    pixels: UInt8[Tensor, "colours _ _"], size: tuple[int, int], antialias: bool = False
) -> Float[Tensor, "colours height width"]:
    """Values 0..255 as floats in [0, 1], resized bilinearly with half-pixel centres. A large picture is taken colour by
    colour, so that it is never in floats as a whole."""
    colours = [pixels] if pixels.numel() <= _LARGE else pixels.split(1)
    resized = [interpolate((each / 255)[None], size, mode="bilinear", antialias=antialias)[0] for each in colours]
    return resized[0] if len(resized) == 1 else torch.cat(resized)


def at_most(longest: int, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width, made smaller in proportion where the longer one is above ``longest``."""
    scale = min(longest / max(size), 1)
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def _resize_label(label: Tensor, *steps: tuple[tuple[int, int], str]) -> Tensor:
    """Nearest-neighbour resizing of [..., rows, cols] to one size after the other; of the label only what the last one
    keeps is touched."""
    kept = []
    for axis, length in enumerate(label.shape[-2:]):
        numbers = torch.arange(length, dtype=torch.float32, device=label.device)[None, None, :, None]
        for size, mode in steps:
            numbers = interpolate(numbers, (size[axis], 1), mode=mode)
        kept.append(numbers.flatten().long())
    return label[..., kept[0][:, None], kept[1]].long()


def _scaled(height: int, width: int, longer: int, multiple_of: int) -> tuple[int, int]:
    """Size of the given longer side and the same aspect ratio, rounded to multiples."""
    scale = longer / max(height, width) / multiple_of
    return max(round(height * scale), 1) * multiple_of, max(round(width * scale), 1) * multiple_of
