"""MaskCut: objects one after another, each a bipartition of the graph without those found before."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import scipy.ndimage
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from diffcut_bench.ncut import fiedler_vector
from diffcut_bench.ncut.arguments import as_nodes, check_choice, check_count, check_number
from diffcut_bench.segmenters.objects import (
    as_partition,
    binary_affinity,
    check_graph,
    component,
    images_at_once,
    lapack_fiedler_vector,
    thresholds,
    unused_threshold,
)

Sign = Literal["lapack", "peak"]

_CORNERS_OF_GROUND = 3


@dataclass(frozen=True)
class MaskCut:
    """MaskCut of CutLER (Wang et al., CVPR 2023), without its CRF; each mask is a segment, what is left another.

    Round by round: the second eigenvector v of the binary affinity graph is cut at its mean. The foreground is the
    side of the greatest |v|; of it the connected component of that patch is the candidate. If three corners of the
    image or more lie on the side ``v > mean``, that side is the ground: the other one is the foreground, its seed the
    least v. A candidate that overlaps the mask of the round before, or is small, is dropped (not in the first round);
    the features of the others are zeroed for the next round. After a dropped round the mask before is empty, so the
    same candidate comes again and only its size counts.

    The corner rule looks at one side, so the sign of v, which no equation fixes, decides whether it is applied. The
    released code takes the sign that LAPACK happens to leave.

    Args:
        masks: rounds, the greatest number of objects. More of them never change the earlier masks, and those after
            the last object cost nothing.
        tau: patches of greater cosine are joined by an edge of weight 1.
        eps: weight of all other edges.
        max_iou: a candidate of greater IoU with the mask before is dropped.
        min_area: a candidate of at most this share of the patches is dropped.
        fill_holes: patches enclosed by a finished mask join it; where masks meet, earlier ones win.
        eigenvector_sign: ``lapack``: as released, by LAPACK's dense solver; ``peak``: the entry of greatest magnitude
            is positive, so that the corner rule always holds; by Lanczos, which is many times faster.
        tau_quantile: take the place of ``tau`` by the cosine above which the rest of the image's pairs of patches lies,
            the same in all rounds: 0.6 joins the 40 % of pairs that are most alike. For features whose cosines are
            nearly all above (or below) any fixed ``tau``. None, as published: ``tau`` is the same in all images.

    Raises:
        ValueError: an argument is out of range.
    """

    masks: int = 5
    tau: float = 0.15
    eps: float = 1e-5
    max_iou: float = 0.5
    min_area: float = 0.01
    fill_holes: bool = False
    eigenvector_sign: Sign = "lapack"
    tau_quantile: float | None = None

    def __post_init__(self) -> None:
        check_count("masks", self.masks, 1)
        check_graph(self.tau, self.eps, self.tau_quantile)
        check_number("max_iou", self.max_iou, 0, 1)
        check_number("min_area", self.min_area, 0, 1)
        check_choice("eigenvector_sign", self.eigenvector_sign, get_args(Sign))

    @property
    def immaterial(self) -> tuple[str, ...]:
        return unused_threshold(self.tau_quantile)

    def __call__(self, features: Float[Tensor, "batch channels rows cols"]) -> Int[Tensor, "batch rows cols"]:
        """Partition of each feature map: its masks, and the background."""
        found = [as_partition(masks) for masks in self._found(features)]
        return torch.stack(found).to(features.device, non_blocking=True)

    def find_masks(self, features: Float[Tensor, "batch channels rows cols"]) -> Bool[Tensor, "batch masks rows cols"]:
        """Masks in the order they are found, each without the patches of earlier ones; empty where one was dropped.

        Raises:
            ValueError: the features hold NaN or infinity.
        """
        rows, cols = features.shape[2:]
        found = self._found(features)
        masks = np.zeros((len(found), self.masks, rows, cols), dtype=np.bool_)
        for image, own in zip(masks, found, strict=True):
            image[: len(own)] = own
        return torch.from_numpy(masks).to(features.device, non_blocking=True)

    def _found(self, features: Float[Tensor, "batch channels rows cols"]) -> list[NDArray[np.bool_]]:
        """Masks [rounds, rows, cols] of each image, up to the round after which there are no more."""
        nodes = as_nodes(features)
        # On the CPU an image at a time: it stays in the caches.
        together = 1 if nodes.device.type == "cpu" else images_at_once(nodes.shape[1])
        groups = [self._masks_together(group, *features.shape[2:]) for group in nodes.split(together)]
        return [masks for group in groups for masks in group]

    def _masks_together(
        self, nodes: Float[Tensor, "batch nodes channels"], rows: int, cols: int
    ) -> list[NDArray[np.bool_]]:
        """Masks [rounds, rows, cols] of each image: each round finds the candidates of all images that want one."""
        images = [self._masks(rows, cols) for _ in nodes]
        found = [np.zeros((0, rows, cols), dtype=np.bool_) for _ in nodes]
        tau = thresholds(nodes, self.tau, self.tau_quantile)
        wanted = {number: next(image) for number, image in enumerate(images)}
        while wanted:
            numbers, left = list(wanted), torch.from_numpy(np.stack(list(wanted.values())))
            left = left.to(nodes.device, non_blocking=True).flatten(1)[:, :, None]
            chosen, own_tau = (nodes, tau) if len(numbers) == len(nodes) else (nodes[numbers], tau[numbers])
            for number, candidate in zip(numbers, self._candidates(chosen * left, own_tau, rows, cols), strict=True):
                try:
                    wanted[number] = images[number].send(candidate)
                except StopIteration as end:
                    found[number] = end.value
                    del wanted[number]
        return found

    def _masks(self, rows: int, cols: int) -> Generator[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        """Rounds of one image: gives the patches [rows, cols] that are left, is sent the most salient object of them,
        and returns the masks [rounds, rows, cols]."""
        masks: list[NDArray[np.bool_]] = []
        covered, previous = np.zeros((2, rows, cols), dtype=np.bool_)
        candidate = yield ~covered
        for number in range(self.masks):
            if number and previous.any():
                candidate = yield ~covered
            if number and candidate.mean() <= self.min_area:
                break  # nothing is zeroed any more, so all later rounds end the same
            dropped = number and _iou(candidate, previous) > self.max_iou
            previous = np.zeros_like(candidate) if dropped else candidate
            masks.append(previous & ~covered)
            covered |= previous
            if covered.all() or not (dropped or masks[-1].any()):
                break  # a candidate of zeroed patches alone changes nothing: it would come again and again
        return np.stack([scipy.ndimage.binary_fill_holes(mask) for mask in masks] if self.fill_holes else masks)

    def _candidates(
        self, nodes: Float[Tensor, "batch nodes channels"], tau: Float[Tensor, "batch 1 1"], rows: int, cols: int
    ) -> list[NDArray[np.bool_]]:
        """The most salient object of each graph [rows, cols]."""
        weights = binary_affinity(nodes, tau, self.eps)
        if self.tau_quantile is not None:  # a threshold below 0 would join the zeroed patches to all others
            zeroed = (nodes == 0).all(dim=2)
            weights.masked_fill_(zeroed[:, :, None] | zeroed[:, None], self.eps)
        if self.eigenvector_sign == "lapack" or nodes.shape[1] < 2:
            vectors = [lapack_fiedler_vector(each) for each in weights.cpu().numpy()]
        else:
            vectors = list(fiedler_vector(weights, weights.sum(dim=2)).cpu().numpy())
        return [self._salient(vector, rows, cols) for vector in vectors]

    def _salient(self, vector: NDArray[np.float64], rows: int, cols: int) -> NDArray[np.bool_]:
        """The object that a second eigenvector shows [rows, cols]."""
        foreground = (vector > vector.mean()).reshape(rows, cols)
        corners = foreground[[0, 0, -1, -1], [0, -1, 0, -1]].sum()
        if corners >= _CORNERS_OF_GROUND or not foreground.flat[np.abs(vector).argmax()]:
            foreground, vector = ~foreground, -vector
        return component(foreground, int(vector.argmax()))


def _iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    return float((first & second).sum() / (first | second).sum())
