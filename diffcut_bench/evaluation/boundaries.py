"""Pixels on and near the boundaries between regions, counted for a batch at once where the images are.

Pixels that are left out (void) belong to no region, and there is no boundary between them and a region. What they lie
between may be one: a pixel's neighbours are the next scored pixels in its row and in its column, over as much void as
lies within reach of both. So the strips of void that VOC draws round its objects are boundaries, and wide ones are
not.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int, Integer
from torch import Tensor

BAND = 0.02  # of the diagonal, Cheng et al. 2021
_AT_ONCE = 1 << 18  # pixels that a processor's cache holds with all that is made of them


class BoundaryCounts(NamedTuple):
    """Pixels on and near boundaries of one image against one annotator's labels, on the host.

    Attributes:
        predicted: pixels on a predicted boundary.
        predicted_near: those of them that are near an annotated boundary, whichever annotator's.
        annotated: pixels on an annotated boundary.
        annotated_near: those of them that are near a predicted boundary.
        bands: pixels of each class and cluster that lie in the bands of both; with the two below empty where
            bands were not asked for.
        class_bands: pixels of each class in its band.
        cluster_bands: pixels of each cluster in its band.
    """

    predicted: int
    predicted_near: int
    annotated: int
    annotated_near: int
    bands: Int[Tensor, "classes clusters"]
    class_bands: Int[Tensor, " classes"]
    cluster_bands: Int[Tensor, " clusters"]


def reach_of(size: Sequence[int]) -> int:
    """How far from a boundary its band goes and a hit may lie: 2 % of the image's diagonal, a pixel at least.

    Args:
        size: height and width in pixels.
    """
    return max(1, round(BAND * (size[0] ** 2 + size[1] ** 2) ** 0.5))


def count_boundaries(
    prediction: Integer[Tensor, "batch height width"],
    labels: Integer[Tensor, "batch annotators height width"],
    classes: int,
    clusters: int,
    with_bands: bool = True,
) -> list[list[BoundaryCounts]]:
    """Pixels on boundaries and in bands, of each image and annotator, in one copy to the host.

    A pixel is on a boundary if one of its neighbours is of another segment or region: the next scored pixels in its row
    and column, see above, and the four diagonal ones. It is near a boundary if a pixel on it is at most `reach_of`
    pixels away, in chessboard distance. The band of a region is its pixels up to this distance from other regions, as
    in Cheng et al. (Boundary IoU, CVPR 2021), whose band is also drawn along the edge of the image; here that edge is
    no boundary.

    Args:
        prediction: cluster ids from 0 to ``clusters`` − 1.
        labels: ids from 0 to ``classes`` − 1, −1 for pixels that are left out. An annotator with such pixels alone has
            counts of 0.
        classes, clusters: of which the bands are counted.
        with_bands: otherwise the bands' counts are empty.
    """
    pixels = labels[:1].numel()
    at_once = max(_AT_ONCE // pixels, 1) if labels.device.type == "cpu" else len(labels)
    parts = zip(prediction.split(at_once), labels.split(at_once), strict=True)
    found = torch.cat([_count_there(*part, classes, clusters, with_bands) for part in parts]).cpu().long()
    return [[_split(row, classes, clusters) for row in of_image] for of_image in found]


def _count_there(prediction: Tensor, labels: Tensor, classes: int, clusters: int, with_bands: bool) -> Tensor:
    """Everything that `_split` takes apart [batch, annotators, numbers], where the images are."""
    # Ids from 1 in as few bytes as hold them, 0 for void: batch, annotators, annotated and predicted, height, width.
    dtype = torch.uint8 if max(classes, clusters) < 256 else torch.int32
    scored = ~labels.clamp_max(0).to(dtype)[:, :, None]  # all bits or none
    maps = torch.stack([labels.to(dtype), prediction.to(dtype)[:, None].expand(labels.shape)], dim=2).add_(1)
    maps &= scored
    reach = reach_of(maps.shape[-2:])
    on = _boundary(maps, scored, reach)
    within = _spread(on, reach - 1)
    near_annotated, near_predicted = _spread(within, 1).unbind(2)
    near = torch.stack([near_predicted, near_annotated.any(dim=1, keepdim=True).expand_as(near_predicted)], dim=2)
    lines = torch.stack([on, on & near], dim=3).flatten(-2).sum(dim=-1, dtype=torch.int32).flatten(2)
    bands = [_count_bands(maps, within, classes, clusters)] if with_bands else []
    return torch.cat([lines, *bands], dim=2)


def _boundary(
    maps: Integer[Tensor, "*batch 2 height width"], scored: Integer[Tensor, "*batch 1 height width"], reach: int
) -> Bool[Tensor, "*batch 2 height width"]:
    """Pixels with a neighbour of another id; those of 0 are none and have none.

    All in bitwise operations, which are quick on bytes: two ids differ in any bit.
    """
    bits = _differences_in_line(maps, scored, reach, -1) | _differences_in_line(maps, scored, reach, -2)
    for first, second in ((slice(None, -1), slice(1, None)), (slice(1, None), slice(None, -1))):
        one, other = (..., slice(None, -1), first), (..., slice(1, None), second)
        differ = (maps[one] ^ maps[other]) & (scored[one] & scored[other])
        bits[one] |= differ
        bits[other] |= differ
    return (bits & scored).bool()


def _differences_in_line(maps: Tensor, scored: Tensor, reach: int, dim: int) -> Tensor:
    """Bits in which pixels differ from the next scored pixels on both sides, at most 2 × ``reach`` away; others where
    a pixel is void itself.

    First and last id of windows that double until they are that wide.
    """
    wide, size = 2 * reach, maps.shape[dim]
    padding = [wide, wide] if dim == -1 else [0, 0, wide, wide]
    first = last = torch.nn.functional.pad(maps, padding)
    empty = ~torch.nn.functional.pad(scored, padding)
    width = 1
    while width < wide:
        step = min(width, wide - width)
        (first, next_first), (last, next_last), (empty, next_empty) = (
            _halves(windows, step, dim) for windows in (first, last, empty)
        )
        first, last, empty = first | next_first & empty, next_last | last & next_empty, empty & next_empty
        width += step
    before, none_before = (windows.narrow(dim, 0, size) for windows in (last, empty))
    after, none_after = (windows.narrow(dim, wide + 1, size) for windows in (first, empty))
    return (before ^ maps) & ~none_before | (after ^ maps) & ~none_after


def _spread(marks: Bool[Tensor, "*batch height width"], distance: int) -> Bool[Tensor, "*batch height width"]:
    """Pixels within a chessboard distance of a mark: windows that double until they are wide enough."""
    marks = torch.nn.functional.pad(marks, [distance] * 4)
    for dim in (-2, -1):
        width = 1
        while width < 2 * distance + 1:
            step = min(width, 2 * distance + 1 - width)
            one, other = _halves(marks, step, dim)
            marks = one | other
            width += step
    return marks


def _halves(windows: Tensor, step: int, dim: int) -> tuple[Tensor, Tensor]:
    """Each window, and the one that is ``step`` further."""
    size = windows.shape[dim] - step
    return windows.narrow(dim, 0, size), windows.narrow(dim, step, size)


def _count_bands(maps: Tensor, within: Tensor, classes: int, clusters: int) -> Tensor:
    """Of each image and annotator the pixels of each class and cluster in both bands, then of each class and of each
    cluster in its own [batch, annotators, classes · clusters + classes + clusters]."""
    batch, annotators = maps.shape[:2]
    annotated, predicted = within.unbind(2)
    label, cluster = maps.unbind(2)
    # For each image and annotator a table of the pixels in no band, in the cluster's, in the class's, and in both; a
    # row and a column for void.
    size = torch.Size((batch, annotators, 4, 1 + classes, 1 + clusters))
    first = 4 * torch.arange(batch * annotators, dtype=torch.int32, device=maps.device).view(batch, annotators, 1, 1)
    cells = first + (2 * annotated.byte() + predicted.byte())
    cells = cells.mul_(1 + classes).add_(label).mul_(1 + clusters).add_(cluster).flatten().long()
    counts = torch.zeros(size.numel(), dtype=torch.int32, device=maps.device)
    counts = counts.scatter_add_(0, cells, counts.new_ones(()).expand(cells.numel())).view(size)[..., 1:, 1:]
    of_classes, of_clusters = counts[:, :, 2:].sum(dim=(2, 4)), counts[:, :, 1::2].sum(dim=(2, 3))
    return torch.cat([counts[:, :, 3].flatten(2), of_classes, of_clusters], dim=2).int()


def _split(row: Tensor, classes: int, clusters: int) -> BoundaryCounts:
    """The counts of an image and annotator in the order in which they came over."""
    annotated, annotated_near, predicted, predicted_near = row[:4].tolist()
    if len(row) == 4:
        classes = clusters = 0
    bands, of_classes, of_clusters = row[4:].split([classes * clusters, classes, clusters])
    return BoundaryCounts(
        predicted, predicted_near, annotated, annotated_near, bands.view(classes, clusters), of_classes, of_clusters
    )
