"""A GPU gives what the CPU gives; on a machine without one the same tests run on the CPU."""

from dataclasses import replace

import pytest
import torch
from conftest import same_partition
from on_device import DEVICE, golden, real_features

from benchmarks.encoder import colour_fields
from benchmarks.random_weights import ARCHITECTURES, write_random_checkpoint
from diffcut_bench.backbones import DiffusionEncoder
from diffcut_bench.evaluation import contingency_tables, match_image, merge_backgrounds, number_by_first_pixel
from diffcut_bench.ncut import NCutTree, ncut_tree, recursive_ncut
from diffcut_bench.refinement import assign_concepts, pamr, refine_labels

pytestmark = pytest.mark.gpu

_TAUS = [0.05 * step for step in range(1, 11)]
# Of pixels: the best two of a few of them differ by rounding alone.
_NEARLY_ALL = 0.9995


@pytest.fixture(scope="module")
def cut() -> tuple[torch.Tensor, NCutTree]:
    """Features [2, 1024, 320] and their tree, on the CPU."""
    features = real_features(2)
    return features, ncut_tree(features, max(_TAUS), 5)


def random_labels(ids: int, batch: int = 3, size: int = 40, seed: int = 0) -> torch.Tensor:
    """Blocks of ids 0..ids − 1 [batch, size, size]."""
    small = torch.randint(0, ids, (batch, size // 4, size // 4), generator=torch.Generator().manual_seed(seed))
    return small.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)


@pytest.mark.parametrize(("tau", "alpha"), [(0.5, 5), (0.4, 8), (0.6, 5), (0.3, 8)])
def test_the_cut_gives_the_released_partitions(tau, alpha):
    released = golden()
    images = 1 if DEVICE.type == "cpu" else len(released["features"])  # tests/ncut has all of them on the CPU
    features = torch.from_numpy(released["features"])[:images]
    expected = released[f"partition_tau{tau}_alpha{alpha}"][:images]
    labels = recursive_ncut(features.to(DEVICE), tau, alpha, label_codes="float32").cpu()
    assert all(same_partition(*pair) for pair in zip(labels, expected, strict=True))


@pytest.mark.parametrize("alpha", [5, 10])
def test_the_cut_of_a_batch_is_that_of_each_image_on_the_cpu(alpha):
    features = real_features(2 if DEVICE.type == "cpu" else 64)
    labels = recursive_ncut(features.to(DEVICE), 0.5, alpha).cpu()
    different = len(golden()["features"])
    for index, image in enumerate(labels):
        if index < different:
            alone = recursive_ncut(features[index : index + 1], 0.5, alpha)[0]
            assert same_partition(image, alone), index
        else:
            assert same_partition(image, labels[index % different]), index


@pytest.mark.parametrize("label_codes", ["exact", "float32"])
def test_the_labels_of_a_tree_are_those_of_the_cpu(cut, label_codes):
    _, tree = cut
    images = [replace(image, costs=image.costs.to(DEVICE), sides=image.sides.to(DEVICE)) for image in tree.images]
    moved = NCutTree(images, tree.max_tau)
    for tau in _TAUS:
        assert torch.equal(moved.labels(tau, label_codes).cpu(), tree.labels(tau, label_codes)), tau


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_concepts_are_those_of_the_cpu(cut, similarity):
    features, tree = cut
    maps, partition = features.mT.unflatten(2, (32, 32)), tree.labels(max(_TAUS)).unflatten(1, (32, 32))
    expected = assign_concepts(maps, partition, (128, 128), similarity)
    found = assign_concepts(maps.to(DEVICE), partition.to(DEVICE), (128, 128), similarity).cpu()
    assert (found == expected).float().mean() >= _NEARLY_ALL


def test_pamr_refines_as_on_the_cpu():
    image, labels = colour_fields(3, 40, torch.device("cpu")), random_labels(5)
    masks = torch.nn.functional.one_hot(labels).movedim(3, 1).float()
    torch.testing.assert_close(pamr(image.to(DEVICE), masks.to(DEVICE)).cpu(), pamr(image, masks), rtol=0, atol=1e-4)
    found = refine_labels(image.to(DEVICE), labels.to(DEVICE)).cpu()
    assert (found == refine_labels(image, labels)).float().mean() >= _NEARLY_ALL


@pytest.mark.parametrize("rule", ["unmatched", "overlap", "one_to_one"])
def test_counts_are_those_of_the_cpu_to_the_pixel(rule):
    prediction, labels = random_labels(9), random_labels(6, seed=1) - 1
    there = prediction.to(DEVICE), labels.to(DEVICE)
    merged = merge_backgrounds(prediction, labels, 5, 0, rule)
    assert torch.equal(merge_backgrounds(*there, 5, 0, rule).cpu(), merged)
    tables = contingency_tables(merged.to(DEVICE), there[1], 5)
    assert all(map(torch.equal, tables, contingency_tables(merged, labels, 5)))
    assert torch.equal(number_by_first_pixel(there[0]).cpu(), number_by_first_pixel(prediction))
    for surplus in ("absent_class", "unmatched"):
        for index in range(len(labels)):
            choices = {"num_classes": 5, "background_rule": rule, "background": 0, "surplus": surplus}
            found = match_image(there[0][index], there[1][index], **choices)
            assert all(map(torch.equal, found, match_image(prediction[index], labels[index], **choices)))


def test_a_diffusion_encoder_sees_what_it_sees_on_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", str(tmp_path / "assets"))
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    write_random_checkpoint(tmp_path / "tiny", ARCHITECTURES["tiny"])
    images = colour_fields(2, 128, torch.device("cpu"))

    def features(device: torch.device, dtype: str) -> torch.Tensor:
        dtypes = dict.fromkeys(("vae_dtype", "unet_dtype", "prompt_dtype"), dtype)
        encoder = DiffusionEncoder("tiny", str(tmp_path / "tiny"), generator="cpu", **dtypes).to(device)
        return encoder(images.to(device)).cpu().float()

    expected = features(torch.device("cpu"), "float32")
    torch.testing.assert_close(features(DEVICE, "float32"), expected, rtol=1e-3, atol=1e-4)
    cosine = torch.nn.functional.cosine_similarity(features(DEVICE, "bfloat16"), expected, dim=1)
    assert cosine.min() > 0.99
