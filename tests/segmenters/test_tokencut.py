import numpy as np
import pytest
import scipy.linalg
import torch
from conftest import DATA
from planted import TURNS, adjusted_rand, cosines, flood, planted, random_features

from diffcut_bench.config import instantiate, load_config
from diffcut_bench.segmenters import TokenCut

TAUS = (0.15, 0.3, 0.5)


def textbook(features: torch.Tensor, segmenter: TokenCut) -> np.ndarray:
    """Object of one map [channels, rows, cols] by the generalized eigenproblem itself."""
    weights = np.where(cosines(features.flatten(1).T) > segmenter.tau, 1.0, segmenter.eps)
    degree = np.diag(weights.sum(axis=1))
    vector = scipy.linalg.eigh(degree - weights, degree)[1][:, 1]
    seed = int(np.abs(vector).argmax())
    side = vector > vector.mean()
    return flood((side == side[seed]).reshape(features.shape[1:]), seed)


@pytest.mark.parametrize("tau", TAUS)
def test_objects_are_the_released_ones(tau):
    features = np.load(DATA / "recursive_ncut_coffee.npz")["features"]
    expected = np.load(DATA / "object_masks_coffee.npz")[f"tokencut_tau{tau}"]
    assert np.array_equal(TokenCut(tau=tau)(torch.tensor(features).T.reshape(1, -1, 32, 32))[0], expected)


@pytest.mark.shared
@pytest.mark.parametrize("tau", TAUS)
def test_all_golden_objects(shared, tau):
    features = np.load(shared / "golden" / "recursive_ncut.npz")["features"]
    expected = np.load(shared / "golden" / "baselines.npz")[f"tokencut_tau{tau}"]
    found = TokenCut(tau=tau)(torch.tensor(features).transpose(1, 2).unflatten(2, (32, 32)))
    assert np.array_equal(found.numpy(), expected)


@pytest.mark.parametrize("tau", [0.2, 0.6])
def test_agrees_with_the_textbook(tau):
    features = random_features(12, seed=5)
    expected = np.stack([textbook(each, TokenCut(tau)) for each in features])
    assert np.array_equal(TokenCut(tau)(features).numpy(), expected)


@pytest.mark.parametrize("blobs", [1, 2, 3])
def test_the_object_of_a_plain_ground_is_the_greatest(blobs):
    for seed in range(4):
        features, truth = planted(blobs, seed)
        found = TokenCut()(features)[0].numpy()
        assert adjusted_rand(found, np.where(truth == 1, 1, 0)) >= 0.98
        assert found[truth == 1].mean() > 0.98, "1 is the object"


def test_images_do_not_influence_each_other(monkeypatch):
    import diffcut_bench.segmenters.tokencut as module

    features = random_features(3, seed=1)
    together = TokenCut()(features)
    assert torch.equal(together, torch.cat([TokenCut()(each[None]) for each in features]))
    monkeypatch.setattr(module, "images_at_once", lambda _: 2)
    assert torch.equal(TokenCut()(features), together)


def test_a_turned_image_has_a_turned_object():
    features = random_features(6, seed=2, rows=10, cols=10)
    for turn in TURNS:
        assert torch.equal(TokenCut()(turn(features)), turn(TokenCut()(features)))


def test_checks_its_arguments():
    assert instantiate("segmenter", load_config(["segmenter=tokencut"]).segmenter) == TokenCut()
    assert TokenCut()(torch.rand(2, 3, 1, 1)).tolist() == [[[0]], [[0]]]
    assert TokenCut()(planted(1)[0].half()).unique().tolist() == [0, 1]
    for wrong in ({"tau": -2}, {"eps": 0}, {"eps": True}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            TokenCut(**wrong)
