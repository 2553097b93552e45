from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid
from torchmetrics.functional.classification import binary_auroc

from diffcut_bench.coherence.roc import auc, auc_interval, cosine, pair_scores, roc_points
from diffcut_bench.coherence.sampling import PatchGrid, Plan, SamplingOptions, draw_pairs, make_plan

CLASSES = 4


def planned(images: int = 12, seed: int = 0, **options: object) -> Plan:
    generator = np.random.default_rng(seed)
    chosen = SamplingOptions(patches=20, **options)
    grids = {
        f"i{number:02}": PatchGrid(generator.integers(0, CLASSES, (6, 6)), np.ones((6, 6))) for number in range(images)
    }
    return make_plan(grids, draw_pairs(list(grids), chosen), None, chosen)


def planted(plan: Plan, noise: float = 0.0, signal: float = 1.0) -> list[torch.Tensor]:
    """Features of the drawn patches: the class as a one-hot vector, and noise."""
    generator = torch.Generator().manual_seed(1)
    return [
        signal * torch.nn.functional.one_hot(torch.from_numpy(labels), CLASSES).float()
        + noise * torch.randn(len(labels), CLASSES, generator=generator)
        for labels in plan.labels
    ]


@pytest.mark.parametrize("pairs", ["across", "within", "both"])
def test_planted_classes_give_one(pairs):
    plan = planned(pairs=pairs)
    scores = pair_scores(planted(plan), plan)
    assert auc(scores, plan.same) == 1
    assert auc_interval(scores, plan, seed=0) == (1, 1)
    assert roc_points(scores, plan.same).tolist() == [[0, 0], [0, 1], [1, 1]]


@pytest.mark.parametrize("pairs", ["across", "within", "both"])
def test_noise_gives_one_half(pairs):
    plan = planned(images=30, pairs=pairs)
    features = [torch.randn(20, 64, generator=torch.Generator().manual_seed(n)) for n in range(len(plan.ids))]
    scores = pair_scores(features, plan)
    # Within an image there are 30 × 190 pairs, a quarter of one class: the standard deviation is below 0.01.
    assert auc(scores, plan.same) == pytest.approx(0.5, abs=0.03 if pairs == "within" else 0.01)


def test_constant_features_give_one_half():
    plan = planned(pairs="both")
    # Values whose products do not add up to a round number: rounding must not break the ties.
    constant = torch.rand(1, 321, generator=torch.Generator().manual_seed(0))
    scores = pair_scores([constant.expand(len(labels), -1) for labels in plan.labels], plan)
    assert auc(scores, plan.same) == 0.5
    assert auc_interval(scores, plan, seed=0) == (0.5, 0.5)


@pytest.mark.parametrize("seed", range(3))
def test_auc_equals_the_share_of_couples_in_order(seed):
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 12, 300).astype(np.float32) / 12  # many ties
    same = generator.random(300) < 0.2 + 0.5 * scores
    couples = scores[same][:, None] - scores[~same][None, :]
    assert auc(scores, same) == pytest.approx(((couples > 0) + 0.5 * (couples == 0)).mean(), abs=1e-12)
    assert auc(scores, same) == pytest.approx(
        binary_auroc(torch.from_numpy(scores), torch.from_numpy(same).long()).item(), abs=1e-6
    )
    # Every threshold is among the points, so the area under them is the AUC.
    assert trapezoid(*roc_points(scores, same).T[::-1]) == pytest.approx(auc(scores, same), abs=1e-12)


def test_a_thinned_curve_has_the_same_area():
    plan = planned()
    scores = pair_scores(planted(plan, noise=0.5), plan)
    points = roc_points(scores, plan.same)
    assert len(points) <= 200
    assert (np.diff(points, axis=0) >= 0).all()
    assert points[0].tolist() == [0, 0]
    assert points[-1].tolist() == [1, 1]
    assert trapezoid(*points.T[::-1]) == pytest.approx(auc(scores, plan.same), abs=5e-4)


def test_scores_are_the_cosines_of_the_pairs():
    plan = planned(images=3, pairs="both")
    features = planted(plan, noise=1)
    expected, truth = [], []
    for a, b in plan.pairs:
        for i, j in combinations(range(20), 2) if a == b else np.ndindex(20, 20):
            expected.append(torch.cosine_similarity(features[a][i], features[b][j], dim=0).item())
            truth.append(plan.labels[a][i] == plan.labels[b][j])
    scores = pair_scores(features, plan)
    assert np.abs(scores - expected).max() < 2e-6
    assert plan.same.tolist() == truth
    assert np.bincount(plan.unit).tolist() == [400, 400, 400, 190, 190, 190]


def test_cosine_of_a_zero_feature_is_zero():
    assert cosine(torch.zeros(1, 3), torch.rand(2, 3)).tolist() == [[0, 0]]
    assert cosine(torch.full((1, 3), -7.0), torch.full((1, 3), 0.1)).item() == -1


def test_the_interval_is_of_images():
    plan = planned(images=12)
    scores = pair_scores(planted(plan, noise=0.5), plan)
    low, high = auc_interval(scores, plan, seed=0)
    assert low < auc(scores, plan.same) < high
    assert (low, high) == auc_interval(scores, plan, seed=0)
    # Every image four times over: the same area from as good as no further images.
    wide = planned(images=48)
    low_48, high_48 = auc_interval(pair_scores(planted(wide, noise=0.5), wide), wide, seed=0)
    assert (high_48 - low_48) < (high - low)


def test_the_interval_covers_the_truth():
    truth = np.mean([_area(seed, images=40) for seed in range(100, 105)])
    covered = []
    for seed in range(40):
        plan = planned(images=20, seed=seed)
        scores = pair_scores(_image_effects(plan, seed), plan)
        low, high = auc_interval(scores, plan, seed=0, resamples=200)
        covered.append(low <= truth <= high)
    assert np.mean(covered) > 0.85  # 0.95 is meant; 0.92 was found with 60 draws


def _area(seed: int, images: int) -> float:
    plan = planned(images=images, seed=seed)
    return auc(pair_scores(_image_effects(plan, seed), plan), plan.same)


def _image_effects(plan: Plan, seed: int) -> list[torch.Tensor]:
    """Planted classes; all patches of an image share a shift, so that images and not patches are the unit."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.nn.functional.one_hot(torch.from_numpy(labels), CLASSES).float()
        + 0.5 * torch.randn(1, CLASSES, generator=generator)
        + 0.3 * torch.randn(len(labels), CLASSES, generator=generator)
        for labels in plan.labels
    ]
