"""The recursive cut on the pretended accelerator: partitions are the CPU's, on golden features the released ones."""

import numpy as np
import pytest
import torch
from conftest import blobs, same_partition
from device_runs import compare, computed_there, renumbered

from benchmarks.pretended import DEVICE
from diffcut_bench.ncut import NCutSettings, coarse_to_fine_ncut, ncut_tree, ncut_trees, recursive_ncut
from diffcut_bench.segmenters import DiffCut

TAUS = (0.0, 0.3, 0.5, 0.8)


def batch(images: int = 3, groups: int = 6, size: int = 20) -> torch.Tensor:
    """Features of images that differ, with structure, so that no two cuts tie."""
    return torch.cat([blobs(groups, size, noise=0.15, seed=seed)[0] for seed in range(images)])


@pytest.mark.parametrize("solver", ["lanczos", "eigh"])
@pytest.mark.parametrize("zero_affinity", ["drop", "keep"])
@pytest.mark.parametrize("label_codes", ["exact", "float32"])
def test_partitions_are_the_hosts(accelerator, solver, zero_affinity, label_codes):
    switches = {"solver": solver, "zero_affinity": zero_affinity, "label_codes": label_codes}
    features = batch()
    counts = compare(accelerator, renumbered(lambda given: recursive_ncut(given, 0.7, 6, **switches)), features)
    assert counts.kernels.total() > 0
    assert computed_there(counts, features)


@pytest.mark.parametrize("size", [1, 2, 10, 26, 52, 150])
def test_graphs_of_every_size_are_solved_there(accelerator, size):
    features, truth = blobs(5, size)
    labels = recursive_ncut(features.to(DEVICE), 0.5, 10, zero_affinity="keep").cpu()
    assert same_partition(labels[0], recursive_ncut(features, 0.5, 10, zero_affinity="keep")[0])
    assert size < 10 or same_partition(labels[0], truth)


def test_one_patch_is_one_segment(accelerator):
    assert recursive_ncut(torch.ones(2, 1, 4, device=DEVICE), 0.5, 10).tolist() == [[0], [0]]


@pytest.mark.parametrize("label_codes", ["exact", "float32"])
def test_labels_of_a_tree_are_the_hosts_at_any_tau(accelerator, label_codes):
    def labels(features):
        tree = ncut_tree(features, 0.8, 6)
        return [tree.labels(tau, label_codes) for tau in TAUS]

    features = batch()
    assert computed_there(compare(accelerator, renumbered(labels), features), features)


def test_trees_of_several_settings_are_the_hosts(accelerator):
    def labels(features):
        pairs = [(0.5, 4.0), (0.7, 6.0)]
        trees = ncut_trees(features, pairs, NCutSettings())
        return [tree.labels(tau) for tree, (tau, _) in zip(trees, pairs, strict=True)]

    compare(accelerator, renumbered(labels), batch())


def test_images_that_do_not_fit_together_are_cut_one_after_the_other(accelerator):
    features = batch(5)
    memory = 3 * 2 * 4 * features.shape[1] ** 2 / 2**30
    compare(accelerator, renumbered(lambda given: recursive_ncut(given, 0.7, 6, max_memory_gib=memory)), features)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_precisions_are_cut_there(accelerator, dtype):
    compare(accelerator, renumbered(lambda given: recursive_ncut(given, 0.7, 6)), batch().to(dtype))


def test_features_that_are_not_finite_are_named(accelerator):
    features = batch()
    features[1, 7] = torch.nan
    with pytest.raises(ValueError, match="first in image 1 of the batch at patch 7"):
        recursive_ncut(features.to(DEVICE))


def test_coarse_to_fine_is_the_hosts(accelerator):
    features = batch(2, 4, 36).mT.unflatten(2, (12, 12)).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    features = features + 0.05 * torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    counts = compare(
        accelerator, renumbered(lambda given: coarse_to_fine_ncut(given, 0.7, 6, coarse_patches=144)), features
    )
    assert computed_there(counts, features)


def test_the_segmenter_shares_recursions_there(accelerator):
    features = batch(2, 6, 24).mT.unflatten(2, (12, 12)).contiguous()
    several = [DiffCut(tau=0.4, alpha=6), DiffCut(tau=0.7, alpha=6, label_codes="float32"), DiffCut(tau=0.5, alpha=4)]
    counts = compare(accelerator, renumbered(lambda given: DiffCut.together(several, given)), features)
    assert computed_there(counts, features)


def test_autocast_does_not_reach_the_cut(accelerator):
    features = batch()
    expected = recursive_ncut(features, 0.7, 6)
    with torch.autocast(DEVICE.type, torch.float16):
        found = recursive_ncut(features.to(DEVICE), 0.7, 6)
    assert all(same_partition(*pair) for pair in zip(found.cpu(), expected, strict=True))


def test_waits_do_not_grow_with_the_batch(accelerator):
    def waits(images):
        features = blobs(6, 20, noise=0.15)[0].expand(images, -1, -1).to(DEVICE)
        accelerator.taken()
        recursive_ncut(features, 0.7, 6)
        return accelerator.taken().crossings.total()

    assert waits(8) == waits(1)


def test_the_host_waits_once_a_pass(accelerator, passes):
    features = batch().to(DEVICE)
    accelerator.taken()
    ncut_tree(features, 0.7, 6)
    waits = accelerator.taken().crossings
    assert len(passes) > 4
    assert sum(count for place, count in waits.items() if place.startswith("ncut/levels.py")) == len(passes)
    assert waits.total() == len(passes) + 1  # whether the features are finite


def released(shared, images: slice, tau: float, alpha: float) -> tuple[torch.Tensor, np.ndarray]:
    golden = np.load(shared / "golden" / "recursive_ncut.npz")
    return torch.from_numpy(golden["features"])[images], golden[f"partition_tau{tau}_alpha{alpha}"][images]


@pytest.mark.shared
@pytest.mark.parametrize(
    ("images", "tau", "alpha"),
    [
        (slice(1), 0.5, 5),
        (slice(1), 0.4, 8),
        *(pytest.param(slice(8), tau, alpha, marks=pytest.mark.slow) for tau, alpha in [(0.5, 5), (0.4, 8)]),
        *(pytest.param(slice(8), tau, alpha, marks=pytest.mark.slow) for tau, alpha in [(0.6, 5), (0.3, 8)]),
    ],
)
def test_golden_partitions_are_the_released_ones(accelerator, shared, images, tau, alpha):
    features, expected = released(shared, images, tau, alpha)
    labels = recursive_ncut(features.to(DEVICE), tau, alpha, label_codes="float32").cpu()
    assert [same_partition(*pair) for pair in zip(labels, expected, strict=True)] == [True] * len(features)


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize(("alpha", "aim_ms"), [(5, 1.0), (10, 2.0)])
def test_a_batch_of_64_takes_what_is_aimed_at(accelerator, shared, alpha, aim_ms):
    """By the model of `benchmarks.launches`; eight images, eight times."""
    features, _ = released(shared, slice(8), 0.5, 5)
    expected = recursive_ncut(features, 0.5, alpha)
    there = features.repeat(8, 1, 1).to(DEVICE)
    accelerator.taken()
    labels = recursive_ncut(there, 0.5, alpha)
    assert accelerator.taken().modelled_s * 1000 / 64 <= aim_ms
    labels = labels.cpu()
    assert all(same_partition(ours, expected[image % 8]) for image, ours in enumerate(labels))


@pytest.mark.shared
@pytest.mark.parametrize(
    ("images", "label_codes"),
    [
        (slice(1), "exact"),
        pytest.param(slice(1), "float32", marks=pytest.mark.slow),
        pytest.param(slice(8), "exact", marks=pytest.mark.slow),
        pytest.param(slice(8), "float32", marks=pytest.mark.slow),
    ],
)
def test_golden_partitions_of_hundreds_of_segments_are_the_hosts(accelerator, shared, images, label_codes):
    features, _ = released(shared, images, 0.5, 5)
    host = recursive_ncut(features, 0.5, 10, label_codes=label_codes)
    there = recursive_ncut(features.to(DEVICE), 0.5, 10, label_codes=label_codes).cpu()
    assert host.max() > 30
    assert [same_partition(*pair) for pair in zip(there, host, strict=True)] == [True] * len(features)
