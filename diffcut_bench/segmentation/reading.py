"""Whatever a person calls a picture, as RGB: a path, the bytes of a file, a Pillow image, an array, a tensor."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from diffcut_bench.datasets.decoding import decode_rgb, to_rgb
from diffcut_bench.errors import UserError
from diffcut_bench.paths import expanded

Picture = str | Path | bytes | Image.Image | NDArray[Any] | Tensor

_KINDS = (
    "a path, the bytes of a picture file, a Pillow image, an array [height, width, 3] or a tensor [3, height, width] "
    "of uint8 0..255 or floats 0..1"
)


def as_rgb(image: Picture, max_pixels: int) -> Image.Image:
    """A picture as eight-bit RGB; files are turned upright.

    Args:
        image: path, bytes of a file, Pillow image, array of RGB(A) [height, width, 3 or 4] or grey [height, width], or
            tensor of RGB(A) [3 or 4, height, width] or grey [height, width]. Values of arrays and tensors are uint8
            (grey also uint16) or floats from 0 to 1.
        max_pixels: width × height that a file may have.

    Raises:
        UserError: it is none of these, or has no pixels.
    """
    if isinstance(image, str):
        check_no_address(image)
    if isinstance(image, (str, Path)):
        return _read(Path(expanded(str(image), "picture")), max_pixels)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _decoded(bytes(image), f"{len(image)} bytes", max_pixels)
    if not isinstance(image, (Image.Image, np.ndarray, Tensor)):
        raise UserError("no picture", f"a value of type {type(image).__name__}", _KINDS)
    try:
        if isinstance(image, Tensor):
            image = _colours_last(image)
        picture = to_rgb(Image.fromarray(_eight_bits(image)) if isinstance(image, np.ndarray) else image)
    except Exception as error:  # Pillow raises many kinds
        raise UserError(f"no picture: {error}", f"a value of type {type(image).__name__}", _KINDS) from error
    if not picture.width or not picture.height:
        raise UserError("a picture without pixels", f"{picture.width} × {picture.height}", "check what made it")
    return picture


def check_no_address(text: str) -> None:
    """Raise a UserError where a path is an address, such as ``https://…``."""
    if re.match(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]+://", text):
        raise UserError("an address, and no path", text, "download it first, and give its path or its bytes")


def describe_picture(image: object) -> str:
    """What a message calls it: its path, else ``this picture``."""
    return str(image) if isinstance(image, (str, Path)) else "this picture"


def _colours_last(tensor: Tensor) -> NDArray[Any]:
    """The array of a tensor, whose colours come first.

    Raises:
        ValueError: they don't.
    """
    if tensor.dim() == 3 and tensor.shape[0] not in (3, 4):
        raise ValueError(f"the shape is {list(tensor.shape)}; the colours of a tensor come first, of an array last")
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    return np.ascontiguousarray(np.moveaxis(array, 0, -1)) if tensor.dim() == 3 else array


def _eight_bits(array: NDArray[Any]) -> NDArray[Any]:
    """An array that Pillow takes.

    Raises:
        ValueError: it is none of a picture.
    """
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        turned = array.ndim == 3 and array.shape[0] in (3, 4)
        hint = ", with the colours first: give np.moveaxis(array, 0, -1)" if turned else ""
        raise ValueError(f"the shape is {list(array.shape)}{hint}")
    if np.issubdtype(array.dtype, np.floating):
        if array.size and not (array.min() >= 0 and array.max() <= 1):
            raise ValueError(f"the floats are {array.min():g} to {array.max():g}, not from 0 to 1")
        return (array * 255).round().astype(np.uint8)
    if array.dtype != np.uint8 and not (array.dtype == np.uint16 and array.ndim == 2):
        raise ValueError(f"the values are {array.dtype}")
    return array


def _read(path: Path, max_pixels: int) -> Image.Image:
    try:
        if path.is_dir():
            raise UserError("a folder, not a picture", str(path), "name a picture in it")
        if not path.is_file():
            raise UserError("no such picture", str(path), "check the path")
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"can't be read ({error.strerror or error})", str(path), "check the path and its permissions"
        ) from error
    return _decoded(data, str(path), max_pixels)


def _decoded(data: bytes, where: str, max_pixels: int) -> Image.Image:
    try:
        return decode_rgb(data, Path(where).name, max_pixels, upright=True)
    except Exception as error:  # Pillow raises OSError, ValueError, NotImplementedError, struct.error and more
        raise UserError(f"not a picture that can be read ({error})", where, "convert it to JPEG or PNG") from error
