"""Segment the user's own pictures: the five-line use, and the command `diffcut-bench segment`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from diffcut_bench.config import RunConfig, instantiate, load_config
from diffcut_bench.datasets.decoding import decode_rgb, to_rgb
from diffcut_bench.environment import choose_device
from diffcut_bench.errors import UserError
from diffcut_bench.ncut import ncut_trees
from diffcut_bench.paths import expanded
from diffcut_bench.refinement import assign_cut_by_cut, upsample_nearest
from diffcut_bench.reporting import encode_png, overlay, palette, with_legend
from diffcut_bench.scoring.features import FEATURES_VERSION, backbone_identity, open_features
from diffcut_bench.scoring.fingerprints import code_fingerprint
from diffcut_bench.scoring.framing import Example, prepare_example, resize_image
from diffcut_bench.scoring.identity import NUMERICS_VERSION
from diffcut_bench.scoring.pipeline import segment_images
from diffcut_bench.scoring.stages import Pipeline
from diffcut_bench.scoring.time_limit import TookTooLongError, time_limit
from diffcut_bench.scoring.upload import upload
from diffcut_bench.segmentation.explorer import Explorer, regions_within
from diffcut_bench.segmentation.hierarchy import Hierarchy
from diffcut_bench.segmenters import DiffCut, GraphTooLargeError
from diffcut_bench.store import write_atomically

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
            legend = zip(self.names, palette(self.num_segments), strict=True)
            pixels = with_legend(pixels, [(name, tuple(colour)) for (name, _), colour in legend])
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
        """Label PNG and overlay PNG.

        The values of the first are segment ids: 8 bits that a palette shows in the overlay's colours (mode P), or 16
        from 257 segments on.
        """
        if self.num_segments <= 256:
            labels = encode_png(self.labels.astype(np.uint8), palette(self.num_segments))
        else:
            labels = encode_png(self.labels.astype(np.uint16))
        write_atomically(labels_path, labels)
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
            if class_names:
                raise UserError("classes without a namer", "segment", "add namer=clip_b16")
            raise UserError("a namer without classes", "segment", 'add --classes "cat, sofa", or leave the namer out')
        if config.linker.get("_target_"):
            where = f"linker={config.choices.get('linker')}"
            raise UserError("a linker compares the segments of a data set's images", where, "leave it out")
        self._config = config
        features = open_features(replace(config, features={}), choose_device(config.device))
        self._pipeline = Pipeline.of(config, features)
        self._class_names = [name.strip("| ").partition("|")[0].strip() for name in class_names]
        background = self._class_names.index(_BACKGROUND) if _BACKGROUND in self._class_names else None
        self._namer = namer and namer.for_classes(class_names, background, features.device)

    def identity(self) -> dict[str, Any]:
        """Everything but the picture that its segments and their names depend on."""
        config, pipeline = self._config, self._pipeline
        options = {group: getattr(config, group) for group in ("segmenter", "upsampler", "refiner", "namer")}
        stages = (pipeline.segmenter.method, pipeline.upsampler, pipeline.refiner, self._namer)
        return {
            "numerics_version": NUMERICS_VERSION,
            "features_version": FEATURES_VERSION,
            "backbone": backbone_identity(pipeline.features.backbone, config.backbone),
            **options,
            "protocol": config.protocol,
            "code": code_fingerprint(stages, options.values()),
            "words": self._namer and self._namer.identity(),
            "classes": self._class_names,
            "device_type": pipeline.features.device.type,
            "torch": torch.__version__.partition("+")[0],
        }

    def __call__(self, image: str | Path | Image.Image | NDArray[Any]) -> Segmentation:
        """Segment one picture. One whose pixels are all equal is one segment.

        Args:
            image: path, Pillow image, or array: RGB(A) [height, width, 3 or 4] or grey [height, width], of uint8 (grey
                also of uint16), or of floats from 0 to 1.

        Raises:
            UserError: the file is missing or no picture, the array is none of these, there are no pixels, or it took
                longer than the config's ``max_seconds``.
        """
        picture = _as_rgb(image, self._config.max_pixels)
        nothing = np.zeros((picture.height, picture.width), dtype=np.int64)
        example = prepare_example(0, "", picture, nothing, self._pipeline.features.framing)
        pixels = (example.eval_image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        segments = example.label
        with _said_if_too_long(image):
            if not _is_one_colour(picture):
                segments = self._segments(example)
        if self._namer is None:
            return Segmentation(pixels, segments.numpy())
        (there,) = upload([example], self._device)
        found = self._namer(there.image[None], segments[None].to(self._device))
        named = zip(found.classes[0].tolist(), found.scores[0].tolist(), strict=True)
        names = tuple((self._class_names[i], round(score, 6)) for i, score in named)
        return Segmentation(pixels, segments.numpy(), names)

    @torch.inference_mode()
    def hierarchy(self, image: str | Path | Image.Image | NDArray[Any], max_tau: float = 0.9) -> Hierarchy:
        """The tree of one picture, from which its segments at any tau come.

        Args:
            image: as of a call.
            max_tau: greatest tau that it answers; the config's own where that is greater.

        Raises:
            UserError: as of a call, or the segmenter has no tree.
        """
        self.check_has_tree()
        method = self._pipeline.segmenter.method
        picture = _as_rgb(image, self._config.max_pixels)
        nothing = np.zeros((picture.height, picture.width), dtype=np.int64)
        (there,) = upload([prepare_example(0, "", picture, nothing, self._pipeline.features.framing)], self._device)
        features = self._pipeline.features.compute(there.image[None]).float()
        pair = (max(max_tau, method.tau), method.alpha)
        try:
            (tree,) = ncut_trees(features.flatten(2).mT, [pair], method)
        except GraphTooLargeError as error:
            hint = "raise segmenter.max_memory_gib, or use a smaller protocol.image_size"
            raise UserError(str(error), "segmenter.max_memory_gib", hint) from error
        return Hierarchy.of(tree, method.alpha, (features.shape[2], features.shape[3]))

    def check_has_tree(self) -> None:
        """Raise a UserError where the segmenter has no tree."""
        method = self._pipeline.segmenter.method
        if not isinstance(method, DiffCut):
            raise UserError("only the recursive cut has a tree", "segmenter", "segmenter=diffcut")
        if method.approximation != "none":
            where = f"segmenter.approximation={method.approximation}"
            raise UserError("an approximated cut has no tree of patches", where, "segmenter.approximation=none")

    @property
    def _device(self) -> torch.device:
        return self._pipeline.features.device

    @torch.inference_mode()
    def explore(
        self, image: str | Path | Image.Image | NDArray[Any], max_tau: float = 0.8, largest: int = 1024
    ) -> Explorer:
        """The segments of one picture at every tau, for a page with a slider.

        Args:
            image: see `__call__`.
            max_tau: end of the slider; the config's tau where that is greater.
            largest: pixels of the longer side that the page's picture has at most.

        Raises:
            UserError: as `__call__` and `check_explorable`.
        """
        method, source = self.check_explorable(), self._pipeline.features
        picture = _as_rgb(image, self._config.max_pixels)
        nothing = np.zeros((picture.height, picture.width), dtype=np.int64)
        (there,) = upload([prepare_example(0, "", picture, nothing, source.framing)], source.device)
        size = _at_most(largest, there.label.shape)
        features = source.compute(there.image[None]).float()
        max_tau = max(max_tau, method.tau)
        try:
            with _said_if_too_long(image), time_limit(self._config.max_seconds, ["picture"]):
                # At tau 0 nothing is cut.
                pairs = [(0.0 if _is_one_colour(picture) else max_tau, method.alpha)]
                (tree,) = ncut_trees(features.flatten(2).mT, pairs, method)[0].images
                within = regions_within(tree.sides)
                leaves = assign_cut_by_cut(features[0], tree.sides, within, size, self._pipeline.protocol.similarity)
        except ValueError as error:
            raise UserError(
                str(error), "--explore", "choose another option, or a smaller protocol.image_size"
            ) from error
        pixels = (resize_image(there.eval_image, size).permute(1, 2, 0).cpu().numpy() * 255).round().astype(np.uint8)
        return Explorer(pixels, tree, leaves.cpu().numpy(), max_tau, method.tau)

    def check_explorable(self) -> DiffCut:
        """The segmenter, whose segments at any tau make one tree.

        Raises:
            UserError: they don't.
        """
        method = self._pipeline.segmenter.method
        if not isinstance(method, DiffCut) or method.approximation != "none":
            what = "only an exact recursive cut has a tree of segments"
            raise UserError(what, "--explore", "leave --explore out, or use segmenter=diffcut")
        if method.label_codes != "exact":
            raise UserError("label codes that merge segments have no tree", "--explore", "segmenter.label_codes=exact")
        return method

    def _segments(self, example: Example) -> Tensor:
        """Segments [height, width], contiguous from 0, of a picture at the wanted size."""
        height, width = example.label.shape
        labels = segment_images(self._pipeline, [example], _at_most(_LARGEST, (height, width)))
        return upsample_nearest(labels, (height, width))[0].unique(return_inverse=True)[1]


def segment(
    image: str | Path | Image.Image | NDArray[Any],
    backbone: str = "efficientnet_lite0",
    *overrides: str,
) -> Segmentation:
    """Segment one picture in one line.

    Args:
        image: path, Pillow image or array, see `PictureSegmenter`.
        backbone: option name.
        overrides: further Hydra overrides, such as ``"segmenter.tau=0.4"``.

    Returns:
        Segments at the picture's own resolution.

    Raises:
        UserError: an option is unknown, weights are missing, or the picture can't be read.
    """
    return PictureSegmenter(load_config(["protocol=strict", f"backbone={backbone}", *overrides]))(image)


@contextmanager
def _said_if_too_long(image: object) -> Iterator[None]:
    try:
        yield
    except TookTooLongError as error:
        where = str(image) if isinstance(image, (str, Path)) else "this picture"
        raise UserError(f"segmenting {error}", where, "give it more time, or a smaller picture") from error


def _is_one_colour(picture: Image.Image) -> bool:
    """What a network sees of one colour varies with the distance to its padding: nothing to segment."""
    pixels = np.asarray(picture)
    return bool((pixels == pixels[0, 0]).all())


def _at_most(largest: int, size: Sequence[int]) -> tuple[int, int]:
    """Height and width, made smaller in proportion where the longer one is above ``largest``."""
    scale = min(largest / max(size), 1)
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def _as_rgb(image: str | Path | Image.Image | NDArray[Any], max_pixels: int) -> Image.Image:
    if isinstance(image, (str, Path)):
        return _read(Path(expanded(str(image), "picture")), max_pixels)
    try:
        picture = to_rgb(Image.fromarray(_eight_bits(image)) if isinstance(image, np.ndarray) else image)
    except Exception as error:  # as in `_read`, and whatever is no picture at all
        hint = "a path, a Pillow image, or an array [height, width, 3] of uint8 0..255 or floats 0..1"
        raise UserError(f"no picture: {error}", f"a {type(image).__name__}", hint) from error
    if not picture.width or not picture.height:
        raise UserError("a picture without pixels", f"{picture.width} × {picture.height}", "check what made it")
    return picture


def _eight_bits(array: NDArray[Any]) -> NDArray[Any]:
    """An array that Pillow takes.

    Raises:
        ValueError: it is none of a picture.
    """
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        turned = array.ndim == 3 and array.shape[0] in (3, 4)
        raise ValueError(f"the shape is {list(array.shape)}" + (", with the colours first" if turned else ""))
    if np.issubdtype(array.dtype, np.floating):
        if array.size and not (array.min() >= 0 and array.max() <= 1):
            raise ValueError(f"the floats are {array.min():g} to {array.max():g}, not from 0 to 1")
        return (array * 255).round().astype(np.uint8)
    if array.dtype != np.uint8 and not (array.dtype == np.uint16 and array.ndim == 2):
        raise ValueError(f"the values are {array.dtype}")
    return array


def _read(path: Path, max_pixels: int) -> Image.Image:
    if path.is_dir():
        raise UserError("a folder, not a picture", str(path), "name a picture in it")
    if not path.is_file():
        raise UserError("no such picture", str(path), "check the path")
    try:
        return decode_rgb(path.read_bytes(), path.name, max_pixels, upright=True)
    except Exception as error:  # Pillow raises OSError, ValueError, NotImplementedError, struct.error and more
        raise UserError(f"not a picture that can be read ({error})", str(path), "convert it to JPEG or PNG") from error
