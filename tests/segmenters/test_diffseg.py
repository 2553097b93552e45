"""DiffSeg against plain loops, and on planted attention."""

import math
from functools import partial

import pytest
import torch
from conftest import blobs, same_partition, shapes_overrides
from torchmetrics.functional.clustering import adjusted_rand_score

from diffcut_bench.config import load_config
from diffcut_bench.experiment import run_cell
from diffcut_bench.segmenters import DiffSeg, Segmenter
from diffcut_bench.segmenters.diffseg import attention_maps, greedy_groups, symmetric_kl


def regions(rows: int, cols: int, seed: int = 0, count: int = 4) -> torch.Tensor:
    """A known partition: each patch belongs to the nearest of some random points."""
    points = torch.rand(count, 2, generator=torch.Generator().manual_seed(seed)) * torch.tensor([rows, cols])
    grid = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij"), dim=2).flatten(0, 1)
    return torch.cdist(grid.float(), points).argmin(dim=1).view(rows, cols)


def planted(truth: torch.Tensor, noise: float = 0.5, leak: float = 0.02, seed: int = 0) -> torch.Tensor:
    """Attention [1, keys, rows, cols] that mostly stays in the segment of its patch."""
    flat = truth.flatten()
    inside = (flat[:, None] == flat).float()
    inside = (1 - leak) * inside / inside.sum(dim=1, keepdim=True) + leak / len(flat)
    maps = inside * (noise * torch.randn(inside.shape, generator=torch.Generator().manual_seed(seed))).exp()
    return (maps / maps.sum(dim=1, keepdim=True)).T.unflatten(1, truth.shape)[None]


def textbook(features: torch.Tensor, threshold: float, side: int, iterations: int) -> torch.Tensor:
    """One image [keys, rows, cols] whose keys are its patches, one pair of maps at a time, in Python floats."""
    rows, cols = features.shape[1:]
    maps = [features[:, row, col].double().tolist() for row in range(rows) for col in range(cols)]

    def divergence(p, q):
        there = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)
        return (there + sum(b * math.log(b / a) for a, b in zip(p, q, strict=True) if b > 0)) / 2

    def mean(of):
        return [sum(values) / len(of) for values in zip(*of, strict=True)]

    proposals = []
    for down in range(side):
        for across in range(side):
            row, col = int((down + 0.5) * rows / side), int((across + 0.5) * cols / side)
            anchor = maps[row * cols + col]
            proposals.append(mean([map_ for map_ in maps if divergence(anchor, map_) < threshold]))
    for _ in range(iterations - 1):
        merged = []
        while proposals:
            first, close, far = proposals[0], [], []
            for each in proposals:
                (close if each is first or divergence(first, each) < threshold else far).append(each)
            merged.append(mean(close))
            proposals = far
        proposals = merged
    best = [max(range(len(proposals)), key=lambda k: proposals[k][key]) for key in range(rows * cols)]
    return torch.tensor(best).view(rows, cols)


def ari(partition: torch.Tensor, truth: torch.Tensor) -> float:
    return adjusted_rand_score(partition.flatten(), truth.flatten()).item()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("rows", "cols"), [(32, 32), (20, 27)])
def test_planted_attention_is_recovered(rows, cols, seed):
    truth = regions(rows, cols, seed)
    assert ari(DiffSeg()(planted(truth, seed=seed))[0], truth) >= 0.98


@pytest.mark.parametrize(("threshold", "side", "iterations"), [(0.4, 3, 1), (0.4, 4, 2), (0.8, 4, 3), (2.5, 6, 3)])
def test_equals_the_textbook(threshold, side, iterations):
    for seed in range(3):
        features = planted(regions(7, 6, seed, 5), noise=0.9, leak=0.3, seed=seed)
        found = DiffSeg(threshold, side, iterations)(features)[0]
        assert same_partition(found, textbook(features[0], threshold, side, iterations))


def test_thresholds_set_granularity():
    features = planted(regions(16, 16, 0, 6), noise=0.8, leak=0.2)
    segments = [int(DiffSeg(threshold)(features).max()) + 1 for threshold in (0.1, 0.5, 1.0, 5.0)]
    assert segments == sorted(segments, reverse=True)
    assert segments[0] > 50 and segments[-1] == 1


def test_an_image_does_not_depend_on_its_batch():
    """Also where others have fewer proposals or fewer segments."""
    batch = torch.cat([planted(regions(12, 10, seed, 2 + 3 * seed), leak=0.1, seed=seed) for seed in range(3)])
    together = DiffSeg(0.5)(batch)
    assert len({int(each.max()) for each in together}) > 1
    for place in range(3):
        assert torch.equal(together[place], DiffSeg(0.5)(batch[place : place + 1])[0])
        assert torch.equal(together[place].unique(), torch.arange(int(together[place].max()) + 1))


def test_permuted_patches_give_the_permuted_partition():
    """With an anchor on every patch and clear segments; elsewhere the order of merging may tell."""
    features = planted(regions(8, 8))
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    moved = features.flatten(2)[:, order][:, :, order].unflatten(2, (8, 8))
    assert same_partition(DiffSeg()(moved).flatten(), DiffSeg()(features).flatten()[order])


def test_divergences_are_those_of_the_definition():
    maps = torch.rand(2, 5, 9, generator=torch.Generator().manual_seed(0)).softmax(dim=2)
    first, second = maps[:, :3], maps[:, 3:]
    for image in range(2):
        for p in range(3):
            for q in range(2):
                a, b = first[image, p].double(), second[image, q].double()
                expected = ((a * (a / b).log()).sum() + (b * (b / a).log()).sum()) / 2
                assert symmetric_kl(first, second)[image, p, q].item() == pytest.approx(expected.item(), abs=1e-6)
    apart = torch.eye(2)[None]
    assert torch.isfinite(symmetric_kl(apart, apart)).all()
    assert symmetric_kl(apart, apart)[0, 0, 1] > 80


def test_greedy_merging_is_in_order_and_does_not_chain():
    near = torch.tensor([[[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]]]).bool()
    assert greedy_groups(near, torch.ones(1, 4).bool()).int().tolist() == [[[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]]
    assert greedy_groups(near, torch.tensor([[False, True, True, True]])).int().tolist() == [
        [[0, 1, 1, 0], [0, 0, 0, 1]]
    ]


def test_keys_may_be_coarser_than_patches():
    truth = regions(8, 12).repeat_interleave(2, 0).repeat_interleave(2, 1)
    fine = planted(truth, leak=0.05)
    maps = fine[0].flatten(1).T.view(384, 1, 16, 24)
    coarse = 4 * torch.nn.functional.avg_pool2d(maps, 2).flatten(1).T.unflatten(1, (16, 24))[None]
    assert coarse.shape == (1, 96, 16, 24)
    assert attention_maps(coarse, 1)[1] == (8, 12)
    found = DiffSeg()(coarse)[0]
    pool = partial(torch.nn.functional.max_pool2d, kernel_size=5, stride=1, padding=2)
    inside = (pool(truth[None].float()) == -pool(-truth[None].float()))[0]
    assert 0.2 < inside.float().mean() < 0.8
    assert same_partition(found[inside], truth[inside]), "bilinear: only borders may move, by a key's width"


def test_other_features_become_distributions_by_their_cosines():
    features, truth = blobs(4, 36)
    maps, keys = attention_maps(features.mT.unflatten(2, (12, 12)), 0.15)
    assert keys == (12, 12)
    torch.testing.assert_close(maps.sum(dim=2), torch.ones(1, 144))
    cosines = torch.nn.functional.cosine_similarity(features[0, 0], features[0, 1], dim=0)
    assert (maps[0, 0, 1] / maps[0, 0, 0]).log().item() == pytest.approx((cosines.item() - 1) / 0.15, abs=1e-4)
    assert ari(DiffSeg()(features.mT.unflatten(2, (12, 12)))[0], truth) >= 0.98
    stored = planted(regions(16, 16)).half().float()
    assert torch.allclose(attention_maps(stored, 0.15)[0], stored[0].flatten(1).T, atol=1e-3), "half precision will do"


def test_any_backbone_is_a_legal_ablation(shapes, tmp_path):
    base = [*shapes_overrides(shapes, tmp_path / "out"), "segmenter=diffseg", "backbone=efficientnet_lite0"]
    cell = run_cell(load_config([*base, "refiner=none"]))
    assert not cell.result.failures
    assert cell.result.segments_per_image.max >= 1


def test_fits_the_interface_and_checks_its_arguments_at_once():
    assert isinstance(DiffSeg(), Segmenter)
    for wrong in ({"threshold": 0}, {"temperature": -1.0}, {"anchors": 0}, {"iterations": 1.5}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            DiffSeg(**wrong)
