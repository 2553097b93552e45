"""Grids larger than the paper's: memory, refusal, the coarse-to-fine cut."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import blobs, same_partition
from torch.nn.functional import normalize
from torchmetrics.functional.clustering import adjusted_rand_score

from diffcut_bench.ncut import (
    CoarseGrid,
    GraphTooLargeError,
    NCutSettings,
    coarse_to_fine_ncut,
    ncut_trees,
    needed_gib,
    recursive_ncut,
)
from diffcut_bench.ncut.affinity import cosine_range, unit_features


def planted_map(rows: int, cols: int, channels: int = 16, noise: float = 0.02) -> tuple[torch.Tensor, torch.Tensor]:
    """A map [1, channels, rows, cols] of four quarters and a disc, whose edges follow no grid, and its truth."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
    truth = 2 * (y > 0.43 * rows).long() + (x > 0.61 * cols).long()
    truth[(y - 0.5 * rows) ** 2 + (x - 0.4 * cols) ** 2 < (0.2 * min(rows, cols)) ** 2] = 4
    centres = normalize(torch.randn(5, channels, generator=generator), dim=1)
    features = centres[truth] + noise * torch.randn(rows, cols, channels, generator=generator)
    return features.permute(2, 0, 1)[None], truth


def test_an_image_that_does_not_fit_is_refused_with_an_estimate():
    features = torch.rand(1, 5000, 2)
    with pytest.raises(GraphTooLargeError, match=r"5000 patches needs about 0\.2 GiB.*takes 0\.1 GiB.*is 0\.1"):
        recursive_ncut(features, max_memory_gib=0.1)


def test_the_refusal_allocates_nothing():
    with pytest.raises(GraphTooLargeError, match=r"1000000 patches"):  # W: 3.6 TiB
        recursive_ncut(torch.rand(1, 1_000_000, 2))


def test_the_dense_solver_is_estimated_dearer():
    assert needed_gib(16384, 4) == 2
    assert needed_gib(16384, 4, cuts=3) == 3
    assert needed_gib(16384, 4, "eigh") > 4


def test_pairs_that_do_not_fit_together_are_cut_one_by_one():
    features = torch.cat([blobs(5, 20, noise=0.2, seed=seed)[0] for seed in range(2)])
    together = ncut_trees(features, [(0.9, 5), (0.8, 9)], NCutSettings())
    alone = ncut_trees(features, [(0.9, 5), (0.8, 9)], NCutSettings(max_memory_gib=1e-9))
    for tree, other in zip(together, alone, strict=True):
        assert len(other.images) == 2
        # Not finer: noise alone holds ties, which the shape of a batch decides.
        assert torch.equal(tree.labels(0.5), other.labels(0.5))


def test_range_of_cosines_in_tiles_is_that_of_the_matrix():
    unit = unit_features(torch.randn(1, 300, 7, dtype=torch.float64))[0]
    cosines = unit @ unit.T
    for tile in (1, 64, 300, 1000):
        least, most = cosine_range(unit, tile)
        assert torch.allclose(least, cosines.min())
        assert torch.allclose(most, cosines.max())


@pytest.mark.parametrize(("rows", "cols"), [(64, 64), (50, 71)])
def test_coarse_to_fine_is_the_exact_partition_of_planted_features(rows, cols):
    features, truth = planted_map(rows, cols)
    exact = recursive_ncut(features.flatten(2).mT, 0.5, 10, zero_affinity="keep")[0]
    assert same_partition(exact, truth)
    coarse = coarse_to_fine_ncut(features, 0.5, 10, coarse_patches=1100, zero_affinity="keep")[0]
    assert coarse.shape == (rows, cols)
    assert adjusted_rand_score(coarse.flatten(), exact) >= 0.99


def test_refining_beats_enlarging_the_cells():
    features, truth = planted_map(60, 60)
    grid = CoarseGrid.of(features, 400)
    (tree,) = grid.trees([(0.5, 10)], NCutSettings(zero_affinity="keep"))
    cells = tree.labels(0.5).unflatten(1, grid.shape)[0]
    enlarged = cells.repeat_interleave(grid.side, 0).repeat_interleave(grid.side, 1)
    refined = grid.refine(tree.labels(0.5))[0]

    def score(partition: torch.Tensor) -> float:
        return adjusted_rand_score(partition.flatten(), truth.flatten()).item()

    assert score(refined) > score(enlarged)


def test_cells_are_means_of_cosines():
    features = torch.randn(1, 5, 6, 6, dtype=torch.float64)
    grid = CoarseGrid.of(features, 9)
    assert (grid.side, grid.shape) == (2, (3, 3))
    unit = normalize(features[0], dim=0).flatten(1)
    cosines = unit.T @ unit
    scaled = ((cosines - cosines.min()) / (cosines.max() - cosines.min())).view(3, 2, 3, 2, 3, 2, 3, 2)
    assert torch.allclose(next(grid._cosines(1, 1))[0], scaled.mean((1, 3, 5, 7)).view(9, 9))


def test_small_maps_are_exact_and_batches_are_their_images():
    features = torch.rand(3, 6, 9, 7)
    exact = recursive_ncut(features.flatten(2).mT, 0.8, 6).view(3, 9, 7)
    assert torch.equal(coarse_to_fine_ncut(features, 0.8, 6), exact)
    batch = coarse_to_fine_ncut(features, 0.8, 6, coarse_patches=20)
    for image, labels in enumerate(batch):
        assert torch.equal(coarse_to_fine_ncut(features[image : image + 1], 0.8, 6, coarse_patches=20)[0], labels)
        assert torch.equal(labels.unique(), torch.arange(int(labels.max()) + 1))


@pytest.mark.parametrize("fill", [0.0, 0.37])
def test_maps_without_contrast_are_one_segment(fill):
    assert coarse_to_fine_ncut(torch.full((1, 4, 20, 20), fill), 0.9, 10, coarse_patches=50).max() == 0


def test_coarse_to_fine_names_what_is_wrong():
    with pytest.raises(ValueError, match="coarse_patches"):
        coarse_to_fine_ncut(torch.rand(1, 3, 8, 8), coarse_patches=0)
    with pytest.raises(ValueError, match="tau"):
        coarse_to_fine_ncut(torch.rand(1, 3, 8, 8), tau=2, coarse_patches=4)
    features = torch.rand(1, 3, 8, 8)
    features[0, 0, 2, 3] = torch.nan
    with pytest.raises(ValueError, match="at patch 19"):
        coarse_to_fine_ncut(features, coarse_patches=4)


PEAK = """
import sys, torch
from pathlib import Path
from diffcut_bench.ncut import coarse_to_fine_ncut, recursive_ncut
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 2**20
generator = torch.Generator().manual_seed(0)
side = int(sys.argv[2])
small = torch.randn(1, 64, 9, 9, generator=generator)
features = torch.nn.functional.interpolate(small, size=(side, side), mode="bilinear")
features += 0.1 * torch.randn(features.shape, generator=generator)
torch.rand(500, 500) @ torch.rand(500, 500)
before = peak()
if sys.argv[1] == "exact":
    recursive_ncut(features.flatten(2).mT, 0.5, 5)
else:
    coarse_to_fine_ncut(features, 0.5, 5, coarse_patches=1024)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
@pytest.mark.parametrize(
    ("way", "side", "limit_gib"), [("exact", 80, needed_gib(80**2, 4) * 1.25), ("coarse", 160, 0.25)]
)
def test_peak_memory_is_what_was_estimated(way, side, limit_gib):
    """80×80: W takes 0.15 GiB; 160×160, whose W would take 2.4 GiB, is cut coarsely."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PEAK, way, str(side)]
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert float(finished.stdout) < limit_gib
