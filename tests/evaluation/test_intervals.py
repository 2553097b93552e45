import numpy as np
import pytest
import torch

from diffcut_bench.evaluation import ImageTable, compare_images, percentile_interval, score_images
from diffcut_bench.evaluation.intervals import resampled_sums


def interval(values: np.ndarray, resamples: int = 2000, seed: int = 42) -> torch.Tensor:
    """Of the mean of some numbers."""
    (sums,) = resampled_sums([torch.from_numpy(np.stack([values, np.ones_like(values)], axis=1))], resamples, seed)
    return percentile_interval(sums[:, :1] / sums[:, 1:])[:, 0]


def test_equals_a_loop_over_the_same_resamples():
    values = np.random.default_rng(1).normal(size=30)
    draws = np.random.default_rng(7).multinomial(30, np.full(30, 1 / 30), size=500)
    looped = [np.repeat(values, draw).mean() for draw in draws]
    expected = np.quantile(looped, [0.025, 0.975]).tolist()
    assert interval(values, resamples=500, seed=7).tolist() == pytest.approx(expected)


def test_resamples_drawn_in_blocks_are_the_same(monkeypatch):
    values = np.random.default_rng(2).normal(size=30)
    whole = interval(values, resamples=50)
    monkeypatch.setattr("diffcut_bench.evaluation.intervals._DRAWN_AT_ONCE", 100)
    assert interval(values, resamples=50).allclose(whole, rtol=1e-12)


def test_statistics_drawn_together_are_those_drawn_alone():
    generator = torch.Generator().manual_seed(3)
    statistics = [torch.rand(30, columns, generator=generator, dtype=torch.float64) for columns in (61, 2, 1)]
    together = resampled_sums(statistics, resamples=50)
    for own, statistic in zip(together, statistics, strict=True):
        assert torch.equal(own, resampled_sums([statistic], resamples=50)[0])


def test_covers_the_truth_in_about_95_percent_of_trials():
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        low, high = interval(generator.normal(3, 1, 60), resamples=400, seed=trial).tolist()
        covered += low <= 3 <= high
    assert 180 <= covered <= 198


def test_one_image_has_an_interval_of_no_width():
    assert interval(np.array([4.0])).tolist() == [4.0, 4.0]


CLASSES, PIXELS = 4, 200
HIT_RATES = np.array([0.9, 0.7, 0.5, 0.3])


def data_set(generator: np.random.Generator, images: int, gain: float = 0.0) -> tuple[ImageTable, ImageTable]:
    """Counts of two methods on the same images, of a population whose mIoU is known (`truth`).

    An image is easy or hard for both; each class has PIXELS pixels, of which a method finds a binomial share; as many
    as it misses it gives to the class wrongly.
    """
    ease = generator.uniform(-0.1, 0.1, (images, 1))
    tables = []
    for shift in (0.0, gain):
        tp = torch.from_numpy(generator.binomial(PIXELS, np.clip(HIT_RATES + ease + shift, 0, 1)))
        pixels = torch.full((images,), CLASSES * PIXELS)
        tables.append(ImageTable(tp, PIXELS - tp, PIXELS - tp, pixels, torch.full((images,), CLASSES)))
    return tables[0], tables[1]


def truth(gain: float = 0.0) -> float:
    # Sums over infinitely many images: TP = r, FP = FN = 1 - r of each class's pixels.
    rates = HIT_RATES + gain
    return float((rates / (2 - rates)).mean())


def test_the_interval_of_a_data_sets_miou_covers_the_truth_in_about_95_percent_of_trials():
    generator = np.random.default_rng(5)
    covered = 0
    for trial in range(200):
        estimate = score_images(data_set(generator, 40)[0], {}, resamples=400, seed=trial)["miou"]
        low, high = estimate.interval[:, 0].tolist()
        covered += low <= truth() <= high
    assert 180 <= covered <= 198


def difference(generator: np.random.Generator, gain: float):
    first, second = data_set(generator, 60, gain)
    return compare_images(first, second, ({}, {}), resamples=400, seed=3)["miou"]


def test_the_paired_bootstrap_finds_a_planted_difference_that_the_intervals_hide():
    generator = np.random.default_rng(6)
    found = covered = 0
    for _ in range(50):
        told = difference(generator, gain=0.01)
        low, high = told.interval[:, 0].tolist()
        found += low > 0 and told.p_value[0].item() < 0.05
        covered += low <= truth(0.01) - truth() <= high
    assert found >= 45
    assert covered >= 43
    first, _ = data_set(generator, 40)
    low, high = score_images(first, {}, resamples=400)["miou"].interval[:, 0].tolist()
    assert high - low > 2 * (truth(0.01) - truth()), "each interval alone is wider than the difference"


def test_the_paired_bootstrap_does_not_find_an_absent_difference():
    generator = np.random.default_rng(7)
    false_alarms = 0
    for _ in range(200):
        told = difference(generator, gain=0.0)
        false_alarms += told.p_value[0].item() < 0.05
    assert 2 <= false_alarms <= 20, "about five percent"


def test_a_method_does_not_differ_from_itself_and_signs_follow_the_order():
    first, second = data_set(np.random.default_rng(8), 30, 0.05)
    same = compare_images(first, first, ({}, {}))["miou"]
    assert same.difference[0] == 0
    assert same.interval[:, 0].tolist() == [0, 0]
    assert same.p_value[0] == 1
    there = compare_images(first, second, ({}, {}))["miou"]
    back = compare_images(second, first, ({}, {}))["miou"]
    assert there.difference[0] == pytest.approx(-back.difference[0].item())
    assert there.interval[0, 0] == pytest.approx(-back.interval[1, 0].item())
    assert there.p_value[0] == back.p_value[0] < 0.01


def test_pairs_have_to_be_pairs():
    first, second = data_set(np.random.default_rng(9), 30)[0], data_set(np.random.default_rng(9), 20)[0]
    with pytest.raises(ValueError, match="30 and 20"):
        compare_images(first, second, ({}, {}))


def test_each_method_is_scored_under_its_own_protocol():
    images = ImageTable(*torch.tensor([[[3, 0]], [[1, 0]], [[0, 0]]]), torch.tensor([4]), torch.tensor([2]))
    told = compare_images(images, images, ({"absent_classes": "nan"}, {"absent_classes": "zero"}), resamples=50)["miou"]
    assert (told.first[0].item(), told.second[0].item()) == (0.75, 0.375)
