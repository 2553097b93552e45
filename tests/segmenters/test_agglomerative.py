from itertools import pairwise, product

import numpy as np
import pytest
import torch
from conftest import DATA, same_partition
from planted import TURNS, planted, random_features
from scipy.ndimage import label

from diffcut_bench.config import instantiate, load_config
from diffcut_bench.segmenters import Agglomerative
from diffcut_bench.segmenters import agglomerative as module

TAUS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 1.0)
Region = frozenset[tuple[int, int]]


def mean_cosine(features: np.ndarray, first: Region, second: Region) -> float:
    one, other = (np.mean([features[:, row, col] for row, col in region], axis=0) for region in (first, second))
    lengths = np.linalg.norm(one) * np.linalg.norm(other)
    return one @ other / lengths if lengths else 0.0


def touch(first: Region, second: Region) -> bool:
    return any(abs(a - c) + abs(b - d) == 1 for (a, b), (c, d) in product(first, second))


def textbook_merges(features: np.ndarray) -> list[tuple[Region, Region, float]]:
    """Every merge until one region is left: the nearest two neighbours, and their cosine."""
    _, rows, cols = features.shape
    regions = {frozenset([(row, col)]) for row in range(rows) for col in range(cols)}
    near = {}  # cosines of neighbours, in pairs of regions
    for one, other in product(regions, regions):
        if min(one) < min(other) and touch(one, other):
            near[one, other] = mean_cosine(features, one, other)
    merges = []
    while near:
        first, second = max(near, key=near.get)
        merges.append((first, second, near[first, second]))
        both = first | second
        regions -= {first, second}
        near = {pair: cosine for pair, cosine in near.items() if not {first, second} & set(pair)}
        near |= {(each, both): mean_cosine(features, each, both) for each in regions if touch(each, both)}
        regions.add(both)
    return merges


def textbook(features: np.ndarray, tau: float, least: int) -> np.ndarray:
    """Segments at tau, from the words of the method: merges stop at the first cosine below it."""
    size = features.shape[1:]
    merges, least = textbook_merges(features), min(least, size[0] * size[1])
    every = {region for first, second, _ in merges for region in (first, second, first | second)}
    every |= {frozenset([(0, 0)])} if size == (1, 1) else set()
    large = {region for region in every if len(region) >= least}
    smallest = [region for region in large if not any(other < region for other in large)]
    owner = {patch: own for own, region in enumerate(smallest) for patch in region}
    for first, second, _ in merges:  # a small region joins one of the smallest large ones that it touches
        if len({first, second} & large) == 1:
            small, into = sorted((first, second), key=lambda region: region in large)
            beside = {owner[a, b] for a, b in into if touch(frozenset([(a, b)]), small)}
            best = max(beside, key=lambda own: mean_cosine(features, smallest[own], small))
            owner |= dict.fromkeys(small, best)
    segment = list(range(len(smallest)))
    for first, second, cosine in merges:
        if cosine < tau:
            break
        if first in large and second in large:
            old, new = (segment[owner[next(iter(region))]] for region in (first, second))
            segment = [new if each == old else each for each in segment]
    return np.array([[segment[owner[row, col]] for col in range(size[1])] for row in range(size[0])])


def segments(features: torch.Tensor, taus=TAUS, **settings) -> list[np.ndarray]:
    """Of one map [1, channels, rows, cols] at each tau."""
    made = Agglomerative.together([Agglomerative(tau, **settings) for tau in taus], features)
    return [each[0].numpy() for each in made]


def patch_features() -> torch.Tensor:
    return torch.tensor(np.load(DATA / "recursive_ncut_coffee.npz")["features"]).float().T.reshape(1, -1, 32, 32)


@pytest.mark.parametrize("least", [1, 2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_textbook(least, seed):
    features = random_features(1, seed, 6, 7)
    counts = set()
    for tau, found in zip(TAUS, segments(features, min_patches=least), strict=True):
        assert same_partition(found, textbook(features[0].double().numpy(), tau, least)), tau
        counts.add(found.max())
    assert len(counts) > 3


def test_equals_the_textbook_on_planted_regions():
    features, truth = planted(2, size=14)
    features, truth = features[..., :9, :], truth[:9]
    for least, tau in ((1, 0.5), (4, 0.5), (4, 0.99)):
        (found,) = segments(features, [tau], min_patches=least)
        assert same_partition(found, textbook(features[0].double().numpy(), tau, least))
    assert same_partition(segments(features, [0.5])[0], truth)


def test_planted_regions_are_found():
    for seed in range(3):
        features, truth = planted(3, seed)
        assert same_partition(segments(features, [0.6])[0], truth)


def test_regions_and_masks_are_the_originals():
    """At UnSAM's thresholds, and at greater ones: its regions without a least size, and its masks of 4 patches."""
    original = np.load(DATA / "agglomerative_coffee.npz")
    taus = original["thresholds"].tolist()
    alone, ours = (segments(patch_features(), taus, min_patches=least) for least in (1, 4))
    assert set(np.round(taus, 1)) >= {0.6, 0.5, 0.4, 0.3}
    for tau, regions, found in zip(taus, original["regions"], alone, strict=True):
        assert same_partition(found, regions), tau
    for masks, found in zip(original["masks"], ours, strict=True):
        inside = [np.unique(found[masks == number]) for number in range(1, masks.max() + 1)]
        assert all(len(segment) == 1 for segment in inside), "a mask lies in one segment"
        assert len(np.unique(inside)) == len(inside), "and no two in the same"


@pytest.mark.parametrize("least", [1, 3, 4, 30])
def test_segments_are_nested_connected_and_of_enough_patches(least):
    for features in (random_features(1, 5), random_features(1, 6, 3, 40)):
        made = segments(features, min_patches=least)
        assert made[0].max() < made[-1].max() or least == 30
        for coarse, fine in pairwise(made):
            assert all(len(np.unique(coarse[fine == segment])) == 1 for segment in np.unique(fine))
        for found in made:
            for segment in np.unique(found):
                assert label(found == segment)[1] == 1
                assert (found == segment).sum() >= least


def test_the_tree_has_the_segments_of_each_tau():
    features, method = random_features(2, 7), Agglomerative(min_patches=3)
    tree = method.tree(features, 0.9)
    assert all(image.costs.lt(0.9).all() and image.parents for image in tree.images)
    for tau in (0, 0.3, 0.55, 0.9, *(tau for tau in tree.images[0].reached_at.tolist() if tau >= 0)):
        labels = tree.labels(tau).unflatten(1, features.shape[2:])
        assert torch.equal(labels, Agglomerative(tau, 3)(features))
    with pytest.raises(ValueError, match="answers"):
        tree.labels(0.91)


def test_cuts_are_in_depth_first_order():
    tree = Agglomerative(min_patches=2).tree(random_features(1, 8), 1.0).images[0]
    assert tree.costs.tolist() == tree.reached_at.tolist(), "a cut costs no less than the one that leads to it"
    divided = [torch.ones_like(tree.sides[0])]  # the patches that each cut divides
    path, sides_of_path = [0], [True]
    for cut, parent in enumerate(tree.parents[1:], start=1):
        first = bool((tree.sides[cut] & tree.sides[parent]).any())
        divided.append(tree.sides[parent] if first else divided[parent] & ~tree.sides[parent])
        while path[-1] != parent:
            done = path.pop()
            assert first < sides_of_path.pop() or path[-1] != parent, f"{done} is of the first side"
        path.append(cut)
        sides_of_path.append(first)
    for inside, side in zip(divided, tree.sides, strict=True):
        assert side.any() and (side <= inside).all() and (inside & ~side).any()


def test_merging_is_done_once_for_all_settings(monkeypatch):
    features = random_features(2, 1)
    methods = [Agglomerative(tau, least) for tau in (0.3, 0.9, 0.6) for least in (1, 4)]
    alone = [method(features) for method in methods]
    calls, original = [], module._Merging.of
    monkeypatch.setattr(module._Merging, "of", lambda *given: calls.append(given) or original(*given))
    for expected, found in zip(alone, Agglomerative.together(methods, features), strict=True):
        assert torch.equal(expected, found)
    assert len(calls) == 2  # images


def test_an_image_is_segmented_the_same_in_any_batch():
    features = random_features(3, 2)
    together = Agglomerative(0.8)(features)
    for number, image in enumerate(features):
        assert torch.equal(together[number], Agglomerative(0.8)(image[None])[0])
    assert torch.equal(together.flip(0), Agglomerative(0.8)(features.flip(0)))


@pytest.mark.parametrize("turn", TURNS)
def test_a_turned_map_has_the_turned_segments(turn):
    features = random_features(1, 3)
    for least in (1, 4):
        method = Agglomerative(0.85, least)
        assert method(features).max() > 3
        assert same_partition(turn(method(features)), method(turn(features)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (1, 3), (2, 2)])
def test_small_maps(shape):
    features = torch.randn(1, 4, *shape, generator=torch.Generator().manual_seed(0))
    for least, tau in product((1, 2, 4, 100), (0.0, 0.5, 1.0)):
        (found,) = segments(features, [tau], min_patches=least)
        assert found.shape == shape
        assert same_partition(found, textbook(features[0].double().numpy(), tau, least))
        assert np.bincount(found.ravel()).min() >= min(least, found.size)
    assert segments(features, [1.0], min_patches=100)[0].max() == 0


def test_equal_patches_are_one_segment_at_every_tau():
    for features in (torch.full((1, 3, 5, 6), 0.1), torch.randn(1, 3, 1, 1).expand(1, 3, 5, 6)):
        for least in (1, 4):
            assert all(found.max() == 0 for found in segments(features, min_patches=least))


def test_a_patch_without_features_is_like_none_that_has_some():
    features = torch.ones(1, 3, 4, 4)
    features[..., 1, 1] = 0
    (alone,) = segments(features, [0.5], min_patches=1)
    assert alone.max() == 1 and (alone == alone[1, 1]).sum() == 1
    assert segments(features, [0.5])[0].max() == 0
    features[..., 1:3, 1] = 0
    (alone,) = segments(features, [0.5], min_patches=1)
    assert alone.max() == 1 and (alone == alone[1, 1]).sum() == 2 and alone[1, 1] == alone[2, 1]
    for least in (1, 4):
        assert all(found.max() == 0 for found in segments(torch.zeros(1, 3, 4, 5), [0.0, 0.5, 1.0], min_patches=least))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"tau": -0.1}, "tau"), ({"tau": 1.1}, "tau"), ({"tau": "a"}, "tau"), ({"min_patches": 0}, "min_patches")],
)
def test_bad_options_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Agglomerative(**settings)


def test_features_that_are_no_numbers_are_refused():
    features = torch.ones(1, 2, 3, 3)
    features[0, 0, 1, 1] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        Agglomerative()(features)


def test_the_option_is_the_class_by_default():
    assert instantiate("segmenter", load_config(["segmenter=agglomerative"]).segmenter) == Agglomerative()
