import torch

from diffcut_bench.ncut import affinity


def test_least_similar_pair_is_zero_and_most_similar_is_one():
    weights = affinity(torch.randn(2, 30, 8), alpha=3)
    assert torch.equal(weights.amin(dim=(1, 2)), torch.zeros(2))
    assert torch.equal(weights.amax(dim=(1, 2)), torch.ones(2))


def test_is_the_power_of_the_scaled_cosine():
    features = torch.randn(1, 12, 5, dtype=torch.float64)
    unit = features[0] / features[0].norm(dim=1, keepdim=True)
    cosine = unit @ unit.T
    scaled = (cosine - cosine.min()) / (cosine.max() - cosine.min())
    assert torch.allclose(affinity(features, 7)[0], scaled**7)


def test_does_not_depend_on_the_scale_of_a_patch():
    features = torch.randn(1, 20, 6)
    scale = torch.rand(1, 20, 1) * 100 + 0.01
    assert torch.allclose(affinity(features * scale, 5), affinity(features, 5), atol=1e-5)


def test_without_contrast_everything_is_alike():
    assert torch.equal(affinity(torch.ones(1, 50, 320) * 0.37, 10), torch.ones(1, 50, 50))


def test_a_zero_feature_gives_finite_affinities():
    features = torch.rand(1, 10, 4)
    features[0, 3] = 0
    assert torch.isfinite(affinity(features, 10)).all()
