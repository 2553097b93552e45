"""Planted objects, textbook helpers and invariants that the tests of several segmenters share."""

from collections.abc import Callable

import numpy as np
import torch
from conftest import same_partition
from numpy.typing import NDArray
from torchmetrics.functional.clustering import adjusted_rand_score

from diffcut_bench.segmenters import MaskCut, TokenCut

SIDES = (6, 5, 4)


def planted(blobs: int, seed: int = 0, size: int = 16) -> tuple[torch.Tensor, NDArray[np.int64]]:
    """Features [1, 8, size, size] and truth (0: ground) of separated squares of unlike directions on a plain ground."""
    truth = np.zeros((size, size), dtype=np.int64)
    for number, (row, col) in enumerate([(1, 1), (9, 2), (3, 10)][:blobs]):
        truth[row : row + SIDES[number], col : col + SIDES[number]] = number + 1
    centres = np.eye(blobs + 1, 8)
    centres[:, : blobs + 1] -= 1 / (blobs + 1)  # a simplex: every two of them at the same obtuse angle
    noise = np.random.default_rng(seed).normal(0, 0.03, (size, size, 8))
    return torch.tensor(centres[truth] + noise, dtype=torch.float32).permute(2, 0, 1)[None], truth


def random_features(count: int, seed: int, rows: int = 9, cols: int = 11) -> torch.Tensor:
    """Smooth random maps [count, 6, rows, cols]: neighbours are alike, as in pictures."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 6, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(rows, cols), mode="bicubic")
    return smooth + 0.1 * torch.randn(smooth.shape, generator=generator)


def adjusted_rand(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """Adjusted Rand index of two partitions."""
    return adjusted_rand_score(*(torch.from_numpy(ids).flatten() for ids in (first, second))).item()


def check_order_and_batches(segmenter: Callable[[torch.Tensor], torch.Tensor], features: torch.Tensor) -> None:
    """Each map is segmented as it is alone, from 0 without gaps, and the order of its patches does not matter."""
    labels = segmenter(features)
    for image, partition in zip(features, labels, strict=True):
        assert torch.equal(segmenter(image[None])[0], partition)
        assert partition.unique().tolist() == list(range(int(partition.max()) + 1))
    patches, size = features.flatten(2), features.shape[2:]
    order = torch.randperm(patches.shape[2], generator=torch.Generator().manual_seed(1))
    shuffled = segmenter(patches[:, :, order].unflatten(2, size)).flatten(1)
    assert all(same_partition(a, b[order]) for a, b in zip(shuffled, labels.flatten(1), strict=True))


def flood(mask: NDArray[np.bool_], seed: int) -> NDArray[np.bool_]:
    """The patches that are reached from the seed over sides, inside of the mask."""
    found = np.zeros_like(mask)
    reached = [divmod(seed, mask.shape[1])]
    while reached:
        row, col = reached.pop()
        inside = 0 <= row < mask.shape[0] and 0 <= col < mask.shape[1]
        if inside and mask[row, col] and not found[row, col]:
            found[row, col] = True
            reached += [(row + 1, col), (row - 1, col), (row, col + 1), (row, col - 1)]
    return found


def cosines(nodes: torch.Tensor) -> NDArray[np.float32]:
    """Of every two patches [nodes, channels]."""
    unit = torch.nn.functional.normalize(nodes.float(), dim=1)
    return (unit @ unit.T).numpy()


TURNS = (lambda x: x.flip(-1), lambda x: x.flip(-2), lambda x: x.transpose(-1, -2))


def alike(features: torch.Tensor) -> torch.Tensor:
    """The same maps with a direction that all patches share, so strong that every cosine is above 0.5."""
    shared = torch.full_like(features[:, :1], 2 * float(features.norm(dim=1).max()))
    return torch.cat([features, shared], dim=1)


def threshold(nodes: torch.Tensor, segmenter: MaskCut | TokenCut) -> float:
    """Cosine above which patches [nodes, channels] are joined: given, or by sorting those of all pairs."""
    if segmenter.tau_quantile is None:
        return segmenter.tau
    matrix = cosines(nodes)
    pairs = sorted(float(matrix[i, j]) for i in range(len(nodes)) for j in range(i))
    below = int(segmenter.tau_quantile * len(pairs))
    return (pairs[below - 1] + pairs[below]) / 2
