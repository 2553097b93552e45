import numpy as np
import pytest
import scipy.linalg
import torch
from conftest import DATA, same_partition, shapes_overrides
from planted import TURNS, adjusted_rand, alike, cosines, flood, planted, random_features, threshold

from diffcut_bench.config import instantiate, load_config
from diffcut_bench.segmenters import MaskCut, as_segmenter

TAUS = (0.15, 0.3, 0.5)


def textbook(features: torch.Tensor, segmenter: MaskCut) -> np.ndarray:
    """Masks of one map [channels, rows, cols], round by round, by the generalized eigenproblem itself."""
    shape = features.shape[1:]
    nodes = features.flatten(1).T.clone()
    tau = threshold(nodes, segmenter)
    masks, before = [], np.zeros(shape, dtype=bool)
    taken = np.zeros(shape, dtype=bool)
    for number in range(segmenter.masks):
        weights = np.where(cosines(nodes) > tau, 1.0, segmenter.eps)
        if segmenter.tau_quantile is not None:
            weights[taken.ravel()] = weights[:, taken.ravel()] = segmenter.eps
        degree = np.diag(weights.sum(axis=1))
        vector = scipy.linalg.eigh(degree - weights, degree, subset_by_index=[1, 1])[1][:, 0]
        if segmenter.eigenvector_sign == "peak" and vector[np.abs(vector).argmax()] < 0:
            vector = -vector
        front = (vector > vector.mean()).reshape(shape)
        corners = sum(bool(front[row, col]) for row in (0, -1) for col in (0, -1))
        if corners >= 3 or not front.flat[np.abs(vector).argmax()]:
            front, vector = ~front, -vector
        mask = flood(front, int(vector.argmax()))
        if number:
            overlap = (mask & before).sum() / (mask | before).sum()
            if overlap > segmenter.max_iou or mask.mean() <= segmenter.min_area:
                mask = np.zeros(shape, dtype=bool)
        masks.append(mask & ~taken)
        taken |= mask
        nodes[torch.from_numpy(mask.ravel())] = 0
        before = mask
    return np.stack(masks)


@pytest.mark.parametrize("tau", [*TAUS, 0.7, 0.85])
def test_masks_are_the_released_ones(tau):
    features = np.load(DATA / "recursive_ncut_coffee.npz")["features"]
    expected = np.load(DATA / "maskcut_20_masks_coffee.npz")[f"tau{tau}"]
    maps = torch.tensor(features).T.reshape(1, -1, 32, 32)
    found = MaskCut(tau=tau, masks=20).find_masks(maps)[0].numpy()
    assert np.array_equal(found, expected)
    if tau in TAUS:  # another run of the original, on another day
        assert np.array_equal(found[:5], np.load(DATA / "object_masks_coffee.npz")[f"maskcut_tau{tau}"])
    truth = np.where(expected.any(axis=0), expected.argmax(axis=0) + 1, 0)
    assert same_partition(MaskCut(tau=tau, masks=20)(maps)[0], truth)


@pytest.mark.shared
@pytest.mark.parametrize("tau", TAUS)
def test_all_golden_masks(shared, tau):
    features = np.load(shared / "golden" / "recursive_ncut.npz")["features"]
    expected = np.load(shared / "golden" / "baselines.npz")[f"maskcut_tau{tau}"].astype(bool)
    found = MaskCut(tau=tau).find_masks(torch.tensor(features).transpose(1, 2).unflatten(2, (32, 32)))
    assert np.array_equal(found.numpy(), expected)


@pytest.mark.parametrize("sign", ["lapack", "peak"])
@pytest.mark.parametrize("graph", [{"tau": 0.2}, {"tau": 0.6}, {"tau_quantile": 0.4}, {"tau_quantile": 0.8}], ids=str)
def test_agrees_with_the_textbook(graph, sign):
    segmenter = MaskCut(masks=6, min_area=0.03, eigenvector_sign=sign, **graph)
    features = random_features(8, seed=3)
    expected = np.stack([textbook(each, segmenter) for each in features])
    assert np.array_equal(segmenter.find_masks(features).numpy(), expected)
    empty = ~expected.any(axis=(2, 3))
    assert empty.any() and not empty.all(axis=1).any(), "some rounds are dropped"


class Counting(MaskCut):
    """Counts the graphs that are cut."""

    def _candidates(self, nodes, *others):
        graphs.append(len(nodes))
        return super()._candidates(nodes, *others)


graphs: list[int] = []


def test_more_rounds_leave_the_earlier_masks_as_they_are_and_cost_nothing_after_the_last():
    features = torch.cat([random_features(3, seed=3), torch.ones(1, 6, 9, 11)])
    options = {"tau": 0.6, "min_area": 0.0, "eigenvector_sign": "peak"}
    most = MaskCut(masks=100, **options).find_masks(features)
    cut = {}
    for masks in (1, 2, 5, 20, 100):
        segmenter = Counting(masks=masks, **options)
        graphs.clear()
        found = segmenter.find_masks(features)
        assert found.shape == (4, masks, 9, 11)
        assert torch.equal(found, most[:, :masks])
        cut[masks] = len(graphs)
    assert cut[1] == 4 and cut[20] == cut[100] <= most.any(dim=(2, 3)).sum() + 2 * 4
    assert torch.equal(MaskCut(masks=10**9, **options)(features), MaskCut(masks=100, **options)(features))


def test_once_all_is_covered_there_are_no_more_masks():
    features = random_features(8, seed=3)[[0, 1, 5]]
    segmenter = MaskCut(masks=25, tau=0.6, min_area=0.0, eigenvector_sign="peak")
    found = segmenter.find_masks(features)
    full = found.any(dim=1).all(dim=(1, 2))
    assert full.any() and not full.all()
    assert not found[full, -1].any()
    for image, masks in zip(features[full], found[full], strict=True):
        assert np.array_equal(masks.numpy(), textbook(image, segmenter)), "which goes on to cut what has no features"


def test_a_quantile_finds_the_objects_where_all_patches_are_alike():
    for seed in range(3):
        features, truth = planted(3, seed)
        raised = alike(features)
        fixed = MaskCut(eigenvector_sign="peak")(raised)[0].numpy()
        assert adjusted_rand(fixed, truth) < 0.1
        found = MaskCut(eigenvector_sign="peak", tau_quantile=0.5)(raised)[0].numpy()
        assert adjusted_rand(found, truth) >= 0.98


def test_only_the_threshold_in_force_is_in_the_key():
    settings = load_config(["segmenter=maskcut"]).segmenter
    key = as_segmenter(MaskCut()).identity(settings, [])
    assert key == {name: value for name, value in settings.items() if name != "tau_quantile"}
    by_share = as_segmenter(MaskCut(tau_quantile=0.5))
    assert "tau" not in by_share.identity(settings | {"tau_quantile": 0.5}, [])
    other_tau = settings | {"tau_quantile": 0.5, "tau": 0.9}
    assert by_share.identity(other_tau, []) == by_share.identity(settings | {"tau_quantile": 0.5}, [])


@pytest.mark.parametrize("sign", ["lapack", "peak"])
@pytest.mark.parametrize("blobs", [2, 3])
def test_planted_objects_are_a_segment_each(blobs, sign):
    for seed in range(4):
        features, truth = planted(blobs, seed)
        partition = MaskCut(eigenvector_sign=sign)(features)[0].numpy()
        assert adjusted_rand(partition, truth) >= 0.98
        # The greatest comes first; with one round the others are ground.
        one = MaskCut(masks=1, eigenvector_sign=sign)(features)[0].numpy()
        assert adjusted_rand(one, np.where(truth == 1, 1, 0)) >= 0.98


def test_a_small_object_is_dropped_from_the_second_round_on():
    features, truth = planted(2)
    left = truth.copy()
    left[truth == 2] = 0
    for least in (25 / 256, 0.11):  # the second one's share, and more
        assert same_partition(MaskCut(min_area=least)(features)[0], left)
    assert same_partition(MaskCut(min_area=24 / 256)(features)[0], truth)
    assert same_partition(MaskCut(min_area=0.15)(features)[0], left), "36 of 256, but the first one stays"


def test_the_corner_rule_follows_the_eigenvectors_sign(monkeypatch):
    """Ground on the outstanding side: reversed with that side positive, taken for an object with it negative."""
    import diffcut_bench.segmenters.maskcut as module

    plain = torch.full((5, 5), -2.0)
    plain[2, 1:4] = 3.0
    plain[2, 2] = 1.0
    plain[0, 0] = -9.0  # the outstanding side is the ground's
    features = torch.rand(1, 3, 5, 5)
    found = {}
    for sign in (-1, 1):
        monkeypatch.setattr(module, "lapack_fiedler_vector", lambda _, s=sign: s * plain.flatten().double().numpy())
        found[sign] = MaskCut(masks=1).find_masks(features)[0, 0]
    thing = plain > plain.mean()
    assert torch.equal(found[-1], thing)
    assert torch.equal(found[1], ~thing)


def test_holes_are_filled_when_asked_and_earlier_masks_win():
    features, truth = planted(2)
    features[0, :, 3, 3] = features[0, :, 15, 15]  # ground within the first object
    features[0, :, 11, 4] = features[0, :, 15, 15]
    holed, filled = (MaskCut(fill_holes=fill)(features)[0] for fill in (False, True))
    assert same_partition(filled, truth)
    truth[3, 3] = truth[11, 4] = 0
    assert same_partition(holed, truth)


def test_what_lies_in_a_filled_hole_is_the_earlier_masks():
    features, _ = planted(2)
    ground, first, second = (features[0, :, row, col].clone() for row, col in ((15, 15), (2, 2), (10, 3)))
    features[0] = ground[:, None, None]
    features[0, :, 2:12, 2:12] = first[:, None, None]
    features[0, :, 4:10, 4:10] = ground[:, None, None]
    features[0, :, 5:9, 5:9] = second[:, None, None]
    segmenter = MaskCut(fill_holes=True)
    ring, inner = segmenter.find_masks(features)[0, :2]
    assert (ring.sum(), inner.sum()) == (100, 16)
    assert same_partition(segmenter(features)[0], ring)
    assert MaskCut()(features).unique().tolist() == [0, 1, 2]


def test_images_do_not_influence_each_other():
    features = random_features(3, seed=1)
    for options in ({}, {"eigenvector_sign": "peak"}, {"eigenvector_sign": "peak", "tau_quantile": 0.6}):
        segmenter = MaskCut(tau=0.4, **options)
        assert torch.equal(segmenter(features), torch.cat([segmenter(each[None]) for each in features]))


def test_rounds_of_images_together_are_those_of_each_alone():
    """As on an accelerator; the images end after different numbers of rounds."""
    features = random_features(4, seed=1)
    features[2] = features[2, :, :1, :1]
    method = MaskCut(eigenvector_sign="peak", tau_quantile=0.5)
    nodes, (rows, cols) = features.flatten(2).mT, features.shape[2:]
    together = method._masks_together(nodes, rows, cols)
    assert len({int(masks.any(axis=(1, 2)).sum()) for masks in together}) > 1
    for image, masks in zip(nodes, together, strict=True):
        assert np.array_equal(masks, method._masks_together(image[None], rows, cols)[0])


def test_a_turned_image_has_turned_masks_where_the_sign_is_fixed():
    features = random_features(4, seed=2, rows=10, cols=10)
    for segmenter in (MaskCut(tau=0.4, eigenvector_sign="peak"), MaskCut(tau_quantile=0.6, eigenvector_sign="peak")):
        for turn in TURNS:
            assert torch.equal(segmenter.find_masks(turn(features)), turn(segmenter.find_masks(features)))


def test_partitions_are_contiguous_and_features_of_any_precision_are_taken():
    features, truth = planted(3)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        partition = MaskCut()(features.to(dtype))
        assert partition.unique().tolist() == [0, 1, 2, 3]
        assert same_partition(partition[0], truth)
    for segmenter in (MaskCut(), MaskCut(tau_quantile=0.5), MaskCut(tau_quantile=0), MaskCut(tau_quantile=1)):
        assert segmenter(torch.rand(2, 3, 1, 1)).tolist() == [[[0]], [[0]]]
        assert segmenter(torch.zeros(1, 3, 4, 4)).shape == (1, 4, 4)
        assert segmenter(torch.rand(2, 3, 1, 2)).shape == (2, 1, 2)
        assert segmenter(torch.rand(1, 3, 1, 7)).shape == (1, 1, 7)


def test_arguments_are_checked():
    for wrong in (
        {"masks": 0},
        {"masks": 1.5},
        {"tau": 2},
        {"eps": 0},
        {"max_iou": -1},
        {"min_area": 1.1},
        {"eigenvector_sign": "positive"},
        {"tau_quantile": 1.1},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            MaskCut(**wrong)
    with pytest.raises(ValueError, match="NaN"):
        MaskCut()(torch.full((1, 2, 3, 3), torch.nan))


def test_the_option_is_the_papers_and_any_backbones():
    for backbone in ("dino_b8", "ssd1b", "efficientnet_lite0", "dinov2_b14", "dinov3_l16", "siglip2_b16"):
        config = load_config(["segmenter=maskcut", f"backbone={backbone}"])
        assert instantiate("segmenter", config.segmenter) == MaskCut()
        assert config.choices["backbone"] == backbone
    assert load_config(["segmenter=maskcut", "segmenter.masks=20"]).segmenter["masks"] == 20


@pytest.mark.parametrize("name", ["maskcut", "tokencut", "lost", "found"])
def test_a_cell_runs_from_end_to_end(cli, shapes, tmp_path, name):
    base = shapes_overrides(shapes, tmp_path / "out")
    done = cli("run", *base, f"segmenter={name}", "backbone=efficientnet_lite0", "limit=2")
    assert done.code == 0, done.err
    assert not done.err
    assert len(list((tmp_path / "out" / "results").glob("*/result.json"))) == 1


ENCODERS = {"maskcut": "dino_b8_keys", "tokencut": "dino_s16_keys", "lost": "dino_s16_keys"}
ENCODERS |= {"found": "dino_s8_attention", "diffseg": "sd14_attention"}


@pytest.mark.parametrize("name", ENCODERS)
def test_a_method_brings_its_encoder_and_upsampler_unless_others_are_asked_for(name):
    choices = load_config([f"segmenter={name}"]).choices
    assert (choices["backbone"], choices["upsampler"]) == (ENCODERS[name], "nearest")
    choices = load_config([f"segmenter={name}", "backbone=ssd1b", "upsampler=concepts"]).choices
    assert (choices["backbone"], choices["upsampler"]) == ("ssd1b", "concepts")
