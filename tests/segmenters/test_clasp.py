import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import DATA, blobs, same_partition
from planted import check_order_and_batches
from test_autosc import smooth
from torchmetrics.functional.clustering import adjusted_rand_score

from diffcut_bench.config import instantiate, load_config
from diffcut_bench.segmenters import Clasp, KMeans, SpectrumTooLargeError
from diffcut_bench.segmenters.clasp import elbow, silhouette


def coffee():
    return torch.from_numpy(np.load(DATA / "recursive_ncut_coffee.npz")["features"]).float()


def textbook_elbow(values):
    """1-based place of the gap farthest, at right angles, from the line through the first and last, and one more."""
    gaps = [a - b for a, b in pairwise(values)]
    dx, dy = len(gaps) - 1, gaps[-1] - gaps[0]
    distances = [abs(dy * i - dx * (gap - gaps[0])) / math.hypot(dx, dy) for i, gap in enumerate(gaps)]
    return distances.index(max(distances)) + 2


def textbook_silhouette(points, labels):
    widths = []
    for i, own in enumerate(labels):
        means = {}
        for label in set(labels):
            others = [j for j, other in enumerate(labels) if other == label and j != i]
            if others:
                means[label] = sum(math.dist(points[i], points[j]) for j in others) / len(others)
        if own not in means:
            widths.append(0.0)
        else:
            next_one = min(mean for label, mean in means.items() if label != own)
            widths.append((next_one - means[own]) / max(next_one, means[own]))
    return sum(widths) / len(widths)


def textbook(features, beta, least, most):
    """Labels of one image [channels, rows, cols], from the paper's words, in float64; and what K was tried."""
    patches = features.flatten(1).T.double().numpy()
    cosines = np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in patches] for a in patches])
    values, vectors = np.linalg.eigh(np.maximum(cosines, 0))
    optimum = textbook_elbow(values[::-1].tolist())
    low, high = math.floor(optimum * (1 - beta)), math.ceil(optimum * (1 + beta))
    best, tried = None, range(min(max(low, least), most), max(min(high, most), least) + 1)
    for clusters in tried:
        rows = vectors[:, ::-1][:, :clusters]
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        labels = KMeans(seeds=20).cluster(torch.from_numpy(rows.copy()), clusters).tolist()
        score = textbook_silhouette(rows.tolist(), labels)
        if best is None or score > best[0]:
            best = score, labels
    return best[1], list(tried)


@pytest.mark.parametrize(("beta", "least", "most"), [(0.5, 2, 15), (1, 3, 6), (0, 2, 15), (0.5, 7, 8)])
def test_equals_the_textbook(beta, least, most):
    tried = set()
    for seed in range(1, 3):
        features = smooth(seed)
        expected, counts = textbook(features[0], beta, least, most)
        tried.update(counts)
        assert same_partition(Clasp(beta, least, most, seeds=20)(features), np.array(expected))
    assert len(tried) > 1 and least <= min(tried) and max(tried) <= most


def test_k_is_searched_on_both_sides_of_the_eigengaps(monkeypatch):
    tried, cluster = [], KMeans.cluster

    def noting(self, points, clusters):
        tried.append(clusters)
        return cluster(self, points, clusters)

    monkeypatch.setattr(KMeans, "cluster", noting)
    monkeypatch.setattr("diffcut_bench.segmenters.clasp.elbow", lambda values: 7)
    Clasp()(smooth(1))
    assert tried == list(range(3, 12)), "3.5 rounded down to 10.5 rounded up"


def test_coffee_equals_the_output_of_the_third_party():
    theirs = np.load(DATA / "clasp_coffee.npz")
    patches = coffee()
    unit = torch.nn.functional.normalize(patches, dim=1)
    values, vectors = torch.linalg.eigh((unit @ unit.T).clamp_min(0))
    assert elbow(values.flip(0)) == theirs["k_opt"]
    for clusters, score in enumerate(theirs["silhouettes"][:2], 4):
        rows = torch.nn.functional.normalize(vectors[:, -clusters:], dim=1)
        assert float(silhouette(rows, KMeans().cluster(rows, clusters), clusters)) == pytest.approx(score, abs=2e-3)
    assert same_partition(Clasp()(patches.T.unflatten(1, (32, 32))[None])[0], theirs["labels"])


def test_silhouettes_are_the_loops():
    generator = torch.Generator().manual_seed(0)
    for points, clusters in ((30, 3), (12, 7)):
        rows = torch.randn(points, 3, generator=generator)
        labels = torch.randint(0, clusters, (points,), generator=generator)
        labels[0] = clusters  # alone
        expected = textbook_silhouette(rows.tolist(), labels.tolist())
        assert float(silhouette(rows, labels, clusters + 3)) == pytest.approx(expected, abs=1e-5)
    assert silhouette(rows, torch.zeros(12, dtype=torch.long), 2) == -torch.inf
    assert silhouette(rows, torch.arange(12), 12) == 0
    assert silhouette(torch.ones(4, 2), torch.arange(4) % 2, 2) == 0


def test_the_elbow_is_where_the_gaps_stop_being_large():
    assert elbow(torch.tensor([20.0, 15, 10, 5, 1, 0.9, 0.8, 0.7, 0.6])) == 6
    for seed in range(5):
        values = torch.rand(40, generator=torch.Generator().manual_seed(seed)).pow(4).sort(descending=True).values
        assert elbow(values) == textbook_elbow(values.tolist())
    assert elbow(torch.tensor([3.0])) == elbow(torch.tensor([3.0, 1])) == elbow(torch.tensor([3.0, 2, 1])) == 2


@pytest.mark.parametrize("groups", [2, 3, 5])
def test_planted_partitions_are_recovered(groups):
    features, truth = blobs(groups, 24)
    labels = Clasp()(features.mT.unflatten(2, (groups, 24)))
    assert adjusted_rand_score(labels.flatten(), truth) >= 0.98


def test_permuted_patches_and_batches_change_nothing():
    check_order_and_batches(Clasp(seeds=30), torch.cat([smooth(seed) for seed in range(1, 4)]))


def test_degenerate_pictures():
    assert not Clasp()(torch.ones(2, 3, 4, 4)).any()
    assert not Clasp()(torch.zeros(1, 3, 4, 4)).any()
    assert Clasp()(torch.rand(1, 3, 1, 1)).tolist() == [[[0]]]
    for patches in (2, 3, 4, 7):
        assert Clasp(min_clusters=5, max_clusters=9)(torch.rand(1, 3, 1, patches)).shape == (1, 1, patches)
    features, truth = blobs(2, 6)
    features[0, 3] = 0
    labels = Clasp(max_clusters=2)(features.mT.unflatten(2, (1, 12))).flatten()
    rest = torch.arange(12) != 3
    assert adjusted_rand_score(labels[rest], truth[rest]) == 1
    with pytest.raises(ValueError, match="NaN"):
        Clasp()(torch.full((1, 3, 2, 2), torch.nan))
    with pytest.raises(SpectrumTooLargeError, match="max_memory_gib"):
        Clasp(max_memory_gib=0.001)(torch.zeros(1, 2, 64, 65))


def test_options_and_their_mistakes():
    config = load_config(["segmenter=clasp"])
    assert instantiate("segmenter", config.segmenter) == Clasp()
    assert config.choices["upsampler"] == "nearest"
    for arguments, message in (
        ({"beta": 1.5}, "beta must lie"),
        ({"min_clusters": 1}, "min_clusters must be a whole number of at least 2"),
        ({"max_clusters": 1}, "max_clusters must be a whole number of at least 2"),
        ({"seeds": 0}, "seeds must be a whole number"),
        ({"seed": "x"}, "seed must be a whole number"),
        ({"max_memory_gib": 0}, "max_memory_gib must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            Clasp(**arguments)
