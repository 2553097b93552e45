import pytest
import torch

from diffcut_bench.ncut import recursive_ncut
from diffcut_bench.segmenters import DiffCut, Segmenter


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
