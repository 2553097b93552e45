"""Crop and resize: from a decoded pair to what the network sees and what is scored."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate


@dataclass(frozen=True)
class Example:
    """One image ready for the pipeline.

    Attributes:
        index: place in the data set.
        id: name in the data set.
        image: network input, colours in [0, 1]; None where the features are there already.
        eval_image: colours in [0, 1] at the resolution of the label, for refinement and pictures.
        label: class ids at the scored resolution, −1 for void.
        digest: SHA-256 of the image file; empty where features are not stored.
        features: of the backbone, where they were stored [channels, rows, cols].
        frame: height and width of the whole picture, before the crop.
    """

    index: int
    id: str
    image: Float[Tensor, "3 rows cols"] | None
    eval_image: Float[Tensor, "3 height width"]
    label: Int[Tensor, "height width"]
    digest: str = ""
    features: Float[Tensor, "channels grid_rows grid_cols"] | None = None
    frame: tuple[int, int] = (0, 0)

    def grid_of(self, stride: int) -> tuple[int, int]:
        """Rows and columns of the feature map, for a network of this stride."""
        if self.features is not None:
            return self.features.shape[1], self.features.shape[2]
        assert self.image is not None
        return self.image.shape[1] // stride, self.image.shape[2] // stride

    def pin_memory(self) -> "Example":
        """The same in page-locked memory, from where an accelerator can copy while it computes."""
        pinned: dict[str, Any] = {n: value.pin_memory() for n, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **pinned)


def prepare_example(
    index: int,
    id: str,
    picture: Image.Image,
    label: NDArray[np.int64],
    *,
    crop: str,
    image_size: int,
    eval_size: int | str,
    multiple_of: int,
    input_size: int | None = None,
) -> Example:
    """Crop and resize one pair as the protocol says.

    Under ``crop=center`` a square of side min(H, W) − 1 is resized to ``image_size``; under ``none`` the longer side
    is, and the other follows the aspect ratio. Images are resized bilinearly without antialiasing, labels
    nearest-exact to that size and then by floor to ``eval_size`` (directly kept where it is ``original``). A network
    that wants another ``input_size`` gets the crop resized to it, antialiased; label and refinement image go the same
    way for every network.

    Args:
        index, id: of the image.
        picture: RGB.
        label: class ids.
        crop: ``center`` or ``none``.
        image_size: pixels of the (longer) side that label and image are resized to first.
        eval_size: pixels of the (longer) side of the label, or ``original``.
        multiple_of: the network's stride; both sides of its input are rounded to a multiple.
        input_size: pixels of the (longer) side of the network's input; None: ``image_size``.
    """
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    classes = torch.from_numpy(label)
    if crop == "center":
        top, left, side = center_crop_box(*classes.shape)
        pixels = pixels[:, top : top + side, left : left + side]
        classes = classes[top : top + side, left : left + side]
    height, width = classes.shape
    colours = pixels.float() / 255
    resized_to = _scaled(height, width, image_size, multiple_of if input_size is None else 1)
    image = resize_image(colours, resized_to)
    network_input = image
    if input_size is not None:
        network_size = _scaled(height, width, input_size, multiple_of)
        network_input = interpolate(colours[None], network_size, mode="bilinear", antialias=True)[0]
    scored = _scored_label(classes, resized_to, eval_size)
    eval_image = colours if eval_size == "original" else resize_image(image, (scored.shape[0], scored.shape[1]))
    return Example(index, id, network_input, eval_image, scored, frame=label.shape)


def prepare_prediction(
    ids: NDArray[np.int64],
    frame: tuple[int, int],
    *,
    covers: Literal["image", "crop"],
    crop: str,
    image_size: int,
    eval_size: int | str,
    multiple_of: int,
    input_size: int | None = None,
) -> Int[Tensor, "height width"]:
    """Segment ids that another method made, brought to the resolution that is scored, by the way that labels go.

    Args:
        ids: segment ids [rows, cols] at any resolution.
        frame: height and width of the whole picture.
        covers: ``image``: the ids show the whole picture; ``crop``: what the protocol scores of it.
        crop, image_size, eval_size, multiple_of, input_size: see `prepare_example`.

    Raises:
        ValueError: ids of the whole picture in another aspect ratio.
    """
    segments = torch.from_numpy(ids)
    height, width = frame
    rows, cols = segments.shape
    if covers == "image":
        if abs(rows / height - cols / width) * max(height, width) > max(height / rows, width / cols, 1):
            raise ValueError(
                f"the prediction is {cols}×{rows}, which is no {width}×{height} picture scaled; "
                "segmenter.covers=crop takes predictions of the crop that is scored"
            )
        segments = _resize_label(segments, frame, "nearest-exact")
    if crop == "center":
        top, left, side = center_crop_box(height, width)
        height = width = side
        if covers == "image":
            segments = segments[top : top + side, left : left + side]
    if covers == "image":
        resized_to = _scaled(height, width, image_size, multiple_of if input_size is None else 1)
        return _scored_label(segments, resized_to, eval_size)
    size = (height, width) if eval_size == "original" else _scaled(height, width, int(eval_size), 1)
    return _resize_label(segments, size, "nearest-exact")


def _scored_label(classes: Tensor, resized_to: tuple[int, int], eval_size: int | str) -> Tensor:
    """A label at the resolution that is scored: nearest-exact to the image's size, from there by floor."""
    if eval_size == "original":
        return classes
    size = _scaled(classes.shape[0], classes.shape[1], int(eval_size), 1)
    return _resize_label(_resize_label(classes, resized_to, "nearest-exact"), size, "nearest")


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
