"""Recursive Normalized Cut: bipartition until the least NCut reaches tau. Knows tensors only.

One recursion at the largest tau answers every smaller one: a bipartition does not depend on tau, and a cut made at
tau is made at every larger tau. `ncut_tree` therefore keeps each cut with its cost, `recursive_ncut` reads one tau.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeGuard

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffcut_bench.ncut.affinity import affinity
from diffcut_bench.ncut.bipartition import best_bipartition
from diffcut_bench.ncut.fiedler import Solver, fiedler_vector

ZeroAffinity = Literal["drop", "keep"]
LabelCodes = Literal["exact", "float32"]


@dataclass(frozen=True)
class ImageTree:
    """The cuts of one image in depth-first order: a cut, the sub-tree of its ``y > threshold`` side, that of the other.

    Attributes:
        costs: NCut of each cut.
        parents: index of the cut that made the sub-graph which this one divides; -1 for the root.
        sides: for each cut, the patches on its ``y > threshold`` side (False: on the other, or not in its sub-graph).
    """

    costs: Float[Tensor, " cuts"]
    parents: list[int]
    sides: Bool[Tensor, "cuts nodes"]

    @cached_property
    def reached_at(self) -> Float[Tensor, " cuts"]:
        """The recursion makes a cut at every tau above this: the greatest cost among it and the cuts that led to it."""
        reached: list[float] = []
        for cost, parent in zip(self.costs.tolist(), self.parents, strict=True):
            reached.append(cost if parent < 0 else max(cost, reached[parent]))
        return torch.tensor(reached, dtype=self.costs.dtype, device=self.costs.device)

    @cached_property
    def _ranked_sides(self) -> Int[Tensor, "cuts nodes"]:
        """Number of the cut (from 1) where a patch is on its first side, 0 elsewhere."""
        return self.sides * torch.arange(1, len(self.sides) + 1, dtype=torch.int32, device=self.sides.device)[:, None]

    def labels(self, tau: float, label_codes: LabelCodes = "exact") -> Int[Tensor, " nodes"]:
        """Segment of each patch at ``tau``, contiguous from 0."""
        made = self.reached_at < tau
        if label_codes == "float32":
            codes = _float32_codes(self.sides[made])
        else:
            # Equal bit strings over all cuts = the same last cut whose first side holds the patch.
            uncut = torch.zeros(1, self.sides.shape[1], dtype=torch.int32, device=self.sides.device)
            codes = torch.cat([uncut, self._ranked_sides[made]]).amax(dim=0)
        return codes.unique(return_inverse=True)[1]


def _float32_codes(sides: Bool[Tensor, "cuts nodes"]) -> Float[Tensor, " nodes"]:
    """The released code's segment codes: sums of bits in float32, which round from about 24 cuts on (PAPER.md)."""
    code = torch.zeros(sides.shape[1], dtype=torch.float32, device=sides.device)
    step = torch.ones((), dtype=torch.float32, device=sides.device)
    for side in sides:
        code = code + step * side
        step = code.max() + 1
    return code.nan_to_num(nan=-1.0, posinf=torch.inf)  # every NaN is one segment there


@dataclass(frozen=True)
class NCutTree:
    """The recursion of a batch of images at ``max_tau``; `labels` reads any smaller tau from it.

    Attributes:
        images: one `ImageTree` an image.
        max_tau: the threshold that the recursion ran at.
        label_codes: how bit strings over the cuts become segments.
    """

    images: list[ImageTree]
    max_tau: float
    label_codes: LabelCodes = "exact"

    def labels(self, tau: float) -> Int[Tensor, "batch nodes"]:
        """Segments at ``tau``: equal to ``recursive_ncut(…, tau=tau)``.

        Args:
            tau: NCut threshold, 0 <= tau <= ``max_tau``.

        Returns:
            Segment ids, contiguous from 0 within each image; their numbering carries no meaning.

        Raises:
            ValueError: ``tau`` is above ``max_tau``, where the tree has no answer.
        """
        if not 0 <= tau <= self.max_tau:
            raise ValueError(f"this tree answers 0 <= tau <= {self.max_tau}, not {tau}")
        return torch.stack([tree.labels(tau, self.label_codes) for tree in self.images])


def ncut_tree(
    features: Float[Tensor, "batch nodes channels"],
    max_tau: float = 0.9,
    alpha: float = 10,
    *,
    solver: Solver = "lanczos",
    zero_affinity: ZeroAffinity = "drop",
    label_codes: LabelCodes = "exact",
    splitting_points: int = 100,
) -> NCutTree:
    """One recursion that answers every tau up to ``max_tau``.

    Args:
        features: patch features of each image; half precision is computed in float32.
        max_tau: greatest NCut at which a sub-graph is still cut, in [0, 1].
        alpha: exponent of the affinity, > 0.
        solver: see `fiedler_vector`.
        zero_affinity: ``drop``: below the root a patch with an affinity of exactly 0 takes no part in further cuts
            (the released computation); ``keep``: every patch stays in its sub-graph.
        label_codes: ``exact``: patches share a segment if they lie on the same side of every cut; ``float32``: the
            released code's rounding sums of bits, which merge segments from about 24 cuts on.
        splitting_points: thresholds tried for each cut.

    Returns:
        The tree; ``tree.labels(tau)`` gives a partition.

    Raises:
        ValueError: an argument is out of range, or the features hold NaN or infinity.
    """
    check_arguments(max_tau, alpha, solver, zero_affinity, label_codes, splitting_points)
    _check_features(features)
    if features.dtype not in (torch.float32, torch.float64):
        features = features.float()
    trees = []
    for image in features:  # one image's graph at a time bounds the memory
        weights = affinity(image[None], alpha)[0]
        trees.append(_recurse(weights, max_tau, solver, zero_affinity == "drop", splitting_points))
    return NCutTree(trees, max_tau, label_codes)


def recursive_ncut(
    features: Float[Tensor, "batch nodes channels"],
    tau: float = 0.5,
    alpha: float = 10,
    *,
    solver: Solver = "lanczos",
    zero_affinity: ZeroAffinity = "drop",
    label_codes: LabelCodes = "exact",
    splitting_points: int = 100,
) -> Int[Tensor, "batch nodes"]:
    """Segments of DiffCut: recursive Normalized Cut of the patch graph (Couairon et al., NeurIPS 2024, section 3.2).

    Args:
        features: patch features of each image.
        tau: a sub-graph is cut while its least NCut is below tau, in [0, 1]; greater gives more segments.
        alpha: exponent of the affinity, > 0.
        solver, zero_affinity, label_codes, splitting_points: see `ncut_tree`.

    Returns:
        Segment ids, contiguous from 0 within each image; their numbering carries no meaning.

    Raises:
        ValueError: an argument is out of range, or the features hold NaN or infinity.

    >>> features = torch.eye(2).repeat_interleave(3, dim=0)  # six patches of two kinds
    >>> recursive_ncut(features[None], tau=0.5, alpha=10).unique(return_counts=True)
    (tensor([0, 1]), tensor([3, 3]))
    """
    tree = ncut_tree(
        features,
        tau,
        alpha,
        solver=solver,
        zero_affinity=zero_affinity,
        label_codes=label_codes,
        splitting_points=splitting_points,
    )
    return tree.labels(tau)


def _recurse(
    weights: Float[Tensor, "nodes nodes"], max_tau: float, solver: Solver, drop_zeros: bool, splitting_points: int
) -> ImageTree:
    n, device = len(weights), weights.device
    alive = (weights > 0).all(dim=1) if drop_zeros else torch.ones(n, dtype=torch.bool, device=device)
    costs: list[Tensor] = []
    parents: list[int] = []
    sides: list[Tensor] = []
    # Open sub-graphs: their patches, their affinities, the cut they come from. A stack, since depth may reach n.
    pending = [(torch.arange(n, device=device), weights, -1)]
    del weights
    while pending:
        patches, sub_weights, parent = pending.pop()
        if len(patches) < 2:
            continue
        degree = sub_weights.sum(dim=1)
        indicator = fiedler_vector(sub_weights, degree, solver)
        cost, above = best_bipartition(sub_weights, degree, indicator, splitting_points)
        if not cost < max_tau:
            continue
        side = torch.zeros(n, dtype=torch.bool, device=device)
        side[patches] = above
        for local in (~above, above):  # the y > threshold side is popped first: depth-first order
            keep = (local & alive[patches]).nonzero().squeeze(1)
            pending.append((patches[keep], sub_weights[keep][:, keep], len(costs)))
        costs.append(cost)
        parents.append(parent)
        sides.append(side)
    if not costs:
        return ImageTree(torch.zeros(0, device=device), [], torch.zeros(0, n, dtype=torch.bool, device=device))
    return ImageTree(torch.stack(costs), parents, torch.stack(sides))


def check_arguments(
    tau: object, alpha: object, solver: object, zero_affinity: object, label_codes: object, splitting_points: object
) -> None:
    """Raise a ValueError that names the first argument of `recursive_ncut` that is out of range."""
    if not _is_number(tau) or not 0 <= tau <= 1:
        raise ValueError(f"tau must lie in [0, 1], not {tau!r}")
    if not _is_number(alpha) or not 0 < alpha < math.inf:
        raise ValueError(f"alpha must be positive and finite, not {alpha!r}")
    if not isinstance(splitting_points, int) or splitting_points < 1:
        raise ValueError(f"splitting_points must be a whole number of at least 1, not {splitting_points!r}")
    for name, value, allowed in (
        ("solver", solver, ("lanczos", "eigh")),
        ("zero_affinity", zero_affinity, ("drop", "keep")),
        ("label_codes", label_codes, ("exact", "float32")),
    ):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_features(features: Tensor) -> None:
    if features.ndim != 3 or not features.shape[0] or not features.shape[1]:
        raise ValueError(f"features must be [batch >= 1, nodes >= 1, channels], not {list(features.shape)}")
    if not torch.isfinite(features).all():
        bad = (~torch.isfinite(features)).any(dim=2).nonzero()[0].tolist()
        raise ValueError(f"features hold NaN or infinity, first in image {bad[0]} of the batch at patch {bad[1]}")
