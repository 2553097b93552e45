"""One marked patch, and where in its own and another image the features look like it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from diffcut_bench.coherence.roc import cosine
from diffcut_bench.coherence.sampling import PatchGrid, SamplingOptions, usable_patches
from diffcut_bench.errors import UserError

_AREA = 0.2  # share of the image that the marked object has, ideally: neither a speck nor the whole picture


@dataclass(frozen=True)
class Mark:
    """A patch and the image that it is looked for in.

    Attributes:
        first: id of the image with the patch.
        second: id of the other image.
        row, col: of the patch on the common grid, from 0 at the top left.
        label: its class; −1 for void.
    """

    first: str
    second: str
    row: int
    col: int
    label: int


def choose_mark(grids: Mapping[str, PatchGrid], background: int | None, options: SamplingOptions) -> Mark | None:
    """A patch deep inside an object whose class two images have; None if no class is in two.

    The class and the two images are those whose shares of usable patches of the class are nearest to a fifth; ties go
    to the lower class, then the lower ids. The patch is the one farthest from the object's edge in the first image.
    """
    shares: dict[int, list[tuple[float, str]]] = {}
    for image, grid in sorted(grids.items()):
        labels = grid.labels[usable_patches(grid, background, options)]
        for name, count in zip(*np.unique(labels, return_counts=True), strict=True):
            shares.setdefault(int(name), []).append((abs(count / grid.labels.size - _AREA), image))
    candidates = [
        (found[0][0] + found[1][0], name, found[0][1], found[1][1])
        for name, found in sorted((name, sorted(images)) for name, images in shares.items())
        if len(found) > 1
    ]
    if not candidates:
        return None
    _, name, first, second = min(candidates)
    return Mark(first, second, *deepest_patch(grids[first].labels == name), name)


def mark_between(
    first: str,
    second: str,
    grids: Mapping[str, PatchGrid],
    background: int | None,
    options: SamplingOptions,
    patch: tuple[int, int] | None,
) -> Mark:
    """The mark for two images that the user chose, at the user's patch or at one chosen as by `choose_mark`.

    Raises:
        UserError: the patch is outside the grid, or the images share no class to choose a patch of.
    """
    labels = grids[first].labels
    if patch is not None:
        rows, cols = labels.shape
        if not (0 <= patch[0] < rows and 0 <= patch[1] < cols):
            what = f"patch {patch[0]},{patch[1]} is outside the grid of {rows}×{cols} patches of {first}"
            raise UserError(what, "--mark", f"choose a row from 0 to {rows - 1} and a column from 0 to {cols - 1}")
        return Mark(first, second, *patch, int(labels[patch]))
    both = {image: grids[image] for image in (first, second)}
    mark = choose_mark(both, background, options) if first != second else None
    if mark is None:
        what = f"{first} and {second} share no class to mark a patch of"
        raise UserError(what, "--mark-images", "add --mark ROW,COL")
    return Mark(first, second, *deepest_patch(labels == mark.label), mark.label)


def deepest_patch(region: NDArray[np.bool_]) -> tuple[int, int]:
    """Row and column of the patch of a region [rows, cols] that is farthest from its edge; the first among equals."""
    depth = distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    row, col = np.unravel_index(int(depth.argmax()), region.shape)
    return int(row), int(col)


def similarity_map(
    query: Float[Tensor, " channels"], features: Float[Tensor, "channels rows cols"]
) -> NDArray[np.float32]:
    """Cosine similarity [rows, cols] of one patch's feature with every patch."""
    scores: NDArray[np.float32] = cosine(query[None], features.flatten(1).T)[0].cpu().numpy()
    return scores.reshape(features.shape[1:])
