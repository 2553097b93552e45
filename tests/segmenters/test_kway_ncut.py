from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import DATA, blobs, same_partition
from planted import check_order_and_batches
from test_autosc import smooth, textbook_qr
from torchmetrics.functional.clustering import adjusted_rand_score

from diffcut_bench.config import instantiate, load_config
from diffcut_bench.ncut import cosine_matrix
from diffcut_bench.segmenters import KWayNCut
from diffcut_bench.segmenters.kway_ncut import Association, ascend


def objective(weights, labels, clusters):
    """Sum of within / volume over segments, in loops."""
    total = 0.0
    for k in range(clusters):
        members = [i for i, label in enumerate(labels) if label == k]
        volume = sum(weights[i].sum() for i in members)
        total += sum(weights[i, j] for i in members for j in members) / volume if members else 0.0
    return total


def textbook_ascent(weights, labels, volume):
    """Step by step, each node on its own, in float64."""
    clusters, degree, labels = max(labels) + 1, weights.sum(axis=1), list(labels)
    while True:
        links = [[sum(weights[i, j] for j in range(len(labels)) if labels[j] == k) for k in range(clusters)]
                 for i in range(len(labels))]  # fmt: skip
        v = [sum(degree[i] for i in range(len(labels)) if labels[i] == k) for k in range(clusters)]
        q = [sum(links[i][k] for i in range(len(labels)) if labels[i] == k) for k in range(clusters)]

        def gradient(i, k, links=links, v=v, q=q, own=tuple(labels)):
            if not v[k]:
                return 0.0
            if volume == "linear":
                return 2 * links[i][k] / v[k] - degree[i] * q[k] / v[k] ** 2
            return 2 * (links[i][k] / v[k] - (degree[i] * q[k] / v[k] ** 2 if own[i] == k else 0.0))

        table = np.array([[gradient(i, k) for k in range(clusters)] for i in range(len(labels))])
        greatest = max(max(row) - row[own] for row, own in zip(table, labels, strict=True))
        if greatest <= 0:
            return labels
        for scale in (1024, 512, 256, 128, 64, 32, 16, 8, 4, 2, 1.01):
            step = scale / greatest
            proximal = [step * row + np.eye(clusters)[own] for row, own in zip(table, labels, strict=True)]
            moved = [int(np.argmax(row)) for row in proximal]
            if objective(weights, moved, clusters) > objective(weights, labels, clusters) + 2e-6 * clusters:
                labels = moved
                break
        else:
            return labels


def graph(features, alpha):
    patches = features.flatten(1).T.double().numpy()
    cosines = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in patches] for a in patches]
    return np.maximum(cosines, 0) ** alpha


@pytest.mark.parametrize("volume", ["quadratic", "linear"])
def test_equals_the_textbook(volume):
    rose = 0
    for seed in range(4):
        features = smooth(seed)
        weights = graph(features[0], 4)
        degree = weights.sum(axis=1)
        root = np.diag(degree**-0.5)
        values, vectors = np.linalg.eigh(np.eye(len(degree)) - root @ weights @ root)
        clusters = max(int((values < 0.5).sum()), 1)
        start = textbook_qr((root @ vectors)[:, :clusters])
        expected = textbook_ascent(weights, start, volume)
        rose += start != expected
        assert same_partition(KWayNCut(0.5, 4, volume)(features), np.array(expected))
    assert rose, "the ascent has something to do"


@pytest.mark.parametrize("volume", ["quadratic", "linear"])
@pytest.mark.parametrize("alpha", [3, 8])
def test_the_objective_never_falls(volume, alpha):
    generator = torch.Generator().manual_seed(alpha)
    for _ in range(5):
        weights = cosine_matrix(torch.randn(1, 50, 4, generator=generator))[0].clamp_min(0).pow(alpha)
        start = torch.randint(0, 5, (50,), generator=generator)
        clusters = int(start.max()) + 1
        trace = [objective(weights.numpy(), ascend(weights, start, n, volume).tolist(), clusters) for n in range(12)]
        assert all(after >= before for before, after in pairwise(trace))
        assert trace[-1] > trace[0]


def test_the_objective_never_falls_on_a_photograph():
    features = torch.from_numpy(np.load(DATA / "recursive_ncut_coffee.npz")["features"]).float()
    weights = cosine_matrix(features[None])[0].clamp_min(0).pow(5)
    start = torch.arange(1024) // 128
    for volume in ("quadratic", "linear"):
        trace = [Association.of(weights, ascend(weights, start, n, volume), 8).objective for n in range(8)]
        assert trace == sorted(trace)
        assert trace[-1] > trace[0]


def test_the_gradient_is_the_derivative_of_the_objective():
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(12, 12, generator=generator, dtype=torch.float64)
    weights = weights + weights.T
    degree, labels = weights.sum(dim=1), torch.arange(12) % 3
    for volume in ("quadratic", "linear"):
        x = torch.nn.functional.one_hot(labels, 3).double().requires_grad_()
        within = (x * (weights @ x)).sum(dim=0)
        volumes = (degree[:, None] * (x**2 if volume == "quadratic" else x)).sum(dim=0)
        (derivative,) = torch.autograd.grad((within / volumes).sum(), x)
        assert torch.allclose(Association.of(weights, labels, 3).gradient(degree, volume), derivative)


def test_objective_is_the_loops():
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(12, 12, generator=generator, dtype=torch.float64)
    weights = weights + weights.T
    labels = torch.arange(12) % 3
    found = Association.of(weights, labels, 5).objective  # two segments are empty
    assert found == pytest.approx(objective(weights.numpy(), labels.tolist(), 5))


@pytest.mark.parametrize("volume", ["quadratic", "linear"])
@pytest.mark.parametrize("groups", [2, 3, 5])
def test_planted_partitions_are_recovered(groups, volume):
    features, truth = blobs(groups, 24)
    labels = KWayNCut(volume=volume)(features.mT.unflatten(2, (groups, 24)))
    assert adjusted_rand_score(labels.flatten(), truth) >= 0.98


@pytest.mark.parametrize("volume", ["quadratic", "linear"])
def test_a_wrong_start_is_mended(volume):
    features, truth = blobs(3, 30)
    weights = cosine_matrix(features)[0].clamp_min(0).pow(10)
    start = truth.clone()
    start[::7] = (start[::7] + 1) % 3
    assert adjusted_rand_score(start, truth) < 0.7
    assert adjusted_rand_score(ascend(weights, start, 100, volume), truth) >= 0.98


@pytest.mark.parametrize("volume", ["quadratic", "linear"])
def test_permuted_patches_and_batches_change_nothing(volume):
    check_order_and_batches(KWayNCut(0.6, 5, volume), torch.cat([smooth(seed) for seed in range(3)]))


def test_kappa_sets_granularity():
    features = smooth(0)
    counts = [int(KWayNCut(kappa, 5)(features).max()) + 1 for kappa in (0.05, 0.4, 0.7)]
    assert counts == sorted(counts)
    assert counts[0] < counts[2]
    assert not KWayNCut()(torch.ones(1, 3, 4, 4)).any()


def test_options_and_their_mistakes():
    assert instantiate("segmenter", load_config(["segmenter=kway_ncut", "backbone=ssd1b"]).segmenter) == KWayNCut()
    for arguments, message in (
        ({"kappa": 0}, "kappa must be positive"),
        ({"kappa": 3}, "kappa must lie"),
        ({"kappa": "x"}, "kappa must be positive and finite, not 'x'"),
        ({"alpha": float("inf")}, "alpha must be positive and finite"),
        ({"alpha": -1}, "alpha must be positive"),
        ({"volume": "cubic"}, "volume must be one of quadratic, linear"),
        ({"iterations": 1.5}, "iterations must be a whole number"),
    ):
        with pytest.raises(ValueError, match=message):
            KWayNCut(**arguments)
