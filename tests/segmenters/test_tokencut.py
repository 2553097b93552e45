import numpy as np
import pytest
import scipy.linalg
import torch
from conftest import DATA, shapes_overrides
from planted import TURNS, adjusted_rand, alike, cosines, flood, planted, random_features, threshold
from test_vision_transformer import write_checkpoint

from diffcut_bench.config import instantiate, load_config
from diffcut_bench.segmenters import TokenCut, as_segmenter
from diffcut_bench.segmenters.objects import binary_affinity, thresholds
from diffcut_bench.store import read_result

TAUS = (0.15, 0.3, 0.5)


def textbook(features: torch.Tensor, segmenter: TokenCut) -> np.ndarray:
    """Object of one map [channels, rows, cols] by the generalized eigenproblem itself."""
    nodes = features.flatten(1).T
    weights = np.where(cosines(nodes) > threshold(nodes, segmenter), 1.0, segmenter.eps)
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


@pytest.mark.parametrize(
    "segmenter", [TokenCut(0.2), TokenCut(0.6), TokenCut(tau_quantile=0.5), TokenCut(tau_quantile=0.8)], ids=str
)
def test_agrees_with_the_textbook(segmenter):
    features = random_features(12, seed=5)
    expected = np.stack([textbook(each, segmenter) for each in features])
    assert np.array_equal(segmenter(features).numpy(), expected)


@pytest.mark.parametrize("quantile", [0, 0.1, 0.55, 0.9, 1])
def test_a_quantile_joins_the_rest_of_the_pairs(quantile):
    nodes = random_features(3, seed=4).flatten(2).mT
    joined = binary_affinity(nodes, thresholds(nodes, 0.2, quantile), 1e-5) == 1
    assert torch.equal(joined, joined.mT)
    others = ~torch.eye(nodes.shape[1], dtype=torch.bool)
    torch.testing.assert_close(
        joined[:, others].double().mean(dim=1), torch.full((3,), 1 - quantile).double(), atol=3e-4, rtol=0
    )
    shifted = thresholds(alike(nodes.mT.unflatten(2, (9, 11))).flatten(2).mT, 0.2, quantile)
    assert (shifted > 0.5).all(), "the threshold follows the image's cosines"


def test_a_quantile_finds_the_object_where_all_patches_are_alike():
    for seed in range(3):
        features, truth = planted(2, seed)
        assert adjusted_rand(TokenCut()(alike(features))[0].numpy(), np.where(truth == 1, 1, 0)) < 0.1
        found = TokenCut(tau_quantile=0.5)(alike(features))[0].numpy()
        assert adjusted_rand(found, np.where(truth == 1, 1, 0)) >= 0.98


def test_only_the_threshold_in_force_is_in_the_key():
    settings = load_config(["segmenter=tokencut"]).segmenter
    assert set(settings) - set(as_segmenter(TokenCut()).identity(settings, [])) == {"tau_quantile"}
    assert set(settings) - set(as_segmenter(TokenCut(tau_quantile=0.5)).identity(settings, [])) == {"tau"}


@pytest.mark.parametrize("blobs", [1, 2, 3])
def test_the_object_of_a_plain_ground_is_the_greatest(blobs):
    for seed in range(4):
        features, truth = planted(blobs, seed)
        found = TokenCut()(features)[0].numpy()
        assert adjusted_rand(found, np.where(truth == 1, 1, 0)) >= 0.98
        assert found[truth == 1].mean() > 0.98, "1 is the object"


def test_a_cell_of_dinov3_runs_from_end_to_end(cli, shapes, tmp_path):
    write_checkpoint(tmp_path / "tiny", "dinov3_vit")
    base = [*shapes_overrides(shapes, tmp_path / "out"), "limit=2", "backbone=dinov3_b16"]
    own = [f"backbone.model={tmp_path / 'tiny'}", "backbone.facet=keys", "segmenter.tau_quantile=0.6"]
    done = cli("run", *base, *own, "segmenter=tokencut")
    assert done.code == 0, done.err
    (cell,) = (tmp_path / "out" / "results").iterdir()
    result = read_result(cell)
    assert result.identity["backbone"]["model"] == "dinov3_b16"
    assert result.identity["segmenter"]["tau_quantile"] == 0.6 and "tau" not in result.identity["segmenter"]
    assert result.segments_per_image.mean == 2


def test_images_do_not_influence_each_other(monkeypatch):
    import diffcut_bench.segmenters.tokencut as module

    features = random_features(3, seed=1)
    methods = (TokenCut(), TokenCut(tau_quantile=0.6))
    together = [method(features) for method in methods]
    for method, expected in zip(methods, together, strict=True):
        assert torch.equal(expected, torch.cat([method(each[None]) for each in features]))
    monkeypatch.setattr(module, "images_at_once", lambda _: 2)
    for method, expected in zip(methods, together, strict=True):
        assert torch.equal(method(features), expected)


def test_a_turned_image_has_a_turned_object():
    features = random_features(6, seed=2, rows=10, cols=10)
    for method in (TokenCut(), TokenCut(tau_quantile=0.6)):
        for turn in TURNS:
            assert torch.equal(method(turn(features)), turn(method(features)))


def test_checks_its_arguments():
    assert instantiate("segmenter", load_config(["segmenter=tokencut"]).segmenter) == TokenCut()
    assert TokenCut()(torch.rand(2, 3, 1, 1)).tolist() == [[[0]], [[0]]]
    assert TokenCut()(planted(1)[0].half()).unique().tolist() == [0, 1]
    for wrong in ({"tau": -2}, {"eps": 0}, {"eps": True}, {"tau_quantile": -0.1}, {"tau_quantile": "half"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            TokenCut(**wrong)


def test_the_threshold_of_a_share_lies_midway_between_two_cosines():
    nodes = random_features(1, seed=4, rows=4, cols=5).flatten(2).mT
    for share in (0.2, 0.5, 0.9):
        expected = threshold(nodes[0], TokenCut(tau_quantile=share))
        assert thresholds(nodes, 0.2, share).item() == pytest.approx(expected, abs=1e-6)
