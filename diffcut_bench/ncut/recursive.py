"""Recursive Normalized Cut: bipartition until the least NCut reaches tau. Knows tensors only.

One recursion at the largest tau answers every smaller one (`tree`); `levels` makes it for all images of a batch.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffcut_bench.ncut.affinity import scaled_cosines
from diffcut_bench.ncut.arguments import check_features
from diffcut_bench.ncut.fiedler import solver_on
from diffcut_bench.ncut.levels import cut_recursively
from diffcut_bench.ncut.memory import check_fits, needed_gib
from diffcut_bench.ncut.settings import LabelCodes, NCutSettings, Solver, ZeroAffinity, check_tau_and_alpha
from diffcut_bench.ncut.tree import ImageTree, NCutTree

# On a processor matrices are multiplied faster in few at a time that its caches hold than in many.
_CACHED_ENTRIES = 1 << 21


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

    `textbook` has the method on one screen.

    Args:
        features: patch features of each image; half precision is computed in float32.
        tau: a sub-graph is cut while its least NCut is below tau, in [0, 1]; greater gives more segments.
        alpha: exponent of the affinity, > 0.
        solver, zero_affinity, label_codes, splitting_points, max_memory_gib: see `NCutSettings`.

    Returns:
        Segment ids, contiguous from 0 within each image; their numbering carries no meaning.

    Raises:
        ValueError: an argument is out of range, or the features hold NaN or infinity.
        GraphTooLargeError: one image needs more than ``max_memory_gib``.

    >>> import torch
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
    """One recursion that answers every tau up to ``max_tau``: ``tree.labels(tau)`` gives a partition.

    Args:
        features, alpha, solver, zero_affinity, label_codes, splitting_points, max_memory_gib: as of `recursive_ncut`,
            whose errors these are as well.
        max_tau: greatest tau, in [0, 1].
    """
    settings = NCutSettings(
        solver=solver,
        zero_affinity=zero_affinity,
        label_codes=label_codes,
        splitting_points=splitting_points,
        max_memory_gib=max_memory_gib,
    )
    (tree,) = ncut_trees(features, [(max_tau, alpha)], settings)
    return tree


def ncut_trees(
    features: Float[Tensor, "batch nodes channels"], pairs: Sequence[tuple[float, float]], settings: NCutSettings
) -> list[NCutTree]:
    """A tree for each pair of ``max_tau`` and ``alpha``, from one cosine matrix an image.

    Args:
        features: as of `recursive_ncut`, whose errors these are as well.
        pairs: greatest tau and alpha of each tree.
        settings: of all.
    """
    features = check_features(features)

    def cosines(at_once: int, cached: int) -> Iterator[Tensor]:
        for group in features.split(at_once):
            yield _scaled_cosines(group, cached)

    return cut_graphs(cosines, features.shape[1], features, pairs, settings)


def cut_graphs(
    cosines: Callable[[int, int], Iterator[Tensor]],
    nodes: int,
    like: Tensor,
    pairs: Sequence[tuple[float, float]],
    settings: NCutSettings,
) -> list[NCutTree]:
    """A tree for each pair of ``max_tau`` and ``alpha``.

    Args:
        cosines: given how many images to take together, and how many of them a processor's caches hold, iterates over
            their scaled cosines [images, nodes, nodes], which are overwritten.
        nodes: of a graph.
        like: a tensor of their dtype and device.
        pairs, settings: see `ncut_trees`.

    Raises:
        ValueError: a tau or an alpha is out of range.
        GraphTooLargeError: one image needs more than ``settings.max_memory_gib``.
    """
    for max_tau, alpha in pairs:
        check_tau_and_alpha(max_tau, alpha)
    limit_gib, element_size = settings.max_memory_gib, like.element_size()
    solver = solver_on(like.device, settings.solver)
    check_fits(nodes, element_size, solver, limit_gib)
    entries = int(limit_gib * 2**30 / element_size)
    batch_entries = entries // 8 if like.device.type != "cpu" else min(entries // 8, _CACHED_ENTRIES)
    at_once, cached = max(entries // 2 // nodes**2, 1), max(batch_entries // nodes**2, 1)
    images: list[list[ImageTree]] = [[] for _ in pairs]
    # All pairs share the cosines where a copy of these fits beside W. Otherwise each pair has them computed anew.
    share = needed_gib(nodes, element_size, solver, len(pairs)) <= limit_gib
    for group in [range(len(pairs))] if share else [range(pair, pair + 1) for pair in range(len(pairs))]:
        with _exact_products(like.device):
            for scaled in cosines(at_once, cached):
                for pair in group:
                    max_tau, alpha = pairs[pair]
                    # The last pair of a group needs no copy: its W takes the place of the cosines.
                    weights = scaled.pow_(alpha) if pair == group[-1] else scaled.pow(alpha)
                    images[pair] += cut_recursively(weights, max_tau, settings, batch_entries)
                    del weights  # before the next one is made
                del scaled
    return [NCutTree(trees, max_tau, settings.label_codes) for trees, (max_tau, _) in zip(images, pairs, strict=True)]


@contextmanager
def _exact_products(device: torch.device) -> Iterator[None]:
    """Within, products are of the numbers given, neither TF32 nor autocast's: eigenvectors need all their digits."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


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
