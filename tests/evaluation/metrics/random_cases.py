"""Small random images with annotations: voids, empty images, one region and one segment among them."""

from collections.abc import Iterator

import numpy as np
import torch

from diffcut_bench.evaluation import ScoredImage, contingency_table

CLASSES, BACKGROUND = 5, 1


def random_maps(cases: int = 1000, largest: int = 12, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Predictions and labels [height, width]; −1 is void. Cluster numbers have gaps, and some maps are patches."""
    generator = np.random.default_rng(seed)
    for case in range(cases):
        size = generator.integers(1, largest + 1, 2)
        maps = []
        for highest in (generator.integers(1, 12), generator.integers(1, CLASSES + 1)):
            patch = generator.integers(1, 5)
            coarse = generator.integers(0, highest, -(-size // patch))
            maps.append(np.kron(coarse, np.ones((patch, patch), dtype=int))[: size[0], : size[1]])
        prediction, label = maps
        if case % 5 == 0:
            prediction = label[::-1] if case % 2 else label.copy()  # much in common
        void = generator.random(size) < (0, 0, 0.2, 0.9, 1)[case % 5]
        yield prediction, np.where(void, -1, label)


def scored(prediction: np.ndarray, label: np.ndarray) -> ScoredImage:
    """As the pipeline shows it to metrics, without boundaries."""
    maps = torch.from_numpy(prediction.copy()), torch.from_numpy(label.copy())
    return ScoredImage(*maps, contingency_table(*maps, CLASSES), background=BACKGROUND)


def renumbered(prediction: np.ndarray, seed: int = 0) -> np.ndarray:
    """The same segments under other numbers."""
    return np.random.default_rng(seed).permutation(prediction.max() + 4)[prediction]
