import numpy as np
import pytest
import torch
from planted import TURNS, adjusted_rand, flood, planted, random_features

from diffcut_bench.config import instantiate, load_config
from diffcut_bench.segmenters import Lost


def textbook(features: torch.Tensor, expansion: int) -> np.ndarray:
    """Object of one map [channels, rows, cols], patch by patch."""
    shape = tuple(features.shape[1:])
    keys = features.flatten(1).T.double().numpy()
    n = len(keys)
    degree = [sum(keys[i] @ keys[j] > 0 for j in range(n)) for i in range(n)]
    by_degree = sorted(range(n), key=lambda i: (degree[i], i))
    seed = by_degree[0]
    chosen = [i for i in by_degree[:expansion] if keys[i] @ keys[seed] > 0]
    mask = np.array([sum(keys[i] @ keys[j] for j in chosen) > 0 for i in range(n)])
    return flood(mask.reshape(shape), seed)


@pytest.mark.parametrize("expansion", [1, 20, 100])
def test_agrees_with_the_textbook(expansion):
    features = random_features(6, seed=4)
    expected = np.stack([textbook(each, expansion) for each in features])
    assert np.array_equal(Lost(expansion)(features).numpy(), expected)
    assert 0 < expected.mean() < 1


def test_expansion_matters():
    features = random_features(6, seed=4)
    assert not torch.equal(Lost(1)(features), Lost(40)(features))


@pytest.mark.parametrize("blobs", [1, 2, 3])
def test_the_object_of_a_plain_ground_is_the_one_of_fewest_patches(blobs):
    for seed in range(4):
        features, truth = planted(blobs, seed)
        found = Lost()(features)[0].numpy()
        assert adjusted_rand(found, np.where(truth == blobs, 1, 0)) >= 0.98
        assert found[truth == blobs].mean() > 0.98, "1 is the object"


def test_keys_are_not_normalised():
    """One long key outweighs the others of the expansion set."""
    features = torch.zeros(1, 2, 1, 6)
    features[0, :, 0] = torch.tensor([[1.0, 0], [9, 9], [-1, 2], [-2, 0.5], [-2, 0.5], [-2, 0.5]]).T
    assert Lost(2)(features)[0].tolist() == [[1, 1, 1, 0, 0, 0]]
    unit = torch.nn.functional.normalize(features, dim=1)
    assert Lost(2)(unit)[0].tolist() != Lost(2)(features)[0].tolist()


def test_a_patch_without_any_similarity_is_no_part():
    features = torch.eye(3)[:, [0, 1, 2, 2]].view(1, 3, 2, 2)
    assert Lost()(features)[0].tolist() == [[1, 0], [0, 0]]


def test_images_do_not_influence_each_other(monkeypatch):
    import diffcut_bench.segmenters.lost as module

    features = random_features(3, seed=1)
    together = Lost()(features)
    assert torch.equal(together, torch.cat([Lost()(each[None]) for each in features]))
    monkeypatch.setattr(module, "images_at_once", lambda _: 2)
    assert torch.equal(Lost()(features), together)


def test_a_turned_image_has_a_turned_object():
    features = planted(3)[0]
    for turn in TURNS:
        assert torch.equal(Lost()(turn(features)), turn(Lost()(features)))


def test_checks_its_arguments():
    assert instantiate("segmenter", load_config(["segmenter=lost"]).segmenter) == Lost()
    assert Lost()(torch.rand(2, 3, 1, 1)).tolist() == [[[0]], [[0]]]
    assert not Lost()(torch.zeros(1, 3, 4, 4)).any()
    with pytest.raises(ValueError, match="expansion"):
        Lost(0)
