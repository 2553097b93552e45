import math

import numpy as np
import pytest
import torch
from conftest import DATA, blobs, same_partition
from test_autosc import smooth
from torchmetrics.functional.clustering import adjusted_rand_score

from diffcut_bench.config import instantiate, load_config
from diffcut_bench.ncut import affinity
from diffcut_bench.segmenters import FalconV1, KMeans, SpectrumTooLargeError, as_segmenter
from diffcut_bench.segmenters.falcon_v1 import alternate


def textbook(features, start, clusters, alpha, diagonal, iterations, beta, temperature):
    """Labels of one image [channels, rows, cols], in loops and float64."""
    patches = features.flatten(1).T.double().numpy()
    n, every = len(patches), range(clusters)
    cosines = np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in patches] for a in patches])
    w = ((cosines - cosines.min()) / (cosines.max() - cosines.min())) ** alpha
    w = w + diagonal * np.diag(w.sum(axis=1))
    if start == "kmeans":
        directions = torch.nn.functional.normalize(features.flatten(1).T, dim=1)
        first = KMeans(seeds=3).cluster(directions, clusters).tolist()
        x = np.array([[(1.025 if first[i] == k else 0.025) for k in every] for i in range(n)])
    else:
        root = np.diag(w.sum(axis=1) ** -0.5)
        vectors = np.linalg.eigh(np.eye(n) - root @ w @ root)[1][:, 1 : clusters + 1]
        for column in vectors.T:
            column *= math.copysign(1, max(column, key=abs))
        x = np.exp(10 * vectors)
    x = x / x.sum(axis=1, keepdims=True)
    for _ in range(iterations):
        d = w.sum(axis=1)
        y = [math.sqrt(x[:, k] @ w @ x[:, k] / sum(d[i] * x[i, k] ** 2 for i in range(n))) for k in every]
        score = np.array([[w[i] @ x[:, k] / (x[:, k] @ d) * y[k] for k in every] for i in range(n)])
        for i in range(n):
            z = (score[i] - score[i].mean()) / (score[i].std(ddof=1) + 1e-8)
            x[i] = np.exp(z / temperature) / np.exp(z / temperature).sum()
        for i in range(n) if beta else ():
            for j in range(n):
                cosine = x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j])
                w[i, j] *= math.exp(-((1 - cosine) ** 2) / beta)
    return x.argmax(axis=1)


@pytest.mark.parametrize(
    ("start", "clusters", "alpha", "diagonal", "beta", "temperature"),
    [
        ("kmeans", 4, 4.5, 0.2, 0.5, 1),
        ("kmeans", 5, 5.5, 0.05, 0.1, 1),
        ("spectral", 3, 4.5, 0.3, None, 1),
        ("spectral", 6, 4.5, 0.2, 0.5, 2),
    ],
)
def test_equals_the_textbook(start, clusters, alpha, diagonal, beta, temperature):
    moved = False
    for seed in range(3):
        features = smooth(seed)
        expected = textbook(features[0], start, clusters, alpha, diagonal, 3, beta, temperature)
        ours = FalconV1(clusters, alpha, diagonal, start, 3, temperature, beta)(features)
        assert same_partition(ours, expected)
        moved |= not same_partition(FalconV1(clusters, alpha, diagonal, start, 0)(features), expected)
    assert moved, "the steps have something to do"


@pytest.mark.parametrize(("alpha", "diagonal", "beta"), [(4.5, 0, 0.5), (5.5, 0.02, 0.5), (5, 0.01, None)])
def test_coffee_equals_the_output_of_the_third_party(alpha, diagonal, beta):
    features = torch.from_numpy(np.load(DATA / "recursive_ncut_coffee.npz")["features"]).float()
    start = torch.nn.functional.one_hot(torch.arange(1024) * 27 // 1024, 27) + 0.025
    start = start / start.sum(dim=1, keepdim=True)
    weights = affinity(features[None], alpha)[0]
    weights.diagonal().add_(diagonal * weights.sum(dim=1))
    ours = alternate(weights, start, 15, beta=beta).argmax(dim=1)
    theirs = np.load(DATA / "falcon_v1_coffee.npz")[f"alpha{alpha}_diagonal{diagonal}_beta{beta or 0}"]
    assert (ours.numpy() == theirs).mean() >= 0.999
    assert (start.argmax(dim=1).numpy() == theirs).mean() < 0.9


@pytest.mark.parametrize("start", ["kmeans", "spectral", "random"])
@pytest.mark.parametrize("groups", [2, 4])
def test_planted_partitions_are_recovered(groups, start):
    features, truth = blobs(groups, 24)
    features = features.mT.unflatten(2, (groups, 24))
    labels = FalconV1(groups, start=start)(features)
    least = {"kmeans": 0.98, "spectral": 0.9, "random": 0.5}[start]
    assert adjusted_rand_score(labels.flatten(), truth) >= least


@pytest.mark.parametrize("start", ["kmeans", "spectral", "random"])
def test_batches_change_nothing(start):
    features = torch.cat([smooth(seed) for seed in range(3)])
    segmenter = FalconV1(5, start=start)
    labels = segmenter(features)
    for image, partition in zip(features, labels, strict=True):
        assert torch.equal(segmenter(image[None])[0], partition)
        assert partition.unique().tolist() == list(range(int(partition.max()) + 1))
    assert torch.equal(segmenter(features.flip(0)), labels.flip(0))
    assert torch.equal(FalconV1(5, start=start, seed=1)(features), labels) == (start == "spectral")


def test_only_the_seeds_in_use_are_in_the_key():
    settings = {"seeds": 3, "seed": 0}
    for start, used in (("kmeans", {"seeds", "seed"}), ("random", {"seed"}), ("spectral", set())):
        assert set(as_segmenter(FalconV1(start=start)).identity(settings, [])) == used
        for name in settings:
            same = torch.equal(FalconV1(5, start=start, **{name: 1})(smooth(0)), FalconV1(5, start=start)(smooth(0)))
            assert same or name in used


@pytest.mark.parametrize("start", ["kmeans", "spectral", "random"])
def test_double_precision_is_kept(start):
    assert FalconV1(4, start=start)(smooth(0).double()).shape == (1, 8, 9)


@pytest.mark.parametrize("start", ["kmeans", "spectral"])
def test_permuted_patches_change_nothing(start):
    segmenter = FalconV1(4, start=start, seeds=30)
    features = torch.cat([smooth(seed) for seed in range(3)])
    order = torch.randperm(72, generator=torch.Generator().manual_seed(1))
    shuffled = segmenter(features.flatten(2)[:, :, order].unflatten(2, (8, 9))).flatten(1)
    assert all(same_partition(a, b[order]) for a, b in zip(shuffled, segmenter(features).flatten(1), strict=True))


def test_affinities_given_stay_as_they_are():
    weights = affinity(blobs(3, 8)[0], 5)[0]
    kept = weights.clone()
    assignment = torch.rand(24, 3, generator=torch.Generator().manual_seed(0)).softmax(dim=1)
    assert torch.allclose(alternate(weights, assignment, 3).sum(dim=1), torch.ones(24))
    assert torch.equal(weights, kept)


def test_as_many_clusters_as_classes_are_annotated():
    features = torch.cat([smooth(seed) for seed in range(3)])
    labels = FalconV1("annotated")(features, [2, 1, 4])
    for image, count, partition in zip(features, (2, 1, 4), labels, strict=True):
        assert torch.equal(FalconV1(count)(image[None])[0], partition)
    assert not labels[1].any()


@pytest.mark.parametrize("start", ["kmeans", "spectral", "random"])
def test_degenerate_pictures(start):
    segmenter = FalconV1(start=start)
    assert not segmenter(torch.ones(2, 3, 4, 4)).any()
    assert not segmenter(torch.zeros(1, 3, 4, 4)).any()
    assert not FalconV1(start=start, iterations=0)(torch.ones(1, 3, 4, 4)).any()
    assert segmenter(torch.rand(1, 3, 1, 1)).tolist() == [[[0]]]
    for patches in (2, 3, 5):
        assert segmenter(torch.rand(1, 3, 1, patches)).shape == (1, 1, patches)
    features, truth = blobs(2, 6)
    features[0, 3] = 0
    labels = FalconV1(2)(features.mT.unflatten(2, (1, 12))).flatten()
    rest = torch.arange(12) != 3
    assert adjusted_rand_score(labels[rest], truth[rest]) == 1
    with pytest.raises(ValueError, match="NaN"):
        segmenter(torch.full((1, 3, 2, 2), torch.nan))
    with pytest.raises(SpectrumTooLargeError, match="max_memory_gib"):
        FalconV1(max_memory_gib=0.001)(torch.zeros(1, 2, 64, 65))


def test_options_and_their_mistakes():
    assert instantiate("segmenter", load_config(["segmenter=falcon_v1"]).segmenter) == FalconV1()
    for arguments, message in (
        ({"clusters": 0}, "clusters, if not annotated, must be a whole number"),
        ({"alpha": 0}, "alpha must be positive"),
        ({"diagonal": -1}, "diagonal must lie"),
        ({"start": "x"}, "start must be one of kmeans, spectral, random"),
        ({"iterations": -1}, "iterations must be a whole number"),
        ({"temperature": 0}, "temperature must be positive"),
        ({"beta": 0}, "beta, if not null, must be positive"),
        ({"seeds": 0}, "seeds must be a whole number"),
        ({"seed": None}, "seed must be a whole number"),
    ):
        with pytest.raises(ValueError, match=message):
            FalconV1(**arguments)
