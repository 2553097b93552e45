import numpy as np
import pytest
import torch
from conftest import DATA, blobs, same_partition
from torchmetrics.functional.clustering import adjusted_rand_score

from diffcut_bench.config import instantiate, load_config
from diffcut_bench.segmenters import AutoSC
from diffcut_bench.segmenters.spectral_embedding import SpectrumTooLargeError, cluster_by_pivoted_qr


def textbook_qr(embedding):
    """Column-pivoted QR by hand: the longest residual leads, and is taken out of the others."""
    residual, pivots = embedding.copy(), []
    for _ in range(embedding.shape[1]):
        pivots.append(max(range(len(residual)), key=lambda row: residual[row] @ residual[row]))
        direction = residual[pivots[-1]] / np.linalg.norm(residual[pivots[-1]])
        residual -= np.outer(residual @ direction, direction)
    left, _, right = np.linalg.svd(embedding[pivots].T)
    return [max(range(embedding.shape[1]), key=lambda axis: abs(row @ (left @ right)[:, axis])) for row in embedding]


def textbook(features, alphas, released_bug):
    """One image [channels, rows, cols] in loops and float64."""
    patches = features.flatten(1).T.double().numpy()
    unit = [patch / np.linalg.norm(patch) for patch in patches]
    cosines = np.array([[a @ b for b in unit] for a in unit])
    scaled = (cosines - cosines.min()) / (cosines.max() - cosines.min())
    found = []
    for alpha in alphas:
        weights = scaled**alpha
        degree = [sum(row) for row in weights]
        root = np.diag([d**-0.5 for d in degree])
        values, vectors = np.linalg.eigh(root @ (np.diag(degree) - weights) @ root)
        gaps = []
        for i in range(len(values)):
            mean = sum(values[: i + 1]) / (i + 1)
            gaps.append((values[i] - mean) / (mean + 1e-6))
        found.append((max(gaps), max(gaps.index(max(gaps)), 1), root @ vectors))
    best = max(range(len(alphas)), key=lambda index: found[index][0])
    vectors = found[-1 if released_bug else best][2]
    return np.array(textbook_qr(vectors[:, : found[best][1]])), best


def smooth(seed, channels=6, size=(8, 9)):
    coarse = torch.randn(1, channels, 3, 3, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size, mode="bilinear")


def test_coffee_equals_the_released_output():
    features = (
        torch.from_numpy(np.load(DATA / "recursive_ncut_coffee.npz")["features"]).float().T.reshape(1, 320, 32, 32)
    )
    ours = AutoSC(released_bug=True)(features)
    assert same_partition(ours[0], np.load(DATA / "autosc_coffee.npz")["autosc"])


@pytest.mark.shared
@pytest.mark.slow
def test_all_golden_images_equal_the_released_outputs(shared):
    stored = np.load(shared / "golden" / "recursive_ncut.npz")["features"]
    features = torch.from_numpy(stored).float().mT.unflatten(2, (32, 32))
    released = np.load(shared / "golden" / "baselines.npz")["autosc"]
    for image, expected in zip(features, released, strict=True):
        assert same_partition(AutoSC(released_bug=True)(image[None])[0], expected)


@pytest.mark.parametrize("released_bug", [False, True])
def test_equals_the_textbook(released_bug):
    best = set()
    for seed in range(6):
        features, alphas = smooth(seed), (15, 5, 2)
        expected, index = textbook(features[0], alphas, released_bug)
        best.add(index)
        assert same_partition(AutoSC(alphas, released_bug)(features), expected)
    assert best - {2}, "the best exponent is not always the last"


def test_the_bug_takes_other_eigenvectors():
    images = [smooth(seed) for seed in range(6)]
    alphas = (15, 5, 2)
    assert not all(same_partition(AutoSC(alphas)(image), AutoSC(alphas, released_bug=True)(image)) for image in images)
    alone = (5,)
    assert all(same_partition(AutoSC(alone)(image), AutoSC(alone, released_bug=True)(image)) for image in images)


@pytest.mark.parametrize("groups", [2, 3, 5])
def test_planted_partitions_are_recovered(groups):
    features, truth = blobs(groups, 24)
    labels = AutoSC()(features.mT.unflatten(2, (groups, 24)))
    assert adjusted_rand_score(labels.flatten(), truth) >= 0.98


def test_permuted_patches_and_batches_change_nothing():
    features = torch.cat([smooth(seed) for seed in range(3)])
    labels = AutoSC()(features)
    assert labels.shape == (3, 8, 9)
    for image, partition in zip(features, labels, strict=True):
        assert torch.equal(AutoSC()(image[None])[0], partition)
        assert partition.unique().tolist() == list(range(int(partition.max()) + 1))
    order = torch.randperm(72, generator=torch.Generator().manual_seed(1))
    shuffled = AutoSC()(features.flatten(2)[:, :, order].unflatten(2, (8, 9))).flatten(1)
    assert all(same_partition(a, b[order]) for a, b in zip(shuffled, labels.flatten(1), strict=True))


def test_a_rotated_embedding_gives_the_same_clusters():
    embedding = torch.randn(40, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
    assert same_partition(cluster_by_pivoted_qr(embedding), cluster_by_pivoted_qr(embedding @ rotation))
    assert same_partition(cluster_by_pivoted_qr(embedding), np.array(textbook_qr(embedding.numpy())))


@pytest.mark.parametrize("features", [torch.ones(1, 3, 4, 4), torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 1, 1)])
def test_an_image_without_contrast_is_one_segment(features):
    assert not AutoSC()(features).any()


def test_option_and_its_mistakes():
    assert instantiate("segmenter", load_config(["segmenter=autosc"]).segmenter) == AutoSC([1, 5, 10, 15])
    with pytest.raises(ValueError, match="each of alphas must be positive"):
        AutoSC(alphas=(1, 0))
    for wrong in ((), 5, "5"):
        with pytest.raises(ValueError, match="alphas must be a list"):
            AutoSC(alphas=wrong)
    with pytest.raises(ValueError, match="NaN or infinity"):
        AutoSC()(torch.full((1, 2, 2, 2), torch.nan))
    with pytest.raises(SpectrumTooLargeError, match=r"max_memory_gib is 0\.1"):
        AutoSC(max_memory_gib=0.1)(torch.rand(1, 3, 80, 80))
