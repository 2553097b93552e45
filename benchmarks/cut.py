"""The recursive cut: the textbook version on real features, and many taus from one tree."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks.timing import timed
from diffcut_bench.ncut import ncut_tree, recursive_ncut
from diffcut_bench.ncut.settings import LabelCodes, Solver
from diffcut_bench.ncut.textbook import textbook_recursive_ncut


@dataclass(frozen=True)
class Comparison:
    """One row: two ways to the same result, timed after each other on the same features and threads.

    Attributes:
        what: what ours is compared with.
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


@dataclass(frozen=True)
class Textbook:
    """Partitions of the first images by the textbook version, and the seconds that each took."""

    partitions: list[Tensor]
    seconds: list[float]


def textbook_within(features: Tensor, tau: float, alpha: float, seconds: float | None = None) -> Textbook:
    """The textbook version on one image after the other, until this many seconds have passed; at least on one.

    Args:
        features: patch features [images, nodes, channels].
        tau, alpha: of the cut.
        seconds: after which no further image is begun; None: all of them.
    """
    book = Textbook([], [])
    for image in features:
        if seconds is not None and sum(book.seconds) > seconds:
            break
        (one,) = timed([partial(textbook_recursive_ncut, image, tau, alpha)], 1, features.device)
        book.partitions.append(one.result)
        book.seconds.append(one.least)
    return book


def compare_tau_path(
    features: Tensor,
    taus: Sequence[float],
    alpha: float,
    solver: Solver = "lanczos",
    label_codes: LabelCodes = "exact",
    repeats: int = 3,
) -> Comparison:
    """All taus from one tree (``other_s``) against one recursion at the largest (``ours_s``): a ratio near 1 is free.

    Args:
        features: real patch features [images, nodes, channels].
        taus: of the sweep.
        alpha, solver: of the cut.
        label_codes: how cuts become segments.
        repeats: of each, in turns.
    """
    largest, images = max(taus), len(features)

    def one() -> Tensor:
        return recursive_ncut(features, largest, alpha, solver=solver, label_codes=label_codes)

    def path() -> list[Tensor]:
        tree = ncut_tree(features, largest, alpha, solver=solver, label_codes=label_codes)
        return [tree.labels(tau) for tau in taus]

    ours, other = timed([one, path], repeats, features.device)
    return Comparison(
        what=f"{len(taus)} taus by ncut_tree, {label_codes} codes",
        images=images,
        segments=mean_segments(ours.result),
        ours_s=ours.least / images,
        other_s=other.least / images,
        ratio=other.least / ours.least,
        agreement=share_equal(ours.result, other.result[taus.index(largest)]),
    )


def mean_segments(partitions: Tensor) -> float:
    """Mean number of segments of partitions [images, nodes], ids contiguous from 0."""
    return (partitions.amax(dim=1) + 1).float().mean().item()


def share_equal(first: Sequence[Tensor] | Tensor, second: Sequence[Tensor] | Tensor) -> float:
    """Share of partitions [nodes] that are the same up to renaming: of as many as there are in the second."""
    return sum(same_partition(one, other) for one, other in zip(first, second, strict=False)) / len(second)


def same_partition(first: Tensor, second: Tensor) -> bool:
    """Equal up to renaming: as many pairs of names as names on either side."""
    first, second = first.cpu(), second.cpu()
    pairs = torch.stack([first, second]).unique(dim=1).shape[1]
    return pairs == len(first.unique()) == len(second.unique())
