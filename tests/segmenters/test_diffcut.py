import pytest
import torch

from diffcut_bench.ncut import recursive_ncut
from diffcut_bench.segmenters import DiffCut


def test_is_recursive_ncut_on_a_feature_map():
    features = torch.rand(2, 6, 5, 7)
    partition = DiffCut(tau=0.8, alpha=6, zero_affinity="keep")(features)
    assert partition.shape == (2, 5, 7)
    flat = recursive_ncut(features.flatten(2).transpose(1, 2), 0.8, 6, zero_affinity="keep")
    assert torch.equal(partition.flatten(1), flat)


def test_checks_its_arguments_at_once():
    with pytest.raises(ValueError, match="tau"):
        DiffCut(tau=2)


def test_settings_together_equal_each_alone():
    features = torch.rand(2, 6, 9, 8, generator=torch.Generator().manual_seed(1))
    segmenters = [
        DiffCut(tau=0.9, alpha=4),
        DiffCut(tau=0.5, alpha=4),
        DiffCut(tau=0.7, alpha=9),
        DiffCut(tau=0.9, alpha=4, label_codes="float32"),
        DiffCut(tau=0.8, alpha=4, zero_affinity="keep"),
    ]
    for segmenter, together in zip(segmenters, DiffCut.together(segmenters, features), strict=True):
        assert torch.equal(together, segmenter(features))


def test_cosines_are_computed_once_and_a_recursion_an_alpha(monkeypatch):
    import diffcut_bench.ncut.recursive as recursive

    calls = []
    for name in ("scaled_cosines", "cut_recursively"):
        original = getattr(recursive, name)
        monkeypatch.setattr(recursive, name, lambda *a, n=name, f=original: calls.append(n) or f(*a))
    segmenters = [DiffCut(tau=tau, alpha=alpha) for tau in (0.3, 0.5, 0.7, 0.9) for alpha in (2, 5, 10)]
    DiffCut.together(segmenters, torch.rand(2, 4, 6, 6))
    assert calls.count("scaled_cosines") == 1
    assert calls.count("cut_recursively") == 3
