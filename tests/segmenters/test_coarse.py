import pytest
import torch

from diffcut_bench.config import instantiate, load_config
from diffcut_bench.ncut import coarse_to_fine_ncut
from diffcut_bench.segmenters import DiffCut, GraphTooLargeError


def test_is_the_coarse_to_fine_cut():
    features = torch.rand(2, 6, 12, 14)
    approximate = DiffCut(0.8, 6, zero_affinity="keep", approximation="coarse_to_fine", coarse_patches=50)(features)
    assert torch.equal(approximate, coarse_to_fine_ncut(features, 0.8, 6, zero_affinity="keep", coarse_patches=50))
    assert approximate.shape == (2, 12, 14)


def test_settings_that_run_together_keep_their_own_grids():
    generator = torch.Generator().manual_seed(0)
    features = torch.nn.functional.interpolate(torch.randn(2, 6, 4, 5, generator=generator), (12, 14), mode="bilinear")
    segmenters = [
        DiffCut(tau, alpha, approximation=approximation, coarse_patches=cells)
        for tau, alpha in ((0.8, 6), (0.7, 6), (0.8, 9))
        for approximation, cells in (("none", 50), ("coarse_to_fine", 50), ("coarse_to_fine", 30))
    ]
    for segmenter, partition in zip(segmenters, DiffCut.together(segmenters, features), strict=True):
        assert torch.equal(partition, segmenter(features))
    alike = [segmenter(features)[0] for segmenter in segmenters[:3]]
    assert len({tuple(labels.flatten().tolist()) for labels in alike}) == 3


def test_the_approximation_is_an_option_and_exact_by_default():
    assert instantiate("segmenter", load_config([]).segmenter).approximation == "none"
    chosen = ["segmenter.approximation=coarse_to_fine", "segmenter.coarse_patches=900"]
    segmenter = instantiate("segmenter", load_config(chosen).segmenter)
    assert (segmenter.approximation, segmenter.coarse_patches) == ("coarse_to_fine", 900)


def test_the_approximation_takes_what_the_exact_cut_refuses():
    features = torch.rand(1, 3, 80, 80)
    with pytest.raises(GraphTooLargeError):
        DiffCut(max_memory_gib=0.1)(features)
    approximate = DiffCut(max_memory_gib=0.1, approximation="coarse_to_fine", coarse_patches=400)
    assert approximate(features).shape == (1, 80, 80)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"approximation": "nystrom"}, "approximation must be one of none, coarse_to_fine"),
        ({"coarse_patches": 0}, "coarse_patches must be a whole number"),
        ({"coarse_patches": 10.5}, "coarse_patches must be a whole number"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        DiffCut(**arguments)
