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


class BoundaryCounts(NamedTuple):
    """Pixels on and near boundaries of one image against one annotator's labels, on the host.

    Attributes:
        predicted: pixels on a predicted boundary.
        predicted_near: those of them that are near an annotated boundary, whichever annotator's.
        annotated: pixels on an annotated boundary.
        annotated_near: those of them that are near a predicted boundary.
        bands: pixels of each class and cluster that lie in the bands of both; without a column or row where tables were
            not asked for.
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
    table_size: tuple[int, int] = (0, 0),
) -> list[list[BoundaryCounts]]:
    """Pixels on boundaries and in bands, of each image and annotator, in one copy to the host.

    A pixel is on a boundary if one of its neighbours is of another segment or region: the next scored pixels in its row
    and column, see above, and the four diagonal ones. It is near a boundary if a pixel on it is at most `reach_of`
    pixels away, in chessboard distance. The band of a region are its pixels up to this distance from other regions, as
    in Cheng et al. (Boundary IoU, CVPR 2021), whose band is also drawn along the edge of the image; here that edge is
    no boundary.

    Args:
        prediction: cluster ids from 0.
        labels: class ids, −1 for pixels that are left out. An annotator with such pixels alone has counts of 0.
        table_size: classes and clusters that the bands are counted for.
    """
    known = labels >= 0
    maps = torch.stack([labels, prediction[:, None].expand_as(labels)], dim=2).int()
    maps = maps.where(known[:, :, None], -1)  # batch, annotators, annotated and predicted, height, width
    reach = reach_of(maps.shape[-2:])
    on = _boundary(maps, reach)
    within = _spread(on, reach - 1)
    near = _spread(within, 1)
    near = torch.stack([near[:, :, 0].any(dim=1, keepdim=True).expand_as(known), near[:, :, 1]], dim=2)
    near = on & near.flip(2)
    lines = torch.stack([on, near], dim=3).sum(dim=(-2, -1), dtype=torch.int32)
    bands = _count_bands(maps, within, *table_size)
    found = torch.cat([lines.flatten(2), bands], dim=2).cpu().long()
    return [[_split(row, *table_size) for row in of_image] for of_image in found]


class Annotations(NamedTuple):
    """Segments that several people drew, and their boundaries: the same for every prediction.

    Attributes:
        labels: segment ids, −1 for pixels that are left out.
        on: pixels on a boundary.
        near: pixels near one, whichever annotator's [batch, 1, height, width].
        whole: no pixel of an annotator is left out, unless all of his are (there are fewer of that image).
    """

    labels: Int[Tensor, "batch annotators height width"]
    on: Bool[Tensor, "batch annotators height width"]
    near: Bool[Tensor, "batch 1 height width"]
    whole: bool

    @classmethod
    def of(cls, labels: Int[Tensor, "batch annotators height width"], whole: bool = False) -> "Annotations":
        """Labels with their boundaries."""
        reach = reach_of(labels.shape[-2:])
        on = _boundary(labels.int(), reach)
        return cls(labels, on, _spread(on.any(dim=1, keepdim=True), reach), whole)


def count_near_annotations(
    prediction: Integer[Tensor, "batch height width"], annotated: Annotations
) -> list[list[BoundaryCounts]]:
    """`count_boundaries` without bands, of annotations whose boundaries are known: for many predictions of an image."""
    maps, reach = prediction[:, None].int(), reach_of(prediction.shape[-2:])
    if not annotated.whole:
        maps = maps.expand_as(annotated.labels).where(annotated.labels >= 0, -1)
    on = _boundary(maps, reach)
    marks = [annotated.on, annotated.on & _spread(on, reach), on, on & annotated.near]
    lines = [each.sum(dim=(-2, -1), dtype=torch.int32).expand(annotated.on.shape[:2]) for each in marks]
    return [[_split(row, 0, 0) for row in of_image] for of_image in torch.stack(lines, dim=2).cpu().long()]


def _boundary(maps: Int[Tensor, "*batch height width"], reach: int) -> Bool[Tensor, "*batch height width"]:
    """Pixels with a neighbour of another id; those of −1 are none and have none."""
    on = _differs_in_row(maps, reach) | _differs_in_row(maps.mT, reach).mT
    for first, second in ((slice(None, -1), slice(1, None)), (slice(1, None), slice(None, -1))):
        one, other = maps[..., :-1, first], maps[..., 1:, second]
        differ = (one != other) & (torch.minimum(one, other) >= 0)
        on[..., :-1, first] |= differ
        on[..., 1:, second] |= differ
    return on


def _differs_in_row(maps: Int[Tensor, "*batch height width"], reach: int) -> Bool[Tensor, "*batch height width"]:
    """Pixels that differ from the next scored pixel to the left or right, at most 2 × ``reach`` pixels away."""
    columns = torch.arange(maps.shape[-1], device=maps.device)
    far = -2 * reach - 1
    known = maps >= 0
    scored = columns.where(known, far).cummax(dim=-1).values
    left = torch.nn.functional.pad(scored[..., :-1], (1, 0), value=far)
    left = left.where(known & (columns - left <= 2 * reach), columns)  # a pixel without one is compared with itself
    differs = maps.gather(-1, left) != maps
    also_of_left = torch.zeros_like(differs, dtype=torch.uint8).scatter_reduce_(-1, left, differs.byte(), "amax")
    return differs | also_of_left.bool()


def _spread(marks: Bool[Tensor, "*batch height width"], distance: int) -> Bool[Tensor, "*batch height width"]:
    """Pixels within a chessboard distance of a mark: windows that double until they are wide enough."""
    marks = torch.nn.functional.pad(marks, [distance] * 4)
    for dim in (-2, -1):
        width = 1
        while width < 2 * distance + 1:
            step = min(width, 2 * distance + 1 - width)
            size = marks.shape[dim] - step
            marks = marks.narrow(dim, 0, size) | marks.narrow(dim, step, size)
            width += step
    return marks


def _count_bands(maps: Tensor, within: Tensor, classes: int, clusters: int) -> Tensor:
    """Of each image and annotator the pixels of each class and cluster in both bands, then of each class and of each
    cluster in its own [batch, annotators, classes · clusters + classes + clusters]."""
    batch, annotators = maps.shape[:2]
    if not classes:
        return maps.new_zeros(batch, annotators, 0)
    in_bands = within & (maps >= 0)
    label, predicted = maps.clamp_min(0).unbind(2)
    # For each image a table of the pixels in no band, in the cluster's, in the class's, in both.
    table = (
        in_bands[:, :, 0] * 2
        + in_bands[:, :, 1]
        + 4 * torch.arange(batch * annotators, device=maps.device).view(batch, annotators, 1, 1)
    )
    cells = ((table * classes + label) * clusters + predicted).flatten()
    counts = maps.new_zeros(batch * annotators * 4 * classes * clusters)
    counts.scatter_add_(0, cells, counts.new_ones(()).expand(cells.numel()))
    of_kinds = counts.view(batch, annotators, 4, classes, clusters)
    of_classes, of_clusters = of_kinds[:, :, 2:].sum(dim=(2, 4)), of_kinds[:, :, 1::2].sum(dim=(2, 3))
    return torch.cat([of_kinds[:, :, 3].flatten(2), of_classes, of_clusters], dim=2).int()


def _split(row: Tensor, classes: int, clusters: int) -> BoundaryCounts:
    """The counts of an image and annotator in the order in which they came over."""
    annotated, annotated_near, predicted, predicted_near = row[:4].tolist()
    bands, of_classes, of_clusters = row[4:].split([classes * clusters, classes, clusters])
    return BoundaryCounts(
        predicted, predicted_near, annotated, annotated_near, bands.view(classes, clusters), of_classes, of_clusters
    )
