"""What is compared: patch labels on a common grid, the patches of each image, the pairs of images."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args, get_type_hints

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from diffcut_bench.datasets import VOID
from diffcut_bench.errors import UserError

# Scores are kept for an exact AUC: some 100 bytes a pair at the peak.
MAX_PATCH_PAIRS = 10_000_000


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """Choices that the paper leaves open; all are checked, recorded and printed with the result.

    Attributes:
        pairs: patches of two different images, of the same image, or both kinds together.
        image_pairs: at most so many pairs of images (images, under ``within``), drawn without replacement.
        patches: at most so many patches an image.
        sampling: all patches alike, or as many of each class of the image as possible.
        mixed: patches with more than one class are dropped if their purity is below ``purity``, or take the majority's
            class.
        purity: least share of the majority class in a patch's pixels, void ones among them.
        background: patches of the data set's background class are dropped, or kept as of one class.
        grid: patches along the longer side of an image.
        seed: of the draws.

    Raises:
        UserError: listing every value out of range.
    """

    pairs: Literal["across", "within", "both"] = "across"
    image_pairs: int = 1000
    patches: int = 64
    sampling: Literal["uniform", "balanced"] = "uniform"
    mixed: Literal["drop", "majority"] = "drop"
    purity: float = 1.0
    background: Literal["drop", "keep"] = "drop"
    grid: int = 32
    seed: int = 42

    def __post_init__(self) -> None:
        problems = []
        for name, kind in get_type_hints(SamplingOptions).items():
            allowed = get_args(kind)  # of a Literal
            if allowed and getattr(self, name) not in allowed:
                problems.append(f"{name} must be {' | '.join(allowed)}, not {getattr(self, name)!r}")
        for name, least in (("image_pairs", 1), ("patches", 2), ("grid", 2), ("seed", 0)):
            if getattr(self, name) < least:
                problems.append(f"{name} must be at least {least}, not {getattr(self, name)}")
        if not 0 < self.purity <= 1:
            problems.append(f"purity must be above 0 and at most 1, not {self.purity}")
        if problems:
            raise UserError("; ".join(problems), "options of coherence", "diffcut-bench coherence --help")


@dataclass(frozen=True)
class PatchGrid:
    """An image's patches.

    Attributes:
        labels: class of each patch [rows, cols], −1 where void has the most pixels.
        purity: share of that class in the patch's pixels [rows, cols].
    """

    labels: NDArray[np.int64]
    purity: NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """The patches and pairs that every backbone is measured on.

    Attributes:
        ids: images that are in a pair, ascending.
        patches: flat indices on the grid of each image's drawn patches, ascending.
        labels: classes of those patches.
        pairs: indices in ``ids`` of the images of each pair; the same twice for pairs within an image.
        same: whether each patch pair is of one class; the pairs of images one after the other.
        unit: index in ``pairs`` of each patch pair.
    """

    ids: tuple[str, ...]
    patches: tuple[NDArray[np.int64], ...]
    labels: tuple[NDArray[np.int64], ...]
    pairs: tuple[tuple[int, int], ...]
    same: NDArray[np.bool_] = field(repr=False)
    unit: NDArray[np.int32] = field(repr=False)


def grid_shape(height: int, width: int, longer: int) -> tuple[int, int]:
    """Rows and columns of the patch grid: ``longer`` along the longer side, the other by the aspect ratio."""
    scale = longer / max(height, width)
    return max(round(height * scale), 1), max(round(width * scale), 1)


def label_patches(label: NDArray[np.int64], num_classes: int, shape: tuple[int, int]) -> PatchGrid:
    """Majority class of each patch.

    Void counts as one more class: a patch that void has the most pixels of is void. Among equals the lowest class id
    wins, void last.

    Args:
        label: class ids [height, width], −1 for void.
        num_classes: of the data set.
        shape: rows and columns of the grid; a pixel belongs to the patch that holds its upper left corner.
    """
    height, width = label.shape
    rows, cols = shape
    patch = (np.arange(height) * rows // height)[:, None] * cols + (np.arange(width) * cols // width)[None, :]
    values = np.where(label == VOID, num_classes, label)
    bins = rows * cols * (num_classes + 1)
    table = np.bincount((patch * (num_classes + 1) + values).ravel(), minlength=bins).reshape(rows * cols, -1)
    majority, pixels = table.argmax(axis=1), table.sum(axis=1)
    purity = table.max(axis=1) / np.maximum(pixels, 1)
    labels = np.where((majority == num_classes) | (pixels == 0), VOID, majority)
    return PatchGrid(labels.reshape(shape), purity.reshape(shape))


def usable_patches(grid: PatchGrid, background: int | None, options: SamplingOptions) -> NDArray[np.bool_]:
    """Patches [rows, cols] that void, ``mixed`` and ``background`` leave."""
    usable: NDArray[np.bool_] = grid.labels != VOID
    if options.mixed == "drop":
        usable &= grid.purity >= options.purity
    if options.background == "drop" and background is not None:
        usable &= grid.labels != background
    return usable


def draw_patches(
    labels: NDArray[np.int64], usable: NDArray[np.bool_], image_id: str, options: SamplingOptions
) -> NDArray[np.int64]:
    """Flat indices of an image's patches, ascending; the draw depends on the image's id and the seed alone.

    ``balanced`` goes round the classes, one random patch of each a turn, until ``patches`` are drawn: a class with few
    patches gives all of them.
    """
    digest = hashlib.sha256(image_id.encode()).digest()
    generator = np.random.default_rng([options.seed, int.from_bytes(digest[:8])])
    drawn = generator.permutation(np.flatnonzero(usable))
    if options.sampling == "balanced":
        classes = labels.ravel()[drawn]
        turn = np.zeros(len(drawn), dtype=np.int64)
        for name in np.unique(classes):
            turn[classes == name] = np.arange((classes == name).sum())
        drawn = drawn[np.argsort(turn, kind="stable")]
    return np.sort(drawn[: options.patches])


def draw_pairs(ids: Sequence[str], options: SamplingOptions) -> list[tuple[str, str]]:
    """Pairs of image ids, each in ascending order; the draw depends on the set of ids and the seed alone.

    Raises:
        UserError: pairs of different images are wanted of fewer than two images.
    """
    ordered = sorted(ids)
    generator = np.random.default_rng(options.seed)
    count = len(ordered)
    if options.pairs == "within":
        chosen = np.sort(generator.permutation(count)[: options.image_pairs])
        return [(ordered[index], ordered[index]) for index in chosen]
    if count < 2:
        what = f"pairs of different images need two images, not {count}"
        raise UserError(what, f"--pairs {options.pairs}", "use --pairs within")
    total = count * (count - 1) // 2
    numbers = np.sort(generator.choice(total, size=min(options.image_pairs, total), replace=False))
    starts = np.cumsum(np.arange(count - 1, 0, -1)) - np.arange(count - 1, 0, -1)  # number of each image's first pair
    first = np.searchsorted(starts, numbers, side="right") - 1
    second = first + 1 + numbers - starts[first]
    pairs = [(ordered[a], ordered[b]) for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    if options.pairs == "both":
        pairs += [(image, image) for image in sorted({image for pair in pairs for image in pair})]
    return pairs


def make_plan(
    grids: Mapping[str, PatchGrid], pairs: Sequence[tuple[str, str]], background: int | None, options: SamplingOptions
) -> Plan:
    """Draw the patches and label their pairs.

    Args:
        grids: of each image; pairs of an image without a grid (it can't be read) are left out.
        pairs: of `draw_pairs`.
        background: the data set's background class, if it has one.
        options: the choices.

    Raises:
        UserError: no pair of the same class or none of different classes, or more than `MAX_PATCH_PAIRS`.
    """
    drawn = {
        image: draw_patches(grid.labels, usable_patches(grid, background, options), image, options)
        for image, grid in sorted(grids.items())
    }
    left = [(a, b) for a, b in pairs if len(drawn.get(a, ())) and len(drawn.get(b, ()))]
    ids = tuple(sorted({image for pair in left for image in pair}))
    position = {image: number for number, image in enumerate(ids)}
    patches = tuple(drawn[image] for image in ids)
    labels = tuple(grids[image].labels.ravel()[drawn[image]] for image in ids)
    kept = tuple((position[a], position[b]) for a, b in left)
    sizes = [len(labels[a]) * (len(labels[a]) - 1) // 2 if a == b else len(labels[a]) * len(labels[b]) for a, b in kept]
    if sum(sizes) > MAX_PATCH_PAIRS:
        what = f"{sum(sizes)} patch pairs are more than {MAX_PATCH_PAIRS}"
        where = f"--image-pairs {options.image_pairs} --patches {options.patches}"
        raise UserError(what, where, "lower one of the two: images, not patch pairs, make the figure certain")
    same = [np.zeros(0, dtype=np.bool_)]
    for a, b in kept:  # in the order of `pair_scores`
        table = labels[a][:, None] == labels[b]
        same.append(table[np.triu_indices(len(table), 1)] if a == b else table.ravel())
    joined = np.concatenate(same)
    if joined.all() or not joined.any():
        missing = "different classes" if len(joined) and joined.all() else "the same class"
        what = f"no pair of patches of {missing} among {len(joined)} pairs"
        choices = f"background={options.background}, mixed={options.mixed}, purity={options.purity:g}"
        hint = "take more images, or --background keep, --mixed majority or --pairs both"
        raise UserError(what, f"{len(ids)} images, {choices}", hint)
    return Plan(ids, patches, labels, kept, joined, np.repeat(np.arange(len(kept), dtype=np.int32), sizes))


def grid_features(
    features: Float[Tensor, "channels _ _"], shape: tuple[int, int]
) -> Float[Tensor, "channels rows cols"]:
    """A backbone's feature map on the common grid: each patch is the mean of the feature cells that it touches.

    Where the two grids are equal this is the feature map itself; on a finer common grid, neighbouring patches share
    a feature.
    """
    return adaptive_avg_pool2d(features, shape)
