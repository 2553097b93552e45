import numpy as np
import pytest
import torch
from conftest import DATA, blobs

from diffcut_bench.bench import compare_lookup, compare_tau_path, compare_with_textbook


def test_comparison_with_the_textbook_reports_equal_partitions():
    features = torch.cat([blobs(4, 20, seed=seed)[0] for seed in range(2)])
    row = compare_with_textbook(features, 0.5, 8, repeats=1)
    assert row.images == 2
    assert row.agreement == 1.0
    assert row.segments == 4


@pytest.mark.slow
def test_the_cut_is_far_faster_than_the_textbook_on_real_features():
    features = torch.from_numpy(np.load(DATA / "recursive_ncut_coffee.npz")["features"])[None].float()
    row = compare_with_textbook(features, 0.5, 5, repeats=1)
    assert row.agreement == 1.0
    assert row.ratio > 4  # some 40 on an idle machine; a ratio within one run, with room for a busy one


def test_lookup_equals_the_dictionary():
    lookup = np.arange(256) % 7
    row = compare_lookup([np.random.default_rng(0).integers(0, 256, (20, 30))], lookup, repeats=1)
    assert row.agreement == 1.0


def test_tau_path_ends_at_the_largest_tau():
    row = compare_tau_path(torch.rand(2, 50, 6), [0.2, 0.9, 0.5], 8, repeats=1)
    assert row.agreement == 1.0
    assert "3 taus" in row.what
