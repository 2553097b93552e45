"""Block iteration, which an accelerator cuts by: rounds, graphs that they leave unsolved, batches of few kernels."""

import random
import warnings

import pytest
import torch
from conftest import blobs, same_partition

import diffcut_bench.ncut.block as block
import diffcut_bench.ncut.fiedler as fiedler
import diffcut_bench.ncut.levels as levels
from diffcut_bench.ncut import affinity, fiedler_vector, recursive_ncut
from diffcut_bench.ncut.levels import Subgraph, _batches, _few_batches


def residual(weights: torch.Tensor, y: torch.Tensor) -> float:
    """‖Mu − θu‖ of the eigenvector u that an indicator stands for, in double precision."""
    weights, y = weights.double(), y.double()
    degree = weights.sum(dim=1)
    u = torch.nn.functional.normalize(degree.sqrt() * y, dim=0)
    image = (weights @ (u / degree.sqrt())) / degree.sqrt()
    return float((image - (u @ image) * u).norm())


@pytest.fixture
def weak(monkeypatch):
    """Filters so short that most graphs need several rounds."""
    monkeypatch.setattr(block, "_FILTERS", (2,))
    monkeypatch.setattr(block, "_POWERS", 1)


def test_a_round_solves_what_has_structure():
    weights = affinity(blobs(6, 60, noise=0.3)[0], 5)
    start = block.start_block(360, torch.float32).expand(1, -1, -1)
    found = block.improve(weights, weights.sum(dim=2), start)
    assert not found.unsolved.any()
    assert residual(weights[0], found.indicator[0]) < 1e-5


def test_a_graph_goes_on_until_it_is_solved(weak):
    weights = affinity(blobs(6, 60, noise=0.3)[0], 5)
    degree = weights.sum(dim=2)
    basis, unsolved = block.start_block(360, torch.float32).expand(1, -1, -1), []
    for _ in range(12):
        found = block.improve(weights, degree, basis)
        basis = found.block
        unsolved.append(bool(found.unsolved))
    assert unsolved[0]
    assert not unsolved[-1]
    assert unsolved == sorted(unsolved, reverse=True)  # once solved, it stays solved


def test_what_the_rounds_leave_goes_to_the_dense_solver_and_is_said(weak, monkeypatch):
    monkeypatch.setattr(fiedler, "ROUNDS", 1)
    weights = affinity(torch.randn(2, 90, 10, generator=torch.Generator().manual_seed(0)), 2)
    degree = weights.sum(dim=2)
    with pytest.warns(RuntimeWarning, match="the dense solver takes them on the host"):
        found = fiedler_vector(weights, degree, "block")
    assert torch.equal(found, fiedler_vector(weights, degree, "eigh"))


def test_large_graphs_keep_the_best_vector_found(weak, monkeypatch):
    monkeypatch.setattr(fiedler, "ROUNDS", 3)
    monkeypatch.setattr(fiedler, "DENSE_UP_TO", 50)
    weights = affinity(blobs(4, 40, noise=0.3)[0], 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = fiedler_vector(weights, weights.sum(dim=2), "block")[0]
    assert torch.isfinite(y).all()
    assert residual(weights[0], y) < 0.1


@pytest.mark.parametrize("zero_affinity", ["drop", "keep"])
def test_unsolved_sub_graphs_go_on_beside_those_of_the_next_level(weak, monkeypatch, zero_affinity):
    """Images of different depth, whose roots and sub-graphs take several rounds, at every level some of them."""
    features = torch.cat([blobs(groups, 120 // groups, noise=0.15, seed=groups)[0] for groups in (2, 5, 8)])
    rounds = []
    original = levels._Rounds.improve

    def noting(self, blocks, degree, members, batch):
        rounds.extend(each.rounds for each in batch)
        return original(self, blocks, degree, members, batch)

    monkeypatch.setattr(levels._Rounds, "improve", noting)
    expected = recursive_ncut(features, 0.6, 6, zero_affinity=zero_affinity)
    found = recursive_ncut(features, 0.6, 6, zero_affinity=zero_affinity, solver="block")
    assert max(rounds) > 1 and rounds.count(0) > 20
    assert all(same_partition(*pair) for pair in zip(found, expected, strict=True))


def test_the_last_resort_of_a_recursion_is_the_dense_solver(weak, monkeypatch):
    monkeypatch.setattr(levels, "ROUNDS", 2)
    features = blobs(6, 20, noise=0.15)[0]
    with pytest.warns(RuntimeWarning, match="the dense solver takes them on the host"):
        found = recursive_ncut(features, 0.6, 6, solver="block")
    assert same_partition(found[0], recursive_ncut(features, 0.6, 6, solver="eigh")[0])


def test_graphs_whose_second_eigenvalue_is_zero_are_not_iterated_on():
    """All affinities 1: every cut costs 1, and each vector is as good as the next."""
    weights = torch.ones(2, 70, 70)
    found = block.improve(weights, weights.sum(dim=2), block.start_block(70, torch.float32).expand(2, -1, -1))
    assert not found.unsolved.any()
    assert not found.indicator.any()
    y = fiedler_vector(weights, weights.sum(dim=2), "block")
    assert torch.isfinite(y).all() and y.any()


def test_what_a_round_could_not_divide_reaches_no_padding(monkeypatch):
    """A graph without cuts has no span left to be made orthonormal: its vectors are NaN."""
    vanished = block.Round(torch.zeros(2, 5), torch.zeros(2, dtype=torch.bool), torch.full((2, 5, 16), torch.nan))
    monkeypatch.setattr(levels, "improve", lambda *_: vanished)
    rounds = levels._Rounds(torch.ones(1, 8, 8))
    members = torch.tensor([[0, 1, 2, 3, 4], [5, 6, 7, 8, 8]])  # 8: no patch
    rounds.improve(torch.ones(2, 5, 5), torch.ones(2, 5), members, [Subgraph(0, 5, 0, True), Subgraph(0, 3, 0, False)])
    assert rounds.block[:-1].isnan().all()
    assert not rounds.block[-1].any()


def test_a_graph_without_a_positive_second_eigenvalue_is_solved():
    """No patch is like itself: the second eigenvalue of a complete graph is below 0."""
    weights = torch.ones(1, 60, 60) - torch.eye(60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        y = fiedler_vector(weights, weights.sum(dim=2), "block")[0]
    assert residual(weights[0], y) < 1e-5
    assert abs(float(y.mean())) < 1e-5  # not the trivial vector


@pytest.mark.parametrize("size", range(2, 20))
def test_graphs_of_fewer_patches_than_vectors(size):
    weights = affinity(torch.rand(5, size, 4, generator=torch.Generator().manual_seed(size)), 3)
    degree = weights.sum(dim=2)
    y = fiedler_vector(weights, degree, "block")
    for one, found in zip(weights, y, strict=True):
        assert residual(one, found) < 1e-5
    dense = fiedler_vector(weights.double(), degree.double(), "eigh")
    leads = torch.nn.functional.cosine_similarity(y.double(), dense, dim=1).abs()
    assert (leads > 1 - 1e-4).all()


@pytest.mark.parametrize("noise", [0, 0.02])
def test_more_equal_groups_than_vectors_need_no_dense_solver(noise):
    """Twenty groups that hardly touch: twenty eigenvalues are 1."""
    truth = torch.arange(20).repeat_interleave(12)
    features = torch.eye(20)[truth] + noise * torch.randn(240, 20, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = recursive_ncut(features[None], 0.5, 10, solver="block", zero_affinity="keep")[0]
    assert same_partition(found, truth)


def test_features_without_structure_need_no_dense_solver():
    """Their eigenvalues lie within a thousandth of each other, near 1: hundreds of cuts of one patch each."""
    features = torch.rand(1, 128, 320, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = recursive_ncut(features, 0.5, 10, solver="block")[0]
    expected = recursive_ncut(features, 0.5, 10, solver="eigh")[0]
    assert expected.max() > 100
    assert abs(found.max() - expected.max()) <= 2  # noise alone holds ties


def test_few_batches_hold_every_sub_graph_once_and_keep_to_the_limit():
    draw = random.Random(0)
    for entries in (1, 1 << 20, 1 << 27):
        for _ in range(50):
            sizes = [draw.choice([2, 3, 50, 400, draw.randint(2, 1024)]) for _ in range(draw.randint(1, 300))]
            level = [Subgraph(0, size, -1, False, rounds=draw.choice([0, 0, 1, 3])) for size in sizes]
            batches = list(_few_batches(level, entries))
            assert sorted(number for batch in batches for number in batch) == list(range(len(sizes)))
            for batch in batches:
                assert sizes[batch[0]] == max(sizes[number] for number in batch)
                assert len(batch) == 1 or len(batch) * sizes[batch[0]] ** 2 <= entries
                assert len({block.effort_of(level[number].rounds) for number in batch}) == 1


def test_few_batches_take_an_accelerator_less_time_than_a_processors():
    def time(batches, sizes):
        return sum(levels._LAUNCHED_ENTRIES + len(batch) * sizes[batch[0]] ** 2 for batch in batches)

    draw = random.Random(1)
    for images in (1, 8, 64):
        sizes = [draw.randint(300, 1024) for _ in range(images)] + [draw.randint(2, 200) for _ in range(12 * images)]
        level = [Subgraph(0, size, -1, False) for size in sizes]
        few, many = list(_few_batches(level, 1 << 27)), list(_batches(sizes, 1 << 27))
        assert time(few, sizes) <= time(many, sizes)
        assert time(few, sizes) <= time([sorted(range(len(sizes)), key=lambda number: -sizes[number])], sizes)
