"""Segmentations that another program made: a folder of label PNGs, scored like any other method's."""

from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from diffcut_bench.ncut.arguments import check_choice
from diffcut_bench.segmenters.base import Covers, Rescale
from diffcut_bench.segmenters.files import FilesOfImages


@dataclass(frozen=True)
class Precomputed(FilesOfImages):
    """One PNG an image: a value (grey or palette of 8 or 16 bits) or a colour (RGB) for each segment.

    Args:
        folder: of the PNGs.
        pattern: name of an image's PNG below the folder; ``{id}`` stands for the image's id.
        covers: ``image``: they show whole pictures, at any resolution; ``crop``: what the protocol scores.

    Raises:
        UserError: the folder is missing.
        ValueError: an argument is out of range.
    """

    covers: Covers = "image"

    consistent_ids = True

    def __post_init__(self) -> None:
        check_choice("covers", self.covers, get_args(Covers))
        super().__post_init__()

    def __call__(self, image_id: str, rescale: Rescale) -> Int[Tensor, "height width"]:
        """Segment of each pixel at the scored size."""
        return rescale(torch.from_numpy(self.read(image_id)), covers=self.covers)

    def read(self, image_id: str) -> NDArray[np.int64]:
        """Segment ids [rows, cols] as they stand in the file; each colour of an RGB file is a segment.

        Raises:
            ValueError: there is no such file, or it can't be decoded; the message names it.
        """
        formats = ("PNG", "TIFF", "BMP", "GIF", "PPM")
        with self.opening(image_id) as path, Image.open(path, formats=formats) as picture:
            if picture.mode in ("RGB", "RGBA"):
                rgb = np.asarray(picture.convert("RGB")).astype(np.int64)
                return rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]
            if picture.mode not in ("1", "L", "P", "I", "I;16"):
                raise ValueError(f"a {picture.mode} picture; grey, palette or RGB is due")
            return np.asarray(picture).astype(np.int64)
