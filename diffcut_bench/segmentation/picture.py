"""Segment the user's own pictures: the five-line use, and what `diffcut-bench segment` calls."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from diffcut_bench.config import RunConfig, instantiate
from diffcut_bench.environment import choose_device
from diffcut_bench.errors import UserError
from diffcut_bench.heap import return_large_blocks
from diffcut_bench.ncut import NCutTree
from diffcut_bench.reporting import Explorer, explore_cuts
from diffcut_bench.scoring.features import FEATURES_VERSION, backbone_identity, open_features
from diffcut_bench.scoring.fingerprints import code_fingerprint
from diffcut_bench.scoring.framing import Example, prepare_example
from diffcut_bench.scoring.identity import NUMERICS_VERSION
from diffcut_bench.scoring.pipeline import segment_images
from diffcut_bench.scoring.stages import Pipeline
from diffcut_bench.scoring.time_limit import TookTooLongError, time_limit
from diffcut_bench.scoring.upload import upload
from diffcut_bench.segmentation.hierarchy import Hierarchy
from diffcut_bench.segmentation.reading import Picture, as_rgb, describe_picture
from diffcut_bench.segmentation.result import Segmentation
from diffcut_bench.segmentation.settings import picture_config
from diffcut_bench.segmenters import GraphTooLargeError, HasTree, as_segmenter

# Raise when segments of pictures change that a cell of results does not show: those of large pictures.
_VERSION = 2
_LARGE = 16_000_000  # pixels of a picture from which on memory is spared
_BACKGROUND = "background"


class PictureSegmenter:
    """The pipeline of a config, built once, for any number of pictures without annotations.

    Pictures are taken whole, in their aspect ratio, and segmented at their own resolution unless the config's protocol
    says otherwise (what stands before the overrides is `SEGMENT_DEFAULTS`).

    Threads may share one: their calls wait for each other. Processes can't share one; a copy that is sent to a process
    (pickled) is built anew there from its config.

    >>> segmenter = PictureSegmenter(["backbone=efficientnet_lite0", "segmenter.tau=0.4"])
    >>> for result in segmenter.map(paths, batch_size=8): ...  # doctest: +SKIP

    Args:
        config: checked, or Hydra overrides of the config that `diffcut-bench segment` has.
        class_names: that the config's namer chooses among, such as ``cat|kitten``; ``background`` stands for what is
            behind things. Empty: segments get no names.

    Raises:
        UserError: an option is out of range, weights are missing, or classes go without a namer or the other way round.
    """

    def __init__(self, config: RunConfig | Sequence[str] = (), class_names: Sequence[str] = ()) -> None:
        if not isinstance(config, RunConfig):
            config = picture_config(config, named=bool(class_names))
        namer = instantiate("namer", config.namer)
        if bool(class_names) != (namer is not None):
            if class_names:
                raise UserError("classes without a namer", "segment", "add namer=clip_b16")
            raise UserError("a namer without classes", "segment", 'add --classes "cat, sofa", or leave the namer out')
        if config.linker.get("_target_"):
            where = f"linker={config.choices.get('linker')}"
            raise UserError("a linker compares the segments of a data set's images", where, "leave it out")
        self._config, self._given_names = config, tuple(class_names)
        features = open_features(replace(config, features={}), choose_device(config.device))
        self._pipeline = Pipeline.of(config, features)
        self._class_names = [name.strip("| ").partition("|")[0].strip() for name in class_names]
        background = self._class_names.index(_BACKGROUND) if _BACKGROUND in self._class_names else None
        self._namer = namer and namer.for_classes(class_names, background, features.device)
        self._lock = threading.RLock()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._config, self._given_names)

    def identity(self) -> dict[str, Any]:
        """Everything but the picture that its segments and their names depend on."""
        config, pipeline = self._config, self._pipeline
        options = {group: getattr(config, group) for group in ("segmenter", "upsampler", "refiner", "namer")}
        stages = (pipeline.segmenter.method, pipeline.upsampler, pipeline.refiner, self._namer)
        return {
            "numerics_version": NUMERICS_VERSION,
            "pictures_version": _VERSION,
            "features_version": FEATURES_VERSION,
            "backbone": backbone_identity(pipeline.features.backbone, config.backbone),
            **options,
            **({"smallest_segment": config.smallest_segment} if config.smallest_segment else {}),
            "protocol": config.protocol,
            "code": code_fingerprint(stages, options.values()),
            "words": self._namer and self._namer.identity(),
            "classes": self._class_names,
            "device_type": pipeline.features.device.type,
            "torch": torch.__version__.partition("+")[0],
        }

    def __call__(self, image: Picture) -> Segmentation:
        """Segment one picture. One whose pixels are all equal is one segment.

        Args:
            image: path, bytes of a picture file, Pillow image, array [height, width, 3 or 4], tensor [3 or 4, height,
                width], or either in grey [height, width]; of uint8 (grey also of uint16), or of floats from 0 to 1.

        Raises:
            UserError: the file is missing or no picture, the array is none of these, there are no pixels, or it took
                longer than the config's ``max_seconds``.
        """
        return next(self.map([image]))

    def map(self, images: Iterable[Picture], batch_size: int = 1) -> Iterator[Segmentation]:
        """Segment pictures, one result each, in their order.

        Args:
            images: as a call takes them; read as they are needed.
            batch_size: pictures that go through the backbone together, where they have one size.

        Raises:
            UserError: as a call, after the results of the pictures before; `try_map` continues with the next picture.
        """
        for result in self.try_map(images, batch_size):
            if isinstance(result, UserError):
                raise result
            yield result

    def try_map(self, images: Iterable[Picture], batch_size: int = 1) -> Iterator[Segmentation | UserError]:
        """The same, with the error in the place of a picture that can't be segmented."""
        if batch_size < 1:
            raise UserError("no batch without pictures", f"batch_size={batch_size}", "give a number from 1 on")
        rest = iter(images)
        while batch := list(islice(rest, batch_size)):
            with self._lock:
                scenes = [self._caught(self._scene, image) for image in batch]
                self._fill_in_features([scene for scene in scenes if isinstance(scene, _Scene)])
                results = [s if isinstance(s, UserError) else self._caught(s.segmentation) for s in scenes]
            yield from results

    def tree_method(self, nested: bool = False) -> HasTree:
        """The method, whose segments at any tau come from one tree.

        Args:
            nested: those at a smaller tau have to be unions of those at a larger one.

        Raises:
            UserError: they don't come from one, or aren't.
        """
        method: object = self._pipeline.segmenter.method
        if not isinstance(method, HasTree):
            hint = "segmenter=diffcut and segmenter=agglomerative have one"
            raise UserError("this segmenter has no tree", "segmenter", hint)
        fault = method.tree_fault(nested)
        if fault is not None:
            raise fault
        return method

    @staticmethod
    def _caught(step: Any, *arguments: Any) -> Any:
        try:
            return step(*arguments)
        except UserError as error:
            return error

    def _scene(self, image: Picture) -> "_Scene":
        return_large_blocks(True, now=False)  # it may be a large one
        picture = as_rgb(image, self._config.max_pixels)
        return_large_blocks(picture.width * picture.height > _LARGE)
        nothing = np.zeros((picture.height, picture.width), dtype=np.int64)
        example = prepare_example(0, "", picture, nothing, self._pipeline.features.framing)
        return _Scene(self, describe_picture(image), example, _is_one_colour(picture))

    @torch.inference_mode()
    def _fill_in_features(self, scenes: Sequence["_Scene"]) -> None:
        """Compute what the pictures are segmented by, those of one size together."""
        source = self._pipeline.features
        groups: dict[Any, list[_Scene]] = {}
        for scene in scenes:
            if self._pipeline.needs_features and not scene.is_one_colour:
                groups.setdefault(source.grids(scene.example.frame), []).append(scene)
        for group in groups.values():
            there = upload([scene.example for scene in group], source.device)
            features = source.compute(there).float().cpu()
            for scene, own in zip(group, features.split(1), strict=True):
                scene.features = own

    def _names(self, example: Example, labels: NDArray[np.int64]) -> tuple[tuple[str, float], ...] | None:
        if self._namer is None:
            return None
        device = self._pipeline.features.device
        (there,) = upload([example], device)
        found = self._namer(there.image[None], torch.from_numpy(labels)[None].to(device))
        named = zip(found.classes[0].tolist(), found.scores[0].tolist(), strict=True)
        return tuple((self._class_names[i], round(score, 6)) for i, score in named)


@dataclass
class _Scene:
    """One picture, its features, and the tree of its cuts: what its segments at any tau come from.

    Attributes:
        segmenter: of pictures.
        where: what messages call the picture.
        example: the picture.
        is_one_colour: all its pixels are equal. What a network sees of such a picture varies with the distance to its
            padding: there is nothing to segment.
        features: of the backbone [1, channels, rows, cols], on the host; None where nobody needs them.
        tau: that it is segmented at; None: the method's own.
    """

    segmenter: PictureSegmenter
    where: str
    example: Example
    is_one_colour: bool
    features: Tensor | None = None
    tau: float | None = None
    _found_tree: NCutTree | None = None

    def segmentation(self) -> Segmentation:
        return self._segmentation(self.segmenter._pipeline)

    def at(self, tau: float) -> Segmentation:
        _check_tau(tau)
        method = self.segmenter.tree_method()
        with self.segmenter._lock:
            # Whoever asks for more segments will ask again: one tree for all of these.
            tree = self._tree(method.tau if tau <= method.tau else max(tau, method.slider_end))

            def read(features: Tensor) -> Tensor:
                return tree.labels(tau).unflatten(1, features.shape[2:])

            pipeline = replace(self.segmenter._pipeline, segmenter=as_segmenter(read))
            return replace(self, tau=tau)._segmentation(pipeline)

    def hierarchy(self, max_tau: float | None) -> Hierarchy:
        method = self.segmenter.tree_method()
        with self.segmenter._lock:
            tree = self._tree(_end(method, max_tau))
        return Hierarchy.of(tree, method.tree_settings(), self.example.grid)

    def explore(self, max_tau: float | None, largest: int) -> Explorer:
        method = self.segmenter.tree_method(nested=True)
        end = _end(method, max_tau)
        with self.segmenter._lock:
            (cuts,) = self._tree(end).images
            return explore_cuts(
                self.example.eval_pixels,
                self._map()[0],
                cuts,
                self.segmenter._pipeline.protocol.similarity,
                max_tau=end,
                tau=method.tau if self.tau is None else self.tau,
                tau_meaning=method.tau_meaning,
                largest=largest,
            )

    def _segmentation(self, pipeline: Pipeline) -> Segmentation:
        return_large_blocks(self.example.label.numel() > _LARGE)  # what reading and features left
        ids = np.zeros(self.example.label.shape, dtype=np.int64)
        if not self.is_one_colour:
            with _said_if_too_long(self.where):
                ids = _contiguous(segment_images(pipeline, [self.example], self.features)[0].numpy())
        names = self.segmenter._names(self.example, ids)
        pixels = np.ascontiguousarray(self.example.eval_pixels.permute(1, 2, 0).numpy())
        return Segmentation(pixels, ids, names, self)

    @torch.inference_mode()
    def _tree(self, max_tau: float) -> NCutTree:
        """The cuts up to this tau or a greater one, on the device. A picture of one colour has none."""
        if self._found_tree is None or self._found_tree.max_tau < max_tau:
            method = self.segmenter.tree_method()
            end = max_tau if self.features is not None else 0.0
            try:
                with _said_if_too_long(self.where), time_limit(self.segmenter._config.max_seconds, [self.where]):
                    tree = method.tree(self._map(), end)
            except GraphTooLargeError as error:
                hint = "raise segmenter.max_memory_gib, or use a smaller protocol.image_size"
                raise UserError(str(error), "segmenter.max_memory_gib", hint) from error
            except ValueError as error:
                hint = "choose a tau of at least 0, or a smaller protocol.image_size"
                raise UserError(str(error), self.where, hint) from error
            self._found_tree = replace(tree, max_tau=max_tau)
        return self._found_tree

    def _map(self) -> Tensor:
        """What is cut [1, channels, rows, cols], on the device: the features, or equal patches where there are none."""
        found = torch.ones(1, 1, *self.example.grid) if self.features is None else self.features
        return found.to(self.segmenter._pipeline.features.device)


def segment(image: Picture, backbone: str | None = None, *overrides: str) -> Segmentation:
    """Segment one picture in one line. For many, build a `PictureSegmenter` once.

    Args:
        image: path, bytes of a picture file, Pillow image, array or tensor, see `PictureSegmenter`.
        backbone: option name; None: what `diffcut-bench segment` takes, ``efficientnet_lite0_blocks``.
        overrides: further Hydra overrides, such as ``"segmenter.tau=0.4"``.

    Returns:
        Segments at the picture's own resolution.

    Raises:
        UserError: an option is unknown, weights are missing, or the picture can't be read.
    """
    chosen = [] if backbone is None else [f"backbone={backbone}"]
    return PictureSegmenter([*chosen, *overrides])(image)


def _check_tau(tau: float) -> None:
    if not 0 <= tau <= 1:
        raise UserError("no threshold, which lies between 0 and 1", f"tau={tau}", "give a number such as 0.5")


def _end(method: HasTree, max_tau: float | None) -> float:
    """Tau up to which a tree is wanted; None: up to the method's ``slider_end``."""
    wanted = method.slider_end if max_tau is None else max_tau
    _check_tau(wanted)
    return max(wanted, method.tau)


@contextmanager
def _said_if_too_long(where: str) -> Iterator[None]:
    try:
        yield
    except TookTooLongError as error:
        raise UserError(f"segmenting {error}", where, "give it more time, or a smaller picture") from error


def _is_one_colour(picture: Image.Image) -> bool:
    return all(len(set(extremes)) == 1 for extremes in np.asarray(picture.getextrema()).tolist())


def _contiguous(labels: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Ids numbered from 0 in ascending order; some rows at a time, since a large picture has no room for copies."""
    numbered = np.empty(labels.shape, dtype=np.int64)
    strips, targets = (np.array_split(each, max(labels.size >> 20, 1)) for each in (labels, numbered))
    present = np.unique(np.concatenate([np.unique(strip) for strip in strips]))
    for strip, target in zip(strips, targets, strict=True):
        target[:] = np.searchsorted(present, strip)
    return numbered
