"""Segment the user's own pictures: the five-line use, and the command `diffcut-bench segment`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from diffcut_bench.config import RunConfig, build_protocol, instantiate, load_config
from diffcut_bench.datasets.base import to_rgb
from diffcut_bench.datasets.preprocessing import prepare_example, resize_image
from diffcut_bench.environment import choose_device
from diffcut_bench.errors import UserError
from diffcut_bench.features import FeatureSource
from diffcut_bench.pipeline import Pipeline, segment_images
from diffcut_bench.refinement import upsample_nearest
from diffcut_bench.reporting import encode_png, overlay, palette, with_legend
from diffcut_bench.store import write_atomically
from diffcut_bench.time_limit import TookTooLongError

# Pixels of the longer side at which labels are refined; a larger picture's labels are enlarged from there. Refinement
# holds a plane for each neighbour and each segment, which at the size of a camera's picture is tens of gigabytes.
_LARGEST = 1536
_BACKGROUND = "background"


@dataclass(frozen=True)
class Segmentation:
    """Segments of one picture.

    Attributes:
        image: RGB [height, width, 3], 0..255, upright.
        labels: segment of each pixel [height, width], contiguous from 0.
        names: of each segment, with its probability among the classes; None where segments were not named.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.int64]
    names: tuple[tuple[str, float], ...] | None = None

    @property
    def num_segments(self) -> int:
        return int(self.labels.max()) + 1

    def overlay(self) -> Image.Image:
        """The segments in colours over the picture; a legend of their names beneath it, where they have any."""
        pixels = overlay(self.image, self.labels)
        if self.names is not None:
            colours = palette(self.num_segments)
            pixels = with_legend(pixels, [(name, tuple(colours[i])) for i, (name, _) in enumerate(self.names)])
        return Image.fromarray(pixels)

    def describe(self) -> list[dict[str, Any]]:
        """For each segment: id, area in pixels and as a fraction, bounding box (left, top, right, bottom), mean RGB;
        name and score where it has them."""
        described = []
        for segment in range(self.num_segments):
            mask = self.labels == segment
            rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            described.append(
                {
                    "id": segment,
                    "area_px": int(mask.sum()),
                    "area_fraction": round(float(mask.mean()), 6),
                    "bbox": [int(cols[0]), int(rows[0]), int(cols[-1]) + 1, int(rows[-1]) + 1],
                    "mean_rgb": self.image[mask].mean(axis=0).round(1).tolist(),
                    **({} if self.names is None else dict(zip(("name", "score"), self.names[segment], strict=True))),
                }
            )
        return described

    def save(self, labels_path: Path, overlay_path: Path) -> None:
        """Label PNG (8 bits, 16 from 257 segments on; values are segment ids) and overlay PNG."""
        small = self.num_segments <= 256
        ids = self.labels.astype(np.uint8) if small else self.labels.astype(np.uint16)
        write_atomically(labels_path, encode_png(ids))
        write_atomically(overlay_path, encode_png(np.asarray(self.overlay())))


class PictureSegmenter:
    """The pipeline of a config, built once, for pictures without annotations.

    Pictures are taken whole, in their aspect ratio, and segmented at their own resolution unless the config's protocol
    says otherwise (``protocol=strict`` is what `segment` and the command use).

    Args:
        config: checked.
        class_names: that the config's namer chooses among, such as ``cat|kitten``; ``background`` stands for what is
            behind things. Empty: segments get no names.

    Raises:
        UserError: an option is out of range, weights are missing, or classes go without a namer or the other way round.
    """

    def __init__(self, config: RunConfig, class_names: Sequence[str] = ()) -> None:
        namer = instantiate("namer", config.namer)
        if bool(class_names) != (namer is not None):
            what = "classes without a namer" if class_names else "a namer without classes"
            raise UserError(what, "segment", 'diffcut-bench segment photo.jpg --classes "cat, sofa" namer=clip_b16')
        device = choose_device(config.device)
        self._pipeline = Pipeline(
            features=FeatureSource(instantiate("backbone", config.backbone).to(device), device),
            segmenter=instantiate("segmenter", config.segmenter),
            upsampler=instantiate("upsampler", config.upsampler),
            refiner=instantiate("refiner", config.refiner),
            protocol=build_protocol(config.protocol),
            device=device,
            max_seconds=config.max_seconds,
        )
        self._class_names = [name.strip("| ").partition("|")[0].strip() for name in class_names]
        background = self._class_names.index(_BACKGROUND) if _BACKGROUND in self._class_names else None
        self._namer = namer and namer.for_classes(class_names, background, device)

    def __call__(self, image: str | Path | Image.Image | NDArray[np.uint8]) -> Segmentation:
        """Segment one picture.

        Args:
            image: path, Pillow image, or RGB array [height, width, 3] of uint8.

        Raises:
            UserError: the file is missing or no picture, or it took longer than the config's ``max_seconds``.
        """
        picture = _as_rgb(image)
        protocol = self._pipeline.protocol
        example = prepare_example(
            0,
            "",
            picture,
            np.zeros((picture.height, picture.width), dtype=np.int64),
            crop=protocol.crop,
            image_size=protocol.image_size,
            eval_size=protocol.eval_size,
            multiple_of=self._pipeline.features.backbone.stride,
            input_size=self._pipeline.features.backbone.image_size,
        )
        pixels = (example.eval_image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        size = example.label.shape
        refined = tuple(max(round(side * min(_LARGEST / max(size), 1)), 1) for side in size)
        eval_image = resize_image(example.eval_image, (refined[0], refined[1]))
        assert example.image is not None
        try:
            labels = segment_images(self._pipeline, example.image[None], eval_image[None])
        except TookTooLongError as error:
            where = str(image) if isinstance(image, (str, Path)) else "this picture"
            raise UserError(f"segmenting {error}", where, "give it more time, or a smaller picture") from error
        whole = upsample_nearest(labels, (size[0], size[1]))[0]
        segments = whole.unique(return_inverse=True)[1]
        if self._namer is None:
            return Segmentation(pixels, segments.numpy())
        device = self._pipeline.device
        names = self._namer(example.image[None].to(device), segments[None].to(device))
        found = zip(names.classes[0].tolist(), names.scores[0].tolist(), strict=True)
        return Segmentation(
            pixels, segments.numpy(), tuple((self._class_names[i], round(score, 6)) for i, score in found)
        )


def segment(
    image: str | Path | Image.Image | NDArray[np.uint8],
    backbone: str = "efficientnet_lite0",
    *overrides: str,
) -> Segmentation:
    """Segment one picture in one line.

    Args:
        image: path, Pillow image, or RGB array [height, width, 3] of uint8.
        backbone: option name.
        overrides: further Hydra overrides, such as ``"segmenter.tau=0.4"``.

    Returns:
        Segments at the picture's own resolution.

    Raises:
        UserError: an option is unknown, weights are missing, or the picture can't be read.
    """
    return PictureSegmenter(load_config(["protocol=strict", f"backbone={backbone}", *overrides]))(image)


def _as_rgb(image: str | Path | Image.Image | NDArray[np.uint8]) -> Image.Image:
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if isinstance(image, np.ndarray):
        return to_rgb(Image.fromarray(image))
    path = Path(image).expanduser()
    if not path.is_file():
        raise UserError("no such picture", str(path), "check the path")
    try:
        with Image.open(path) as picture:
            return to_rgb(ImageOps.exif_transpose(picture))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"not a picture that can be read ({error})", str(path), "convert it to JPEG or PNG") from error
