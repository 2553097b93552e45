import numpy as np
import pytest
import torch
from conftest import DATA, agreement

from diffcut_bench.refinement import ConceptUpsampler, NearestUpsampler, assign_concepts, upsample_nearest

GOLDEN = [(0.5, 5), (0.4, 8), (0.6, 5), (0.3, 8)]


def pixelwise(features: torch.Tensor, partition: torch.Tensor, size: int, *, cosine: bool) -> torch.Tensor:
    """The paper's steps one by one, on one image: upsample the features, compare each pixel with each concept."""
    unit = features / features.norm(dim=0, keepdim=True)
    concepts = torch.stack([unit[:, partition == k].mean(dim=1) for k in range(int(partition.max()) + 1)])
    pixels = torch.nn.functional.interpolate(unit[None], (size, size), mode="bilinear", align_corners=False)[0]
    if cosine:
        pixels = pixels / pixels.norm(dim=0, keepdim=True)
        concepts = concepts / concepts.norm(dim=1, keepdim=True)
    return torch.einsum("kc,chw->khw", concepts, pixels).argmax(dim=0)


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_equals_the_pixelwise_computation(similarity):
    features = torch.rand(12, 6, 6, dtype=torch.float64).float()
    partition = torch.randint(0, 5, (6, 6))
    partition[0, :5] = torch.arange(5)
    ours = assign_concepts(features[None], partition[None], (40, 40), similarity)[0]
    assert (ours == pixelwise(features, partition, 40, cosine=similarity == "cosine")).float().mean() > 0.999


@pytest.mark.parametrize(("tau", "alpha"), GOLDEN)
def test_equals_the_released_map_of_coffee(tau, alpha):
    golden = np.load(DATA / "recursive_ncut_coffee.npz")
    features = torch.from_numpy(golden["features"]).float().T.reshape(1, 320, 32, 32)
    partition = torch.from_numpy(golden[f"partition_tau{tau}_alpha{alpha}"]).long()
    ours = assign_concepts(features, partition[None], (128, 128), "dot")[0].numpy()
    assert agreement(ours, golden[f"assigned_tau{tau}_alpha{alpha}"].astype(int)) >= 0.995


@pytest.mark.shared
@pytest.mark.parametrize(("tau", "alpha"), GOLDEN)
def test_equals_all_released_maps(shared, tau, alpha):
    golden = np.load(shared / "golden" / "recursive_ncut.npz")
    features = torch.from_numpy(golden["features"]).float().transpose(1, 2).reshape(8, 320, 32, 32)
    partition = torch.from_numpy(golden[f"partition_tau{tau}_alpha{alpha}"]).long()
    partition = torch.stack([image.unique(return_inverse=True)[1] for image in partition])
    ours = assign_concepts(features, partition, (128, 128), "dot").numpy()
    released = golden[f"assigned_tau{tau}_alpha{alpha}"].astype(int)
    assert min(agreement(a, b) for a, b in zip(ours, released, strict=True)) >= 0.995


def test_images_with_different_numbers_of_segments_do_not_mix():
    features = torch.rand(2, 8, 4, 4)
    partition = torch.zeros(2, 4, 4, dtype=torch.long)
    partition[1] = torch.arange(16).reshape(4, 4)
    both = assign_concepts(features, partition, (9, 9))
    assert both[0].max() == 0
    assert torch.equal(both[1], assign_concepts(features[1:], partition[1:], (9, 9))[0])


def test_unknown_similarity_is_refused():
    # The tests' run-time type check may be the first to refuse it.
    with pytest.raises((ValueError, TypeError), match="similarity"):
        ConceptUpsampler("l2")


def test_nearest_repeats_patches():
    partition = torch.tensor([[[0, 1], [2, 3]]])
    expected = partition.repeat_interleave(3, dim=1).repeat_interleave(3, dim=2)
    assert torch.equal(upsample_nearest(partition, (6, 6)), expected)


def test_options_do_what_the_functions_do():
    features, partition = torch.rand(1, 8, 4, 4), torch.randint(0, 3, (1, 4, 4))
    assert torch.equal(
        ConceptUpsampler("cosine")(features, partition, (8, 8)), assign_concepts(features, partition, (8, 8), "cosine")
    )
    assert torch.equal(NearestUpsampler()(features, partition, (8, 8)), upsample_nearest(partition, (8, 8)))
