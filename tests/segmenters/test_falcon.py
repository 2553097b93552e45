import numpy as np
import pytest
import scipy.linalg
import torch
from conftest import DATA, blobs, same_partition
from planted import check_order_and_batches
from test_autosc import smooth, textbook_qr
from torchmetrics.functional.clustering import adjusted_rand_score

from diffcut_bench.config import instantiate, load_config
from diffcut_bench.ncut import affinity
from diffcut_bench.segmenters import Falcon, KMeans, SpectrumTooLargeError
from diffcut_bench.segmenters.kway_ncut import Association, ascend
from diffcut_bench.segmenters.spectral_embedding import Spectrum, cluster_by_pivoted_qr


def ratios(weights, labels, clusters):
    """f(X), in loops."""
    total = 0.0
    for k in range(clusters):
        members = [i for i, label in enumerate(labels) if label == k]
        if members:
            volume = sum(weights[i].sum() for i in members)
            total += sum(weights[i, j] for i in members for j in members) / volume
    return total


def textbook(features, kappa, alpha, least, most, tau0, gamma, delta, iterations=100):
    """Labels of one image [channels, rows, cols], from the paper's words, in float64; and the steps that were taken."""
    patches = features.flatten(1).T.double().numpy()
    n = len(patches)
    cosines = np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in patches] for a in patches])
    weights = ((cosines - cosines.min()) / (cosines.max() - cosines.min())) ** alpha
    degree = weights.sum(axis=1)
    values, vectors = scipy.linalg.eigh(np.diag(degree) - weights, np.diag(degree))
    clusters = min(max(sum(value < kappa for value in values), least), most)
    labels, steps = textbook_qr(vectors[:, :clusters]), 0
    while steps < iterations:
        x = np.array([[float(labels[i] == k) for k in range(clusters)] for i in range(n)])
        volume = [sum(degree[i] * x[i, k] ** 2 for i in range(n)) for k in range(clusters)]
        within = [x[:, k] @ weights @ x[:, k] for k in range(clusters)]
        mu = np.zeros((n, clusters))
        for i in range(n):
            for k in range(clusters):
                if volume[k]:
                    links = weights[i] @ x[:, k]
                    mu[i, k] = 2 * (links / volume[k] - degree[i] * x[i, k] * within[k] / volume[k] ** 2)
        tau = tau0
        while True:
            moved = [int(np.argmax(mu[i] + tau * x[i])) for i in range(n)]
            change = sum(2 for a, b in zip(moved, labels, strict=True) if a != b)  # squared norm of X's
            if not change:
                return labels, steps
            rise = ratios(weights, moved, clusters) - ratios(weights, labels, clusters)
            if rise >= delta * tau / 2 * change and rise > 2e-6 * clusters:
                labels, steps = moved, steps + 1
                break
            tau *= gamma
    return labels, steps


@pytest.mark.parametrize(
    ("kappa", "least", "most", "delta"), [(0.5, 2, 30, 0.1), (0.7, 1, 3, 0), (0.05, 4, 30, 0.3), (0.6, 2, 9, 0.1)]
)
def test_equals_the_textbook(kappa, least, most, delta):
    steps = 0
    for seed in range(4):
        features = smooth(seed)
        expected, taken = textbook(features[0], kappa, 4, least, most, 1e-3, 1.5, delta)
        steps += taken
        ours = Falcon(kappa, 4, least, most, tau0=1e-3, gamma=1.5, delta=delta)(features)
        assert same_partition(ours, np.array(expected))
    assert steps, "the steps have something to do"


def test_it_ends_after_the_steps_that_are_allowed():
    for seed in (2, 9):
        features, options = smooth(seed), {"tau0": 1e-3, "gamma": 1.5}
        first, _ = textbook(features[0], 0.8, 4, 2, 20, 1e-3, 1.5, 0.1, iterations=1)
        ours = Falcon(0.8, 4, 2, 20, **options, iterations=1)(features)
        assert same_partition(ours, np.array(first))
        assert not same_partition(ours, Falcon(0.8, 4, 2, 20, **options)(features)), "a second step would follow"


@pytest.mark.parametrize("groups", [2, 3, 5])
def test_planted_partitions_are_recovered(groups):
    features, truth = blobs(groups, 24)
    labels = Falcon()(features.mT.unflatten(2, (groups, 24)))
    assert adjusted_rand_score(labels.flatten(), truth) >= 0.98


def test_a_wrong_start_is_mended():
    features, truth = blobs(3, 30)
    start = truth.clone()
    start[::7] = (start[::7] + 1) % 3
    assert adjusted_rand_score(start, truth) < 0.7
    mended = ascend(affinity(features, 10)[0], start, 100, attempts=Falcon()._by_inertia)
    assert adjusted_rand_score(mended, truth) >= 0.98


def test_the_start_is_better_than_what_k_means_and_chance_become():
    patches = torch.from_numpy(np.load(DATA / "recursive_ncut_coffee.npz")["features"]).float()
    weights = affinity(patches[None], 5)[0]
    clusters = 8
    starts = [
        cluster_by_pivoted_qr(Spectrum.of(weights).vectors[:, :clusters]),
        KMeans(clusters, spherical=True, seeds=3)(patches.T.unflatten(1, (32, 32))[None]).flatten(),
        torch.randint(0, clusters, (1024,), generator=torch.Generator().manual_seed(0)),
    ]
    ends = [ascend(weights, start, 100, attempts=Falcon()._by_inertia) for start in starts]
    before, after = ([Association.of(weights, each, clusters).objective for each in of] for of in (starts, ends))
    assert all(second >= first for first, second in zip(before, after, strict=True))
    assert after[2] > before[2] + 1
    assert before[0] > max(after[1:])


def test_permuted_patches_and_batches_change_nothing():
    check_order_and_batches(Falcon(0.6, 5, tau0=1e-3), torch.cat([smooth(seed) for seed in range(3)]))


def test_the_number_of_segments_is_held_in_its_range():
    features, _ = blobs(5, 24)
    features = features.mT.unflatten(2, (10, 12))

    def found(**options):
        return int(Falcon(**options)(features).max()) + 1

    assert found() == 5
    assert found(max_clusters=3) == 3
    assert found(min_clusters=7) > 5
    assert found(kappa=1e-6) == 2
    assert found(kappa=1e-6, min_clusters=1) == 1


def test_degenerate_pictures():
    assert not Falcon()(torch.ones(2, 3, 4, 4)).any()
    assert not Falcon()(torch.zeros(1, 3, 4, 4)).any()
    assert Falcon()(torch.rand(1, 3, 1, 1)).tolist() == [[[0]]]
    assert Falcon(min_clusters=9, max_clusters=9)(torch.rand(1, 3, 1, 4)).shape == (1, 1, 4)
    features, truth = blobs(2, 6)
    features[0, 3] = 0
    labels = Falcon()(features.mT.unflatten(2, (1, 12))).flatten()
    rest = torch.arange(12) != 3
    assert adjusted_rand_score(labels[rest], truth[rest]) == 1
    with pytest.raises(ValueError, match="NaN"):
        Falcon()(torch.full((1, 3, 2, 2), torch.nan))
    with pytest.raises(SpectrumTooLargeError, match="max_memory_gib"):
        Falcon(max_memory_gib=0.001)(torch.zeros(1, 2, 64, 65))


def test_options_and_their_mistakes():
    assert instantiate("segmenter", load_config(["segmenter=falcon", "backbone=ssd1b"]).segmenter) == Falcon()
    for arguments, message in (
        ({"kappa": 0}, "kappa must be positive"),
        ({"kappa": 3}, "kappa must lie"),
        ({"alpha": -1}, "alpha must be positive"),
        ({"min_clusters": 0}, "min_clusters must be a whole number of at least 1"),
        ({"min_clusters": 5, "max_clusters": 4}, "max_clusters must be a whole number of at least 5, not 4"),
        ({"tau0": 0}, "tau0 must be positive"),
        ({"gamma": 1}, "gamma must be above 1, not 1"),
        ({"gamma": float("inf")}, "gamma must be positive and finite"),
        ({"delta": -0.1}, "delta must lie"),
        ({"iterations": 1.5}, "iterations must be a whole number"),
        ({"max_memory_gib": "x"}, "max_memory_gib must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            Falcon(**arguments)
