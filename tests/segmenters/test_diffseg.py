"""DiffSeg against plain loops, against the authors' output, and on planted attention."""

from functools import partial

import numpy as np
import pytest
import scipy.optimize
import torch
from conftest import blobs, same_partition, shapes_overrides
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.clustering import adjusted_rand_score

from diffcut_bench.config import load_config
from diffcut_bench.scoring.passes import run_cell
from diffcut_bench.segmenters import DiffSeg
from diffcut_bench.segmenters.diffseg import anchor_indices, attention_maps, greedy_groups, symmetric_kl


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


def textbook(features: torch.Tensor, segmenter: DiffSeg) -> torch.Tensor:
    """One image [keys, rows, cols] whose keys are its patches, one pair of maps and one pixel at a time."""
    rows, cols = features.shape[1:]
    maps = [features[:, row, col].double().numpy() for row in range(rows) for col in range(cols)]

    def divergence(p, q):
        return (sum(p * np.log(p / q)) + sum(q * np.log(q / p))) / 2

    def half_divergence(p, q):
        p, q = np.float16(p), np.float16(q)
        quotient = np.float64(np.log(p)) - np.float64(np.log(q))
        return (np.float16(sum(p * quotient)) + np.float16(sum(-q * quotient))) / 2

    def value(proposal, row, col):
        """Bilinear, between the centres of patches; beyond the outermost centres their own values."""
        row, col = min(max(row, 0), rows - 1), min(max(col, 0), cols - 1)
        up, left = min(int(row), max(rows - 2, 0)), min(int(col), max(cols - 2, 0))
        down, right, below, beside = min(up + 1, rows - 1), min(left + 1, cols - 1), row - up, col - left
        upper = (1 - beside) * proposal[up, left] + beside * proposal[up, right]
        return (1 - below) * upper + below * ((1 - beside) * proposal[down, left] + beside * proposal[down, right])

    side, threshold, proposals = segmenter.anchors, segmenter.threshold, []
    for down in range(side):
        for across in range(side):
            row, col = int((down + 0.5) * rows / side - 0.5), int((across + 0.5) * cols / side - 0.5)
            anchor = maps[row * cols + col]
            proposals.append(np.mean([map_ for map_ in maps if half_divergence(anchor, map_) < threshold], axis=0))
    for _ in range(segmenter.iterations - 1):
        merged, taken = [], set()
        for index, first in enumerate(proposals):
            if index not in taken:
                close = [n for n, each in enumerate(proposals) if n == index or divergence(first, each) < threshold]
                merged.append(np.mean([proposals[n] for n in close], axis=0))
                taken |= {*close}
        proposals = merged
    grids = [proposal.reshape(rows, cols) for proposal in proposals]
    scale = max(rows, cols) / segmenter.resolution
    height, width = round(rows / scale), round(cols / scale)
    best = [
        max(
            range(len(grids)),
            key=lambda k: value(grids[k], (y + 0.5) * rows / height - 0.5, (x + 0.5) * cols / width - 0.5),
        )
        for y in range(height)
        for x in range(width)
    ]
    return torch.tensor(best).view(height, width)


def matched(partition: torch.Tensor, expected: np.ndarray) -> float:
    """Share of pixels that agree when segments are named alike."""
    table = np.zeros((int(partition.max()) + 1, expected.max() + 1))
    np.add.at(table, (partition.numpy().ravel(), expected.ravel()), 1)
    return float(table[scipy.optimize.linear_sum_assignment(-table)].sum() / expected.size)


def ari(partition: torch.Tensor, truth: torch.Tensor) -> float:
    return adjusted_rand_score(partition.flatten(), truth.flatten()).item()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("rows", "cols"), [(32, 32), (20, 27)])
def test_planted_attention_is_recovered(rows, cols, seed):
    truth = regions(rows, cols, seed)
    assert ari(DiffSeg(resolution=max(rows, cols))(planted(truth, seed=seed))[0], truth) >= 0.98


@pytest.mark.shared
@pytest.mark.parametrize("threshold", [1.0, 0.5])
@pytest.mark.parametrize("image", [0, 2, 5])
def test_labels_are_the_authors(shared, image, threshold, record_property):
    """Real maps of 64×64 patches, through the original code in TensorFlow."""
    golden = np.load(shared / "golden" / "diffseg.npz")
    features = torch.from_numpy(golden[f"features64_{image}"]).float().T.unflatten(1, (64, 64))
    expected = np.unique(golden[f"labels_{image}_{threshold}"], return_inverse=True)[1].reshape(512, 512)
    found = DiffSeg(threshold, temperature=0.15)(features[None])[0]
    record_property("agreement", matched(found, expected))
    assert matched(found, expected) >= 0.99


@pytest.mark.parametrize(("threshold", "side", "iterations"), [(0.4, 3, 1), (0.4, 4, 2), (0.8, 4, 3), (2.5, 6, 3)])
@pytest.mark.parametrize("resolution", [7, 24])
def test_equals_the_textbook(threshold, side, iterations, resolution):
    segmenter = DiffSeg(threshold, side, iterations, resolution=resolution)
    for seed in range(3):
        features = planted(regions(7, 6, seed, 5), noise=0.9, leak=0.3, seed=seed)
        assert same_partition(segmenter(features)[0], textbook(features[0], segmenter))


def test_the_first_iteration_compares_in_half_precision():
    """Two patches whose divergence half precision rounds up: near by what it is, apart by what it is rounded to."""
    maps = torch.tensor([[0.83, 0.17], [0.21, 0.79]])
    exact, rounded = (symmetric_kl(maps[None, :1], maps[None, 1:], half=half).item() for half in (False, True))
    assert 0 < rounded - exact < 0.001
    between = DiffSeg((exact + rounded) / 2, anchors=2, iterations=1, resolution=2)(maps.T.view(1, 2, 1, 2))
    assert between.tolist() == [[[0, 1]]]
    assert DiffSeg(rounded + 0.0001, 2, 1, resolution=2)(maps.T.view(1, 2, 1, 2)).tolist() == [[[0, 0]]]


@pytest.mark.parametrize(
    ("side", "count", "expected"), [(64, 16, range(1, 62, 4)), (3, 16, [0, 1, 2]), (9, 3, [1, 4, 7])]
)
def test_anchors_stand_at_the_centres_of_their_cells(side, count, expected):
    assert anchor_indices(side, 1, count).tolist() == list(expected)
    rows = torch.tensor(list(expected))
    assert anchor_indices(side, side, count).tolist() == (rows[:, None] * side + rows).flatten().tolist()


def test_the_partition_has_the_resolution_of_the_option():
    features = planted(regions(8, 12))
    for resolution, grid in ((512, (341, 512)), (24, (16, 24)), (6, (4, 6))):
        segmenter = DiffSeg(resolution=resolution)
        assert segmenter(features).shape[1:] == grid
    patches, finer = (DiffSeg(resolution=side)(features) for side in (12, 96))
    repeated = patches.repeat_interleave(8, 1).repeat_interleave(8, 2)
    assert 0.8 < (finer == repeated).float().mean() < 1, "borders run between patches, and not along their sides"


def test_thresholds_set_granularity():
    features = planted(regions(16, 16, 0, 6), noise=0.8, leak=0.2)
    segments = [int(DiffSeg(threshold, resolution=16)(features).max()) + 1 for threshold in (0.1, 0.5, 1.0, 5.0)]
    assert segments == sorted(segments, reverse=True)
    assert segments[0] > 50 and segments[-1] == 1


def test_an_image_does_not_depend_on_its_batch():
    """Also where others have fewer proposals or fewer segments."""
    batch = torch.cat([planted(regions(12, 10, seed, 2 + 3 * seed), leak=0.1, seed=seed) for seed in range(3)])
    segmenter = DiffSeg(0.5, resolution=24)
    together = segmenter(batch)
    assert len({int(each.max()) for each in together}) > 1
    for index in range(3):
        assert torch.equal(together[index], segmenter(batch[index : index + 1])[0])
        assert torch.equal(together[index].unique(), torch.arange(int(together[index].max()) + 1))


def test_permuted_patches_give_the_permuted_partition():
    """With an anchor on every patch and clear segments; elsewhere the order of merging may tell."""
    features = planted(regions(8, 8))
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    moved = features.flatten(2)[:, order][:, :, order].unflatten(2, (8, 8))
    segmenter = DiffSeg(resolution=8)
    assert same_partition(segmenter(moved).flatten(), segmenter(features).flatten()[order])


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


def test_greedy_merging_is_in_order_and_takes_what_was_taken_before():
    near = torch.tensor([[[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]]]).bool()
    assert greedy_groups(near, torch.ones(1, 4).bool()).int().tolist() == [[[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]]]
    assert greedy_groups(near, torch.tensor([[False, True, True, True]])).int().tolist() == [
        [[0, 1, 1, 0], [0, 0, 0, 1]]
    ]


@given(st.integers(0, 10_000), st.integers(1, 9), st.floats(0, 1))
def test_every_proposal_is_in_a_group_and_leads_one_only_if_no_earlier_group_has_it(seed, count, density):
    generator = torch.Generator().manual_seed(seed)
    near = (torch.rand(1, count, count, generator=generator) < density).triu(1)
    near = near | near.mT | torch.eye(count).bool()
    present = torch.rand(1, count, generator=generator) < 0.8
    present[0, seed % count] = True
    taken = torch.zeros(count).bool()
    for group in greedy_groups(near, present)[0]:
        leader = int((present[0] & ~taken).int().argmax())
        assert not taken[leader]
        assert torch.equal(group, near[0, leader] & present[0])
        taken |= group
    assert torch.equal(taken, present[0])


def test_keys_may_be_coarser_than_patches():
    truth = regions(8, 12).repeat_interleave(2, 0).repeat_interleave(2, 1)
    fine = planted(truth, leak=0.05)
    maps = fine[0].flatten(1).T.view(384, 1, 16, 24)
    coarse = 4 * torch.nn.functional.avg_pool2d(maps, 2).flatten(1).T.unflatten(1, (16, 24))[None]
    assert coarse.shape == (1, 96, 16, 24)
    assert attention_maps(coarse, 1)[1] == (8, 12)
    found = DiffSeg(resolution=24)(coarse)[0]
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
    assert ari(DiffSeg(resolution=12)(features.mT.unflatten(2, (12, 12)))[0], truth) >= 0.98
    stored = planted(regions(16, 16)).half().float()
    assert torch.allclose(attention_maps(stored, 0.15)[0], stored[0].flatten(1).T, atol=1e-3), "half precision will do"


def test_any_backbone_is_a_legal_ablation(shapes, tmp_path):
    base = [*shapes_overrides(shapes, tmp_path / "out"), "segmenter=diffseg", "backbone=efficientnet_lite0"]
    cell = run_cell(load_config([*base, "refiner=none"]))
    assert not cell.result.failures
    assert cell.result.segments_per_image.max >= 1


@pytest.mark.parametrize("command", ["run", "segment"])
def test_concepts_of_patches_cannot_be_assigned_to_what_is_finer(cli, shapes, tmp_path, command):
    picture = [str(next(shapes.rglob("*.png")))] if command == "segment" else []
    own = [f"output_dir={tmp_path / 'out'}"] if command == "segment" else shapes_overrides(shapes, tmp_path / "out")
    done = cli(command, *picture, *own, "segmenter=diffseg", "backbone=colour", "upsampler=concepts")
    assert done.code == 2
    assert "upsampler=nearest" in done.err and "Traceback" not in done.err


def test_checks_its_arguments_at_once():
    for wrong in ({"threshold": 0}, {"temperature": -1.0}, {"anchors": 0}, {"iterations": 1.5}, {"resolution": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            DiffSeg(**wrong)
