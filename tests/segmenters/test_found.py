import numpy as np
import pytest
import torch
from conftest import same_partition, shapes_overrides
from planted import adjusted_rand, cosines, planted, random_features

from diffcut_bench.config import instantiate, load_config
from diffcut_bench.errors import UserError
from diffcut_bench.segmenters import Found


def attended(features: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
    return torch.cat([features, attention], dim=1)


def textbook(features: torch.Tensor, attention: torch.Tensor | None, tau: float) -> np.ndarray:
    """Foreground of one map [channels, rows, cols]."""
    cosine = cosines(features.flatten(1).T)
    if attention is None:
        n = len(cosine)
        seed = np.argmax([sum(cosine[i, j] for j in range(n) if j != i) for i in range(n)])
    else:
        seed = np.argmin(attention.flatten(1).sum(dim=0).numpy())
    return (~(cosine[seed] > tau)).reshape(features.shape[1:])


@pytest.mark.parametrize("tau", [0.3, 0.0])
def test_agrees_with_the_textbook(tau):
    features = random_features(6, seed=4)
    attention = torch.rand(6, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    with_attention = Found(tau, attention_channels=3)(attended(features, attention))
    without = Found(tau)(features)
    for index, each in enumerate(features):
        assert np.array_equal(with_attention[index], textbook(each, attention[index], tau))
        assert np.array_equal(without[index], textbook(each, None, tau))
    assert not torch.equal(with_attention, without)


@pytest.mark.parametrize("blobs", [1, 2, 3])
def test_objects_of_a_plain_ground_are_what_is_attended(blobs):
    """All objects together: the least attended patch is ground, though single heads look at it."""
    for seed in range(4):
        features, truth = planted(blobs, seed)
        attention = torch.rand(1, 2, 16, 16, generator=torch.Generator().manual_seed(seed)) / 4
        attention += torch.tensor(truth > 0).float()
        attention[0, :, 15, 15] = torch.tensor([0.12, 0.0])  # least in the mean
        attention[0, :, 2, 2] = torch.tensor([0.0, 2.0])  # an object's patch, least of one head alone
        attention[0, :, 14, 14] = torch.tensor([0.0, 0.5])
        partition = Found(attention_channels=2)(attended(features, attention))[0].numpy()
        assert adjusted_rand(partition, np.where(truth > 0, 1, 0)) >= 0.98
        assert partition[truth > 0].mean() > 0.98, "1 is the foreground"


def test_without_attention_the_seed_is_on_the_ground():
    features, truth = planted(2)
    assert same_partition(Found()(features)[0], truth > 0), "both objects against the ground"


def test_permuted_patches_give_a_permuted_partition():
    features = random_features(3, seed=6)
    order = torch.randperm(99, generator=torch.Generator().manual_seed(0))
    for channels in (0, 2):
        segmenter = Found(attention_channels=channels)
        mixed = segmenter(features.flatten(2)[:, :, order].unflatten(2, (9, 11))).flatten(1)
        assert torch.equal(mixed, segmenter(features).flatten(1)[:, order])


def test_images_do_not_influence_each_other():
    features = random_features(3, seed=1)
    for channels in (0, 2):
        segmenter = Found(attention_channels=channels)
        assert torch.equal(segmenter(features), torch.cat([segmenter(each[None]) for each in features]))


def test_one_side_alone_is_one_segment():
    assert not Found(tau=-1)(random_features(1, seed=0)).any()
    assert not Found()(torch.zeros(1, 3, 4, 4)).any()


def test_checks_its_arguments():
    ablated = load_config(["segmenter=found", "backbone=efficientnet_lite0"])
    assert instantiate("segmenter", ablated.segmenter) == Found()
    own = load_config(["segmenter=found"])
    assert own.choices["backbone"] == "dino_s8_attention"
    assert instantiate("segmenter", own.segmenter) == Found(attention_channels=6)
    for wrong in ({"tau": 2}, {"attention_channels": -1}, {"attention_channels": 1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Found(**wrong)
    with pytest.raises(UserError, match="6 of the 6 feature channels"):
        Found(attention_channels=6)(random_features(1, seed=0))


def test_channels_that_are_no_attention_are_not_taken_for_it(cli, shapes, tmp_path):
    base = [*shapes_overrides(shapes, tmp_path), "segmenter=found", "backbone=efficientnet_lite0", "limit=1"]
    picture = next((shapes / "images").glob("*"))
    for command in (("run",), ("segment", picture)):
        done = cli(*command, *base, "segmenter.attention_channels=6")
        assert done.code == 2
        assert "the segmenter takes the last 6 channels for attention, and the backbone gives 0" in done.err
