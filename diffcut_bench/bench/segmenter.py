"""Speed of the recursive cut as ratios within one run."""

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from diffcut_bench.bench.textbook import textbook_recursive_ncut
from diffcut_bench.ncut import ncut_tree, recursive_ncut
from diffcut_bench.ncut.fiedler import Solver


@dataclass(frozen=True)
class Comparison:
    """One row: two ways to the same result, timed after each other on the same features and threads.

    Attributes:
        what: what ours (one `recursive_ncut` at the largest tau) is compared with.
        images: number of images timed.
        segments: mean segments an image; None where nothing is segmented.
        ours_s, other_s: seconds an image, the least of the repeats.
        ratio: ``other_s / ours_s``.
        agreement: share of images whose results are equal (partitions: up to renaming); None where not compared.
    """

    what: str
    images: int
    segments: float | None
    ours_s: float
    other_s: float
    ratio: float
    agreement: float | None


def compare_with_textbook(
    features: Tensor, tau: float, alpha: float, solver: Solver = "lanczos", repeats: int = 2
) -> Comparison:
    """`recursive_ncut` against the textbook version.

    Args:
        features: real patch features [images, nodes, channels].
        tau, alpha, solver: of the cut.
        repeats: of each, in turns.
    """

    def ours() -> Tensor:
        return recursive_ncut(features, tau, alpha, solver=solver)

    def textbook() -> Tensor:
        return torch.stack([textbook_recursive_ncut(image, tau, alpha) for image in features])

    times = least_times([ours, textbook], repeats)
    return _comparison(f"textbook, tau {tau:g}, alpha {alpha:g}", ours(), textbook(), *times)


def compare_tau_path(
    features: Tensor, taus: list[float], alpha: float, solver: Solver = "lanczos", repeats: int = 3
) -> Comparison:
    """All taus from one tree (``other_s``) against one recursion at the largest (``ours_s``): a ratio near 1 is free.

    Args:
        features: real patch features [images, nodes, channels].
        taus: of the sweep.
        alpha, solver: of the cut.
        repeats: of each.
    """
    largest = max(taus)

    def one() -> Tensor:
        return recursive_ncut(features, largest, alpha, solver=solver)

    def path() -> list[Tensor]:
        tree = ncut_tree(features, largest, alpha, solver=solver)
        return [tree.labels(tau) for tau in taus]

    times = least_times([one, path], repeats)
    return _comparison(f"{len(taus)} taus by ncut_tree", one(), path()[taus.index(largest)], *times)


def as_record(comparisons: list[Comparison]) -> dict[str, object]:
    """The comparisons and the machine they ran on, for JSON."""
    return {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        },
        "comparisons": [asdict(comparison) for comparison in comparisons],
    }


def least_times(works: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Least seconds of each, taken in turns, so that a busy moment of the machine does not hit one alone."""
    least = [float("inf")] * len(works)
    for _ in range(repeats):
        for place, work in enumerate(works):
            start = time.perf_counter()
            work()
            least[place] = min(least[place], time.perf_counter() - start)
    return least


def _comparison(what: str, ours: Tensor, other: Tensor, ours_s: float, other_s: float) -> Comparison:
    images = len(ours)
    equal = [_same_partition(a, b) for a, b in zip(ours, other, strict=True)]
    return Comparison(
        what=what,
        images=images,
        segments=(ours.amax(dim=1) + 1).float().mean().item(),
        ours_s=ours_s / images,
        other_s=other_s / images,
        ratio=other_s / ours_s,
        agreement=sum(equal) / images,
    )


def _same_partition(first: Tensor, second: Tensor) -> bool:
    """Equal up to renaming: as many pairs of names as names on either side."""
    pairs = torch.stack([first, second]).unique(dim=1).shape[1]
    return pairs == len(first.unique()) == len(second.unique())
