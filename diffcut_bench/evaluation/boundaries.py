"""Pixels on and near the boundaries between regions, counted for a batch at once where the images are."""

from typing import NamedTuple

from jaxtyping import Int
from torch import Tensor


class BoundaryCounts(NamedTuple):
    """Pixels on and near boundaries of one image against one annotator's labels, on the host.

    Attributes:
        predicted: pixels on a predicted boundary.
        predicted_near: those of them that are near an annotated boundary, whichever annotator's.
        annotated: pixels on an annotated boundary.
        annotated_near: those of them that are near a predicted boundary.
        bands: pixels of each class and cluster that lie in the bands of both.
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
