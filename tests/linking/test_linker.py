"""Spherical k-means of prototypes: planted groups are found, and no order of the segments changes what is linked."""

import pytest
import torch
from conftest import blobs, same_partition
from torch.nn.functional import normalize

from diffcut_bench.linking import KMeansLinker


def planted(groups=6, size=20, noise=0.05):
    points, truth = blobs(groups, size, noise=noise)
    return normalize(points[0], dim=1).half(), truth


def inertia(points, labels):
    """Sum over points of 1 − cosine to their cluster's centre."""
    centres = normalize(torch.stack([points[labels == label].sum(dim=0) for label in labels.unique()]), dim=1)
    return float((1 - points @ centres.T).gather(1, labels.unique(return_inverse=True)[1][:, None]).sum())


def test_planted_groups_are_found():
    points, truth = planted()
    found = KMeansLinker()(points, num_classes=6)
    assert found.shape == (5, 120)
    assert all(same_partition(labels, truth) for labels in found)


def test_no_order_changes_what_belongs_together_nor_its_number():
    points, _ = planted(noise=0.6)
    found = KMeansLinker(clusters=9)(points, num_classes=6)
    assert len({tuple(labels.tolist()) for labels in found}) > 1, "starts differ"
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(1))
    assert torch.equal(KMeansLinker(clusters=9)(points[order], num_classes=6), found[:, order])


def test_a_clustering_has_its_own_seed():
    points, _ = planted(noise=0.6)
    found = KMeansLinker(seeds=3, seed=4)(points, num_classes=6)
    for place in range(3):
        alone = KMeansLinker(seeds=1, seed=4 + place)(points, num_classes=6)
        assert torch.equal(alone[0], found[place])


def test_it_is_where_no_point_wants_another_cluster():
    points, _ = planted(noise=0.6)
    (labels,) = KMeansLinker(seeds=1)(points, num_classes=6)
    unit = normalize(points.float(), dim=1)
    centres = normalize(torch.stack([unit[labels == label].sum(dim=0) for label in range(6)]), dim=1)
    assert torch.equal((unit @ centres.T).argmax(dim=1), labels)
    shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    assert inertia(unit, labels) < inertia(unit, shuffled)


def test_fewer_segments_than_clusters_and_equal_ones():
    points = torch.eye(4).half()
    found = KMeansLinker(seeds=2)(points, num_classes=27)
    assert all(len(labels.unique()) == 4 for labels in found)
    twice = KMeansLinker(seeds=2)(points[[0, 1, 0, 1, 0]], num_classes=4)
    assert all(same_partition(labels, torch.tensor([0, 1, 0, 1, 0])) for labels in twice)
    zero = KMeansLinker(seeds=1)(torch.zeros(3, 4).half(), num_classes=2)
    assert len(zero[0].unique()) == 1


@pytest.mark.parametrize(("option", "value"), [("clusters", 0), ("seeds", 0), ("seed", -1), ("clusters", "27")])
def test_options_out_of_range(option, value):
    with pytest.raises(ValueError, match=option):
        KMeansLinker(**{option: value})


def test_a_seed_that_no_generator_takes_is_told_before_anything_is_scored():
    with pytest.raises(ValueError, match="seed must lie in"):
        KMeansLinker(seed=10**20)
