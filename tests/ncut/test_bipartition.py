import pytest
import torch

from diffcut_bench.ncut import affinity, best_bipartition, fiedler_vector


def looped(weights: torch.Tensor, y: torch.Tensor, points: int) -> tuple[float, torch.Tensor]:
    """Shi & Malik's NCut, one threshold after the other."""
    best, best_side = float("inf"), y > y
    for threshold in torch.linspace((0.99 * y.min()).item(), (0.99 * y.max()).item(), points, dtype=y.dtype):
        side = y > threshold
        cut = weights[side][:, ~side].sum()
        cost = (cut / weights[side].sum() + cut / weights[~side].sum()).item()
        if cost < best:
            best, best_side = cost, side
    return best, best_side


def test_equals_a_loop_over_the_thresholds():
    for seed in range(10):
        torch.manual_seed(seed)
        weights = affinity(torch.randn(1, 70, 6, dtype=torch.float64), 2)[0]
        degree = weights.sum(dim=1)
        y = fiedler_vector(weights, degree, "eigh")
        cost, side = best_bipartition(weights, degree, y, 100)
        expected, expected_side = looped(weights, y, 100)
        assert abs(cost.item() - expected) < 1e-12
        assert torch.equal(side, expected_side)


def test_both_sides_keep_a_node():
    weights = affinity(torch.randn(1, 40, 6), 4)[0]
    degree = weights.sum(dim=1)
    _, side = best_bipartition(weights, degree, fiedler_vector(weights, degree), 100)
    assert 0 < side.sum() < 40


def test_two_components_cost_nothing():
    weights = torch.block_diag(torch.ones(5, 5), torch.ones(7, 7))
    degree = weights.sum(dim=1)
    cost, side = best_bipartition(weights, degree, fiedler_vector(weights, degree), 100)
    assert cost == 0
    assert sorted([int(side.sum()), int((~side).sum())]) == [5, 7]


def test_a_threshold_with_nothing_below_it_wins_nothing():
    """Its NCut is 0/0, which in the released code ends the recursion: of blocks that hardly touch, a vector may have
    one sign alone, and then 0.99 times its least entry is below all of them."""
    weights = torch.block_diag(torch.ones(5, 5), torch.ones(7, 7), torch.ones(4, 4))
    indicator = torch.tensor([1.0] * 5 + [2.0] * 7 + [3.0] * 4)
    cost, side = best_bipartition(weights, weights.sum(dim=1), indicator, 100)
    assert cost == 0
    assert 0 < side.sum() < 16


def test_a_graph_without_volume_has_no_cut():
    cost, _ = best_bipartition(torch.zeros(3, 3), torch.zeros(3), torch.zeros(3), 100)
    assert cost == float("inf")


def test_merged_nodes_give_the_same_cut_as_all_of_them():
    """Beyond 101 nodes those between the same two thresholds are merged first; a batch equals its items."""
    generator = torch.Generator().manual_seed(4)
    weights = torch.rand(3, 300, 300, generator=generator)
    weights = weights + weights.mT
    indicator = torch.randn(3, 300, generator=generator)
    cost, side = best_bipartition(weights, weights.sum(dim=2), indicator)
    for item in range(3):
        expected, expected_side = looped(weights[item].double(), indicator[item], 100)
        assert cost[item].item() == pytest.approx(expected, rel=1e-5)
        assert torch.equal(side[item], expected_side)
        alone = best_bipartition(weights[item], weights[item].sum(dim=1), indicator[item])
        assert torch.equal(alone[1], side[item])
