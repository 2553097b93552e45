"""Recursive Normalized Cut: bipartition until the least NCut reaches tau. Knows tensors only.

One recursion at the largest tau answers every smaller one (`tree`); `levels` makes it for all images of a batch.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, TypeGuard

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffcut_bench.ncut.affinity import scaled_cosines
from diffcut_bench.ncut.fiedler import Solver
from diffcut_bench.ncut.levels import cut_recursively
from diffcut_bench.ncut.memory import check_fits, needed_gib
from diffcut_bench.ncut.tree import ImageTree, LabelCodes, NCutTree

ZeroAffinity = Literal["drop", "keep"]

# On a processor matrices are multiplied faster in few at a time that its caches hold than in many.
_CACHED_ENTRIES = 1 << 21


def ncut_tree(
    features: Float[Tensor, "batch nodes channels"],
    max_tau: float = 0.9,
    alpha: float = 10,
    *,
    solver: Solver = "lanczos",
    zero_affinity: ZeroAffinity = "drop",
    label_codes: LabelCodes = "exact",
    splitting_points: int = 100,
    max_memory_gib: float = 4,
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
        max_memory_gib: working memory. Images are taken together as far as it allows; one takes two N×N matrices.

    Returns:
        The tree; ``tree.labels(tau)`` gives a partition.

    Raises:
        ValueError: an argument is out of range, or the features hold NaN or infinity.
        GraphTooLargeError: one image needs more than ``max_memory_gib``.
    """
    (tree,) = ncut_trees(
        features,
        [(max_tau, alpha)],
        solver=solver,
        zero_affinity=zero_affinity,
        label_codes=label_codes,
        splitting_points=splitting_points,
        max_memory_gib=max_memory_gib,
    )
    return tree


def ncut_trees(
    features: Float[Tensor, "batch nodes channels"],
    settings: Sequence[tuple[float, float]],
    *,
    solver: Solver = "lanczos",
    zero_affinity: ZeroAffinity = "drop",
    label_codes: LabelCodes = "exact",
    splitting_points: int = 100,
    max_memory_gib: float = 4,
) -> list[NCutTree]:
    """A tree for each pair of ``max_tau`` and ``alpha``, from one cosine matrix an image.

    Args:
        features: patch features of each image.
        settings: pairs of greatest tau and alpha.
        solver, zero_affinity, label_codes, splitting_points, max_memory_gib: see `ncut_tree`.

    Raises:
        ValueError: an argument is out of range, or the features hold NaN or infinity.
        GraphTooLargeError: one image needs more than ``max_memory_gib``.
    """
    check_features(features)
    if features.dtype not in (torch.float32, torch.float64):
        features = features.float()
    n = features.shape[1]

    def graphs(at_once: int, cached: int) -> Iterator[Tensor]:
        for group in features.split(at_once):
            yield _scaled_cosines(group, cached)

    return cut_graphs(
        graphs,
        n,
        features,
        settings,
        solver=solver,
        zero_affinity=zero_affinity,
        label_codes=label_codes,
        splitting_points=splitting_points,
        max_memory_gib=max_memory_gib,
    )


def cut_graphs(
    graphs: Callable[[int, int], Iterator[Tensor]],
    nodes: int,
    like: Tensor,
    settings: Sequence[tuple[float, float]],
    *,
    solver: Solver,
    zero_affinity: ZeroAffinity,
    label_codes: LabelCodes,
    splitting_points: int,
    max_memory_gib: float,
) -> list[NCutTree]:
    """A tree for each pair of ``max_tau`` and ``alpha``.

    Args:
        graphs: given how many images to take together, and how many of them a processor's caches hold, iterates over
            their scaled cosines [images, nodes, nodes], which are overwritten.
        nodes: of a graph.
        like: a tensor of their dtype and device.
        settings, solver, zero_affinity, label_codes, splitting_points, max_memory_gib: see `ncut_trees`.

    Raises:
        ValueError: an argument is out of range.
        GraphTooLargeError: one image needs more than ``max_memory_gib``.
    """
    for max_tau, alpha in settings:
        check_arguments(max_tau, alpha, solver, zero_affinity, label_codes, splitting_points)
    check_fits(nodes, like.element_size(), solver, max_memory_gib)
    entries = int(max_memory_gib * 2**30 / like.element_size())
    batch = entries // 8 if like.device.type != "cpu" else min(entries // 8, _CACHED_ENTRIES)
    images: list[list[ImageTree]] = [[] for _ in settings]
    fit = needed_gib(nodes, like.element_size(), solver, len(settings)) <= max_memory_gib
    for places in [range(len(settings))] if fit else [[place] for place in range(len(settings))]:
        for cosines in graphs(max(entries // 2 // nodes**2, 1), max(batch // nodes**2, 1)):
            for place in places:
                max_tau, alpha = settings[place]
                weights = cosines.pow_(alpha) if place == places[-1] else cosines.pow(alpha)
                images[place] += cut_recursively(
                    weights, max_tau, solver, zero_affinity == "drop", splitting_points, batch
                )
                del weights
            del cosines
    return [NCutTree(trees, max_tau, label_codes) for trees, (max_tau, _) in zip(images, settings, strict=True)]


def _scaled_cosines(
    features: Float[Tensor, "batch nodes channels"], at_once: int
) -> Float[Tensor, "batch nodes nodes"]:
    """`scaled_cosines` of a few images at a time, whose matrices a processor's caches hold through its passes."""
    if at_once >= len(features):
        return scaled_cosines(features)
    cosines = features.new_empty(*features.shape[:2], features.shape[1])
    for part, group in zip(cosines.split(at_once), features.split(at_once), strict=True):
        part.copy_(scaled_cosines(group))
    return cosines


def recursive_ncut(
    features: Float[Tensor, "batch nodes channels"],
    tau: float = 0.5,
    alpha: float = 10,
    *,
    solver: Solver = "lanczos",
    zero_affinity: ZeroAffinity = "drop",
    label_codes: LabelCodes = "exact",
    splitting_points: int = 100,
    max_memory_gib: float = 4,
) -> Int[Tensor, "batch nodes"]:
    """Segments of DiffCut: recursive Normalized Cut of the patch graph (Couairon et al., NeurIPS 2024, section 3.2).

    Args:
        features: patch features of each image.
        tau: a sub-graph is cut while its least NCut is below tau, in [0, 1]; greater gives more segments.
        alpha: exponent of the affinity, > 0.
        solver, zero_affinity, label_codes, splitting_points, max_memory_gib: see `ncut_tree`.

    Returns:
        Segment ids, contiguous from 0 within each image; their numbering carries no meaning.

    Raises:
        ValueError: an argument is out of range, or the features hold NaN or infinity.
        GraphTooLargeError: one image needs more than ``max_memory_gib``.

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
        max_memory_gib=max_memory_gib,
    )
    return tree.labels(tau)


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


def check_features(features: Tensor) -> None:
    """Raise a ValueError for features [batch, nodes, channels] that are none, or hold NaN or infinity."""
    if features.ndim != 3 or not features.shape[0] or not features.shape[1]:
        raise ValueError(f"features must be [batch >= 1, nodes >= 1, channels], not {list(features.shape)}")
    if not torch.isfinite(features).all():
        bad = (~torch.isfinite(features)).any(dim=2).nonzero()[0].tolist()
        raise ValueError(f"features hold NaN or infinity, first in image {bad[0]} of the batch at patch {bad[1]}")
