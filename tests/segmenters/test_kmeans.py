import math

import pytest
import torch
from conftest import blobs, same_partition, shapes_overrides
from torchmetrics.functional.clustering import adjusted_rand_score

from diffcut_bench.config import instantiate, load_config
from diffcut_bench.errors import UserError
from diffcut_bench.scoring.passes import run_cell
from diffcut_bench.segmenters import KMeans
from diffcut_bench.segmenters import kmeans as module
from diffcut_bench.segmenters.kmeans import first_centres
from diffcut_bench.store import read_rows


def squared(a, b):
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def textbook(points, clusters, seeds, seed, spherical):
    """Arthur & Vassilvitskii's start and Lloyd's steps in loops; labels and inertia of the best start."""
    points = points.double().tolist()
    draws = torch.rand(clusters, seeds, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    best = None
    for start in range(seeds):
        centres = [points[int(draws[0, start] * len(points))]]
        for draw in draws[1:, start].tolist():
            chance = [min(squared(point, centre) for centre in centres) for point in points]
            left = draw * sum(chance)
            drawn = next(i for i in range(len(points)) if sum(chance[: i + 1]) > left)
            centres.append(points[drawn])
        for _ in range(100):
            labels = [min(range(clusters), key=lambda k: squared(point, centres[k])) for point in points]
            for k in range(clusters):
                members = [point for point, label in zip(points, labels, strict=True) if label == k]
                assert members, "the textbook has no rule for empty clusters"
                mean = [sum(channel) / len(members) for channel in zip(*members, strict=True)]
                length = math.sqrt(sum(x * x for x in mean))
                centres[k] = [x / length for x in mean] if spherical else mean
        inertia = sum(squared(point, centres[label]) for point, label in zip(points, labels, strict=True))
        if best is None or inertia < best[1]:
            best = labels, inertia
    return best


def inertia(points, labels, spherical=False):
    total = 0.0
    for k in labels.unique():
        members = points[labels == k]
        centre = members.mean(dim=0)
        centre = torch.nn.functional.normalize(centre, dim=0) if spherical else centre
        total += float((members - centre).square().sum())
    return total


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("seed", [3, 5])
def test_equals_the_textbook(seed, spherical):
    # Directions all around: their means are short, so that it matters whether centres are put back to norm 1.
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(40, 3, generator=generator) * torch.tensor([[1.0]] * 25 + [[0.1]] * 15)
    points = torch.nn.functional.normalize(points, dim=1) if spherical else points
    expected, least = textbook(points, 4, 3, seed, spherical)
    labels = KMeans(seeds=3, seed=seed, spherical=spherical).cluster(points, 4)
    assert same_partition(labels, torch.tensor(expected))
    assert inertia(points, labels, spherical) == pytest.approx(least, rel=1e-4)


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("groups", [2, 3, 6])
def test_planted_partitions_are_recovered(groups, spherical):
    features, truth = blobs(groups, 20)
    labels = KMeans(groups, spherical)(features.mT.unflatten(2, (groups, 20)))
    assert adjusted_rand_score(labels.flatten(), truth) >= 0.98


def test_directions_are_what_the_spherical_one_sees():
    features, truth = blobs(3, 20)
    lengths = torch.logspace(-1, 1, 60)[torch.randperm(60, generator=torch.Generator().manual_seed(0)), None]
    stretched = (features * lengths).mT.unflatten(2, (6, 10))
    assert adjusted_rand_score(KMeans(3, spherical=True)(stretched).flatten(), truth) >= 0.98
    assert adjusted_rand_score(KMeans(3, spherical=False)(stretched).flatten(), truth) < 0.9


def test_more_starts_never_raise_the_inertia():
    points = torch.randn(200, 4, generator=torch.Generator().manual_seed(2))
    found = [inertia(points, KMeans(seeds=seeds, iterations=300).cluster(points, 9)) for seeds in (1, 40)]
    assert found[1] < found[0]


def test_permuted_patches_and_batches_change_nothing():
    features = torch.cat([blobs(4, 15, seed=seed)[0] for seed in range(3)]).mT.unflatten(2, (6, 10))
    labels = KMeans(4)(features)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    shuffled = KMeans(4)(features.flatten(2)[:, :, order].unflatten(2, (6, 10))).flatten(1)
    assert all(same_partition(a, b[order]) for a, b in zip(shuffled, labels.flatten(1), strict=True))
    random = torch.rand(3, 5, 6, 10, generator=torch.Generator().manual_seed(3))
    together = KMeans("annotated")(random, [2, 5, 3])
    assert [int(image.max()) + 1 for image in together] == [2, 5, 3]
    for image, count, partition in zip(random, (2, 5, 3), together, strict=True):
        assert torch.equal(KMeans(count)(image[None])[0], partition)


def test_first_centres_do_not_depend_on_precision_and_lie_apart():
    features, truth = blobs(5, 30)
    centres = first_centres(features[0], 5, 20, 0)
    assert torch.equal(centres, first_centres(features[0].double(), 5, 20, 0))
    assert not torch.equal(centres, first_centres(features[0], 5, 20, 1))
    assert all(len(set(truth[row].tolist())) >= 4 for row in centres)
    assert len(set(centres[:, 0].tolist())) > 10, "starts differ"


def test_an_empty_cluster_takes_the_farthest_point(monkeypatch):
    features, truth = blobs(3, 15)
    for twice in (0, 15, 30):
        # Two starts at one point leave one group without a centre and one centre without points.
        other = (twice + 15) % 45
        monkeypatch.setattr(module, "first_centres", lambda *_, a=twice, b=other: torch.tensor([[a, a, b]]))
        assert adjusted_rand_score(KMeans().cluster(features[0], 3), truth) >= 0.98


def test_fewer_different_patches_than_clusters():
    two = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat_interleave(6, dim=0).T.reshape(1, 2, 3, 4)
    assert same_partition(KMeans(5)(two), torch.tensor([0, 1]).repeat_interleave(6))
    assert not KMeans(3)(torch.zeros(1, 2, 3, 4)).any()
    assert not KMeans(3, spherical=True)(torch.zeros(1, 2, 3, 4)).any()
    assert KMeans(9)(torch.rand(1, 2, 1, 2)).max() == 1


@pytest.mark.parametrize("spherical", [False, True])
def test_images_together_are_clustered_as_each_alone(spherical):
    """As on an accelerator; they differ in their clusters, one has none to find."""
    points = torch.cat([blobs(groups, 30 // groups, noise=0.3, seed=groups)[0] for groups in (2, 3, 5, 6)])
    points[3] = points[3, 0]
    method, clusters = KMeans(spherical=spherical, seeds=4), [2, 7, 1, 6]
    together = method.cluster_together(points, clusters)
    for labels, image, count in zip(together, points, clusters, strict=True):
        assert torch.equal(labels, method.cluster(image, count))


def test_annotated_classes_are_counted_by_the_pipeline(shapes, tmp_path):
    base = [*shapes_overrides(shapes, tmp_path), "refiner=none", "segmenter=kmeans"]
    counted = run_cell(load_config([*base, "protocol.image_size=256"]))
    assert {row.segments for row in read_rows(counted.folder)} == {3}
    assert not counted.result.failures


def test_options_and_their_mistakes():
    assert instantiate("segmenter", load_config(["segmenter=kmeans"]).segmenter) == KMeans("annotated")
    assert "class_counts" in KMeans("annotated").needs and "class_counts" not in KMeans(3).needs
    with pytest.raises(UserError, match="clusters, if not annotated, must be a whole number"):
        instantiate("segmenter", load_config(["segmenter=kmeans", "segmenter.clusters=anotated"]).segmenter)
    for seed in ("one", 1.5, None, 2**64):
        with pytest.raises(ValueError, match="seed must be a whole number"):
            KMeans(seed=seed)
    with pytest.raises(ValueError, match="seeds must be a whole number"):
        KMeans(seeds=0)
    with pytest.raises(ValueError, match="clusters=annotated needs"):
        KMeans()(torch.rand(1, 2, 3, 3))
