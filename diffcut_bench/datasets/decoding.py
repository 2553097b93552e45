"""From the bytes of a picture to its pixels. Only this module decodes a user's pictures: it says how large one may be,
and how each kind becomes 8-bit RGB."""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 64_000_000  # default of max_pixels; segmenting one of this size takes about 2 GiB

_TIFF_BITS = 258
_SIXTEEN = 65535
# Names how deep and transparent pictures become RGB. Change it when `to_rgb` changes, so that stored features of old
# colours are not used for new ones.
_CONVERSION = b"\0white beneath alpha, scaled by depth"


class TooManyPixelsError(ValueError):
    """A picture has more pixels than ``max_pixels``. It was not decoded."""


class StoredPicture:
    """The content of a picture's file: its header is read at once, its pixels are decoded when they are asked for.

    Args:
        data: content of the file.
        where: name of the file in errors.
        max_pixels: largest width times height that is taken.

    Attributes:
        data: as given.
        size: height and width.
        conversion: what to hash beside ``data`` when something computed from the colours is kept: nothing where the
            colours are the stored ones, else a name for how transparent pictures and deep grey are converted.

    Raises:
        TooManyPixelsError: larger than that.
        ValueError: no picture.
    """

    def __init__(self, data: bytes, where: str, max_pixels: int = MAX_PIXELS) -> None:
        self.data, self._where, self._max_pixels = data, where, max_pixels
        with self._named():
            picture = self._picture = _open(data, max_pixels)
            if picture.format == "EPS":  # Pillow would start Ghostscript on it
                raise ValueError("EPS is a program, not pixels; convert it to PNG")
        needed = picture.width * picture.height
        if needed > max_pixels:
            raise TooManyPixelsError(
                f"{where}: {picture.width}×{picture.height} pixels are more than max_pixels={max_pixels}; "
                f"max_pixels={needed} takes it, with about {max(needed * 48 >> 30, 1)} GiB of memory"
            )
        self.size = (picture.height, picture.width)
        self.conversion = _conversion(picture)

    def decoded(self) -> Image.Image:
        """The stored pixels in the file's own mode; the EXIF orientation is not applied.

        Raises:
            ValueError: damaged.
        """
        with self._named():
            self._picture.load()
        return self._picture

    def rgb(self, *, upright: bool = False) -> Image.Image:
        """8-bit RGB (`to_rgb`), its depth taken from the file.

        Args:
            upright: apply the EXIF orientation. Annotations are made on the pixels as stored, so data sets don't.

        Raises:
            ValueError: as `decoded` and `to_rgb` do; the message names the file.
        """
        picture = self.decoded()
        maximum = _stored_maximum(picture, self.data)
        try:
            return to_rgb(ImageOps.exif_transpose(picture) if upright else picture, maximum)
        except ValueError as error:
            raise ValueError(f"{self._where}: {error}") from error

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Within, whatever Pillow raises is a ValueError that names the file."""
        try:
            yield
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            what = f"{self._where}: larger than max_pixels={self._max_pixels} allows ({error})"
            raise TooManyPixelsError(what) from error
        except UnidentifiedImageError as error:  # its text is the address of our buffer
            raise ValueError(f"{self._where}: can't be decoded (no picture format that is known)") from error
        except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError and more on damaged files
            raise ValueError(f"{self._where}: can't be decoded ({error})") from error


def decode(data: bytes, where: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """`StoredPicture.decoded` of the content of a file."""
    return StoredPicture(data, where, max_pixels).decoded()


def decode_rgb(data: bytes, where: str, max_pixels: int = MAX_PIXELS, *, upright: bool = False) -> Image.Image:
    """`StoredPicture.rgb` of the content of a file."""
    return StoredPicture(data, where, max_pixels).rgb(upright=upright)


def to_rgb(picture: Image.Image, maximum: int = _SIXTEEN) -> Image.Image:
    """Eight-bit RGB.

    * Grey of more than 8 bits is scaled from 0..``maximum``: the range of the file format, not of the values in it.
    * Transparent pixels are drawn on white.
    * All else is Pillow's own conversion; RGB and 8-bit grey pictures keep their values.

    Args:
        picture: decoded.
        maximum: value of white, where the picture has more than 8 bits.

    Raises:
        ValueError: floating-point, or values above ``maximum`` or below 0: their range is not known.
    """
    if picture.mode == "F":
        raise ValueError("a floating-point picture has no known range; convert it to 8 or 16 bits")
    if picture.mode.startswith("I"):
        values = np.asarray(picture).astype(np.int64)
        if values.size and (values.min() < 0 or values.max() > maximum):
            raise ValueError(
                f"values {values.min()}..{values.max()} are no grey of 0..{maximum}; convert it to 16 bits"
            )
        grey = values // 257 if maximum == _SIXTEEN else (values * 255 + maximum // 2) // maximum
        transparent = picture.info.get("transparency")
        if isinstance(transparent, int):
            grey[values == transparent] = 255
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    return picture.convert("RGB")


def conversion(data: bytes, max_pixels: int = MAX_PIXELS) -> bytes:
    """`StoredPicture.conversion` of the content of any file, also of one that is no picture or too large."""
    try:
        with _open(data, max_pixels) as picture:
            return _conversion(picture)
    except Exception:  # decoding it will say what is wrong
        return b""


def _conversion(picture: Image.Image) -> bytes:
    return _CONVERSION if picture.mode.startswith("I") or picture.has_transparency_data else b""


def grey_step(data: bytes) -> int:
    """The factor by which Pillow scales grey PNGs of 2 and 4 bits to 8 bits; their raw values are indices."""
    is_png = data.startswith(b"\x89PNG")
    depth, colour_type = (data[24], data[25]) if is_png else (8, 0)
    return 255 // (2**depth - 1) if colour_type == 0 and depth in (2, 4) else 1


def _open(data: bytes, max_pixels: int) -> Image.Image:
    """The picture; only its header is read. Pillow's own limit, a global, is raised to a larger ``max_pixels``."""
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels
    return Image.open(io.BytesIO(data))


def _stored_maximum(picture: Image.Image, data: bytes) -> int:
    """Value of white in a picture of more than 8 bits, as its file declares it."""
    bits = 16
    if picture.format == "TIFF":
        bits = int(picture.tag_v2.get(_TIFF_BITS, (16,))[0])  # type: ignore[attr-defined]
    elif picture.format == "PNG" and picture.mode.startswith("I"):
        declared = _significant_bits(data)
        # The specification says that a PNG of 12 significant bits is scaled to 16; many writers do not scale. Scaled
        # values repeat their upper bits in the lower ones, or have zeros there.
        if declared and not _fills_sixteen(np.asarray(picture).astype(np.int64), declared):
            bits = declared
    return 2**bits - 1 if 8 < bits < 16 else _SIXTEEN


def _significant_bits(png: bytes) -> int | None:
    """Value of a grey PNG's sBIT chunk, if it has one."""
    offset = 8
    while offset + 8 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, offset)
        if kind == b"sBIT" and length == 1:
            return png[offset + 8]
        if kind == b"IDAT":
            break
        offset += length + 12
    return None


def _fills_sixteen(values: NDArray[np.int64], bits: int) -> bool:
    """Whether samples of so many bits have been scaled to 16."""
    spare = 16 - bits
    lower = values & (2**spare - 1)
    return bool((lower == 0).all() or (lower == values >> bits).all())
