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


def test_a_graph_without_volume_has_no_cut():
    cost, _ = best_bipartition(torch.zeros(3, 3), torch.zeros(3), torch.zeros(3), 100)
    assert cost == float("inf")
