import pytest
import torch

from diffcut_bench.ncut import recursive_ncut
from diffcut_bench.segmenters import DiffCut, Segmenter, segment_together


def test_is_recursive_ncut_on_a_feature_map():
    features = torch.rand(2, 6, 5, 7)
    partition = DiffCut(tau=0.8, alpha=6, zero_affinity="keep")(features)
    assert partition.shape == (2, 5, 7)
    flat = recursive_ncut(features.flatten(2).transpose(1, 2), 0.8, 6, zero_affinity="keep")
    assert torch.equal(partition.flatten(1), flat)


def test_fits_the_interface_and_checks_its_arguments_at_once():
    assert isinstance(DiffCut(), Segmenter)
    with pytest.raises(ValueError, match="tau"):
        DiffCut(tau=2)


def test_settings_together_equal_each_alone():
    features = torch.rand(2, 6, 9, 8, generator=torch.Generator().manual_seed(1))
    segmenters = [
        *(DiffCut(tau=0.9, alpha=4), DiffCut(tau=0.5, alpha=4), DiffCut(tau=0.7, alpha=9)),
        *(DiffCut(tau=0.9, alpha=4, label_codes="float32"), DiffCut(tau=0.8, alpha=4, zero_affinity="keep")),
    ]
    for segmenter, together in zip(segmenters, segment_together(segmenters, features), strict=True):
        assert torch.equal(together, segmenter(features))


def test_cosines_are_computed_once_and_a_recursion_an_alpha(monkeypatch):
    import diffcut_bench.ncut.recursive as recursive

    calls = []
    for name in ("scaled_cosines", "cut_recursively"):
        original = getattr(recursive, name)
        monkeypatch.setattr(recursive, name, lambda *a, n=name, f=original: calls.append(n) or f(*a))
    segmenters = [DiffCut(tau=tau, alpha=alpha) for tau in (0.3, 0.5, 0.7, 0.9) for alpha in (2, 5, 10)]
    segment_together(segmenters, torch.rand(2, 4, 6, 6))
    assert calls.count("scaled_cosines") == 1
    assert calls.count("cut_recursively") == 3


class Plain:
    """A segmenter that shares no work."""

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(features), *features.shape[2:], dtype=torch.long)


def test_segmenters_that_share_nothing_keep_their_place():
    features = torch.rand(1, 4, 6, 6)
    first, second, third = segment_together([DiffCut(tau=0.9), Plain(), DiffCut(tau=0.2)], features)
    assert not second.any()
    assert torch.equal(first, DiffCut(tau=0.9)(features))
    assert torch.equal(third, DiffCut(tau=0.2)(features))
