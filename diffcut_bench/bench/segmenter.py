"""Speed of the recursive cut as ratios within one run."""

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffcut_bench.bench.timing import least_times
from diffcut_bench.ncut import ncut_tree, recursive_ncut
from diffcut_bench.ncut.settings import LabelCodes, Solver
from diffcut_bench.ncut.textbook import textbook_recursive_ncut


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
        other_images: different images that theirs was run on, where that is not ``images``: ours got these, and copies.
        ari_to_dense: mean adjusted Rand index of ours to the dense solver; None where not compared.
    """

    what: str
    images: int
    segments: float | None
    ours_s: float
    other_s: float
    ratio: float
    agreement: float | None
    other_images: int | None = None
    ari_to_dense: float | None = None


@dataclass(frozen=True)
class Textbook:
    """Partitions of the first images by the textbook version, and the seconds that each took."""

    partitions: list[Tensor]
    seconds: list[float]


def textbook_within(features: Tensor, tau: float, alpha: float, seconds: float | None) -> Textbook:
    """The textbook version on one image after the other, until this many seconds have passed; at least on one."""
    partitions: list[Tensor] = []
    spent: list[float] = []
    for image in features:
        if seconds is not None and sum(spent) > seconds:
            break
        start = time.perf_counter()
        partitions.append(textbook_recursive_ncut(image, tau, alpha))  # on the host, so an accelerator is waited for
        spent.append(time.perf_counter() - start)
    return Textbook(partitions, spent)


def compare_with_textbook(
    features: Tensor,
    tau: float,
    alpha: float,
    solver: Solver = "lanczos",
    repeats: int = 2,
    textbook: Textbook | None = None,
    images: int | None = None,
) -> Comparison:
    """`recursive_ncut` of all images at once against the textbook version, one by one.

    Args:
        features: real patch features [images, nodes, channels].
        tau, alpha, solver: of the cut.
        repeats: of ours; the textbook version, which takes seconds, is run once.
        textbook: what it gave for the first of the images, which ours gets too; None: it is run on all of them.
        images: at a time, copies where there are not enough; None: each once.
    """
    textbook = textbook or textbook_within(features, tau, alpha, None)
    theirs = textbook.partitions[:images]
    theirs_s = sum(textbook.seconds[:images]) / len(theirs)
    given = features[: len(theirs)]
    count = len(given) if images is None else images
    batch = given[torch.arange(count, device=given.device) % len(given)]

    def ours() -> Tensor:
        return recursive_ncut(batch, tau, alpha, solver=solver)

    (least,) = least_times([ours], repeats, features.device)
    found = ours()
    dense = recursive_ncut(given, tau, alpha, solver="eigh")
    likeness = [adjusted_rand_index(one, dense[place % len(given)]) for place, one in enumerate(found)]
    row = _comparison(f"textbook, tau {tau:g}, alpha {alpha:g}", found[: len(given)], torch.stack(theirs), 1, 1)
    return replace(
        row,
        images=count,
        other_images=len(given),
        ours_s=least / count,
        other_s=theirs_s,
        ratio=theirs_s * count / least,
        ari_to_dense=sum(likeness) / count,
    )


def compare_tau_path(
    features: Tensor,
    taus: list[float],
    alpha: float,
    solver: Solver = "lanczos",
    repeats: int = 3,
    label_codes: LabelCodes = "exact",
) -> Comparison:
    """All taus from one tree (``other_s``) against one recursion at the largest (``ours_s``): a ratio near 1 is free.

    Args:
        features: real patch features [images, nodes, channels].
        taus: of the sweep.
        alpha, solver: of the cut.
        repeats: of each, in turns.
        label_codes: how cuts become segments.
    """
    largest = max(taus)

    def one() -> Tensor:
        return recursive_ncut(features, largest, alpha, solver=solver, label_codes=label_codes)

    def path() -> list[Tensor]:
        tree = ncut_tree(features, largest, alpha, solver=solver, label_codes=label_codes)
        return [tree.labels(tau) for tau in taus]

    times = least_times([one, path], repeats, features.device)
    what = f"{len(taus)} taus by ncut_tree, {label_codes} codes"
    return _comparison(what, one(), path()[taus.index(largest)], *times)


def adjusted_rand_index(first: Tensor, second: Tensor) -> float:
    """Agreement of two partitions [nodes] in pairs of nodes (Hubert & Arabie 1985): 1 equal, 0 as by chance."""
    clusters = int(second.max()) + 1
    table = (first.cpu() * clusters + second.cpu()).bincount(minlength=(int(first.max()) + 1) * clusters).double()
    table = table.view(-1, clusters)
    together, rows, columns = (
        (counts * (counts - 1) / 2).sum().item() for counts in (table, table.sum(dim=1), table.sum(dim=0))
    )
    chance = rows * columns / (len(first) * (len(first) - 1) / 2)
    most = (rows + columns) / 2
    return 1.0 if most == chance else (together - chance) / (most - chance)


def _comparison(what: str, ours: Tensor, other: Tensor, ours_s: float, other_s: float) -> Comparison:
    images = len(ours)
    equal = [same_partition(a, b) for a, b in zip(ours, other, strict=True)]
    return Comparison(
        what=what,
        images=images,
        segments=(ours.amax(dim=1) + 1).float().mean().item(),
        ours_s=ours_s / images,
        other_s=other_s / images,
        ratio=other_s / ours_s,
        agreement=sum(equal) / images,
    )


def same_partition(first: Tensor, second: Tensor) -> bool:
    """Equal up to renaming: as many pairs of names as names on either side."""
    first, second = first.cpu(), second.cpu()
    pairs = torch.stack([first, second]).unique(dim=1).shape[1]
    return pairs == len(first.unique()) == len(second.unique())
