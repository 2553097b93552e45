import torch
from conftest import blobs

from diffcut_bench.bench import compare_tau_path, compare_with_textbook


def test_comparison_with_the_textbook_reports_equal_partitions():
    features = torch.cat([blobs(4, 20, seed=seed)[0] for seed in range(2)])
    row = compare_with_textbook(features, 0.5, 8, repeats=1)
    assert row.images == 2
    assert row.agreement == 1.0
    assert row.ratio == row.other_s / row.ours_s


def test_tau_path_ends_at_the_largest_tau():
    row = compare_tau_path(torch.rand(2, 50, 6), [0.2, 0.9, 0.5], 8, repeats=1)
    assert row.agreement == 1.0
    assert "3 taus" in row.what
