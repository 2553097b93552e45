"""Segmentations that another program made: a folder of label PNGs, scored like any other method's."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from diffcut_bench.errors import UserError
from diffcut_bench.ncut.arguments import check_choice
from diffcut_bench.segmenters.base import Covers, Rescale


@dataclass(frozen=True)
class Precomputed:
    """One PNG an image: a value (grey or palette of 8 or 16 bits) or a colour (RGB) for each segment.

    Args:
        folder: of the PNGs.
        pattern: name of an image's PNG below the folder; ``{id}`` stands for the image's id.
        covers: ``image``: they show whole pictures, at any resolution; ``crop``: what the protocol scores.

    Raises:
        UserError: the folder is missing.
        ValueError: an argument is out of range.
    """

    folder: str | None
    pattern: str = "{id}.png"
    covers: Covers = "image"

    consistent_ids = True
    immaterial = ("folder", "pattern")  # what the files hold counts instead

    def __post_init__(self) -> None:
        check_choice("covers", self.covers, get_args(Covers))
        if "{id}" not in self.pattern:
            raise ValueError(f"pattern must hold {{id}}, not {self.pattern!r}")
        if self.folder is None:
            raise UserError("segmenter.folder is not set", "segmenter=precomputed", "add segmenter.folder=DIR")
        if not self._folder.is_dir():
            where = str(self._folder.absolute())
            raise UserError("folder of predictions not found", where, "check the path, or set segmenter.folder=DIR")

    @property
    def _folder(self) -> Path:
        return Path(str(self.folder)).expanduser()

    def __call__(self, image_id: str, rescale: Rescale) -> Int[Tensor, "height width"]:
        """Segment of each pixel at the scored size."""
        return rescale(torch.from_numpy(self.read(image_id)), covers=self.covers)

    def path(self, image_id: str) -> Path:
        """Where the PNG of an image has to lie."""
        return self._folder / self.pattern.replace("{id}", image_id)

    def read(self, image_id: str) -> NDArray[np.int64]:
        """Segment ids [rows, cols] as they stand in the file; each colour of an RGB file is a segment.

        Raises:
            ValueError: there is no such file, or it can't be decoded; the message names it.
        """
        path = self.path(image_id)
        try:
            with Image.open(path, formats=("PNG", "TIFF", "BMP", "GIF", "PPM")) as picture:
                if picture.mode in ("RGB", "RGBA"):
                    rgb = np.asarray(picture.convert("RGB")).astype(np.int64)
                    return rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]
                if picture.mode not in ("1", "L", "P", "I", "I;16"):
                    raise ValueError(f"a {picture.mode} picture; grey, palette or RGB is due")
                return np.asarray(picture).astype(np.int64)
        except (OSError, SyntaxError, ValueError) as error:
            reason = "no prediction" if isinstance(error, FileNotFoundError) else f"can't be read ({error})"
            raise ValueError(f"{path}: {reason}") from error

    def depends_on(self, image_ids: Sequence[str]) -> dict[str, str]:
        """SHA-256 of the predictions of these images, for the key of a cell.

        Raises:
            UserError: there is none for any of them.
        """
        digest = hashlib.sha256()
        found = 0
        for image_id in image_ids:
            path = self.path(image_id)
            content = path.read_bytes() if path.is_file() else b""
            found += bool(content)
            digest.update(f"{image_id}\0".encode() + hashlib.sha256(content).digest())
        if not found:
            raise UserError(
                f"no predictions for any of the {len(image_ids)} images",
                f"looked for {self.path(image_ids[0])} and so on",
                "name the PNGs after the images' ids, or set segmenter.pattern, such as '{id}_pred.png'",
            )
        return {"predictions": digest.hexdigest()}
