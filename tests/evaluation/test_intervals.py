import numpy as np
import pytest
import torch

from diffcut_bench.evaluation import bootstrap_interval


def mean(sums: torch.Tensor) -> torch.Tensor:
    return sums[:, :1] / sums[:, 1:]


def rows(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack([values, np.ones_like(values)], axis=1))


def test_equals_a_loop_over_the_same_resamples():
    values = np.random.default_rng(1).normal(size=30)
    draws = np.random.default_rng(7).multinomial(30, np.full(30, 1 / 30), size=500)
    looped = [np.repeat(values, draw).mean() for draw in draws]
    ours = bootstrap_interval(rows(values), mean, resamples=500, seed=7)[:, 0]
    assert ours.tolist() == pytest.approx(np.quantile(looped, [0.025, 0.975]).tolist())


def test_covers_the_truth_in_about_95_percent_of_trials():
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        low, high = bootstrap_interval(rows(generator.normal(3, 1, 60)), mean, resamples=400, seed=trial)[:, 0].tolist()
        covered += low <= 3 <= high
    assert 180 <= covered <= 198


def test_one_image_has_an_interval_of_no_width():
    low, high = bootstrap_interval(rows(np.array([4.0])), mean)[:, 0].tolist()
    assert low == high == 4.0
