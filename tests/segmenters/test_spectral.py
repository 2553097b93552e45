import numpy as np
import pytest
import scipy.linalg
import torch
from conftest import blobs, same_partition
from test_autosc import smooth, textbook_qr
from torchmetrics.functional.clustering import adjusted_rand_score

from diffcut_bench.config import instantiate, load_config
from diffcut_bench.segmenters import KMeans, Spectral


def textbook_embedding(features, alpha, clusters):
    """Generalised eigenvectors of (D − W, D) of one image [channels, rows, cols], in float64."""
    patches = features.flatten(1).T.double().numpy()
    cosines = np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in patches] for a in patches])
    weights = ((cosines - cosines.min()) / (cosines.max() - cosines.min())) ** alpha
    degree = np.diag(weights.sum(axis=1))
    return scipy.linalg.eigh(degree - weights, degree)[1][:, :clusters]


@pytest.mark.parametrize("clusters", [2, 4, 7])
def test_equals_the_textbook(clusters):
    for seed in range(4):
        features = smooth(seed)
        embedding = textbook_embedding(features[0], 5, clusters)
        assert same_partition(Spectral(clusters, 5)(features), np.array(textbook_qr(embedding)))
        directions = torch.from_numpy(embedding / np.linalg.norm(embedding, axis=1, keepdims=True))
        expected = KMeans(seeds=50).cluster(directions, clusters)
        assert same_partition(Spectral(clusters, 5, "kmeans", seeds=50)(features), expected)


@pytest.mark.parametrize("discretisation", ["qr", "kmeans"])
@pytest.mark.parametrize("groups", [2, 3, 5])
def test_planted_partitions_are_recovered(groups, discretisation):
    features, truth = blobs(groups, 24)
    labels = Spectral(groups, discretisation=discretisation)(features.mT.unflatten(2, (groups, 24)))
    assert adjusted_rand_score(labels.flatten(), truth) >= 0.98


@pytest.mark.parametrize("discretisation", ["qr", "kmeans"])
def test_permuted_patches_and_batches_change_nothing(discretisation):
    segmenter = Spectral(4, 5, discretisation, seeds=30)
    features = torch.cat([smooth(seed) for seed in range(3)])
    labels = segmenter(features)
    for image, partition in zip(features, labels, strict=True):
        assert torch.equal(segmenter(image[None])[0], partition)
    order = torch.randperm(72, generator=torch.Generator().manual_seed(1))
    shuffled = segmenter(features.flatten(2)[:, :, order].unflatten(2, (8, 9))).flatten(1)
    assert all(same_partition(a, b[order]) for a, b in zip(shuffled, labels.flatten(1), strict=True))


def test_as_many_clusters_as_classes_are_annotated():
    features = torch.cat([smooth(seed) for seed in range(3)])
    labels = Spectral("annotated")(features, [2, 1, 4])
    for image, count, partition in zip(features, (2, 1, 4), labels, strict=True):
        assert torch.equal(Spectral(count)(image[None])[0], partition)
    assert int(labels[1].max()) == 0
    assert Spectral(6)(torch.rand(1, 3, 1, 2)).max() <= 1


def test_options_and_their_mistakes():
    assert instantiate("segmenter", load_config(["segmenter=spectral", "backbone=ssd1b"]).segmenter) == Spectral()
    for arguments, message in (
        ({"clusters": 0}, "clusters, if not annotated, must be"),
        ({"alpha": 0}, "alpha must be positive"),
        ({"discretisation": "rotation"}, "discretisation must be one of qr, kmeans"),
        ({"seeds": 0}, "seeds must be"),
    ):
        with pytest.raises(ValueError, match=message):
            Spectral(**arguments)
