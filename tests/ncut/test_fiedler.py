import pytest
import torch
from conftest import blobs

import diffcut_bench.ncut.fiedler as fiedler
import diffcut_bench.ncut.lanczos as lanczos
from diffcut_bench.ncut import affinity, fiedler_vector


def graph(nodes: int, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return affinity(torch.randn(1, nodes, 10), 2)[0]


def refuse(*_: object) -> torch.Tensor:
    raise AssertionError("fell back to the dense solver")


@pytest.mark.parametrize("solver", ["lanczos", "block", "eigh"])
def test_solves_the_generalised_eigenproblem(solver):
    weights = graph(200).double()
    degree = weights.sum(dim=1)
    y = fiedler_vector(weights, degree, solver)
    eigenvalues = torch.linalg.eigvalsh(torch.eye(200) - weights / (degree[:, None] * degree[None, :]).sqrt())
    assert torch.allclose((degree * y - weights @ y), eigenvalues[1] * degree * y, atol=1e-7)


def test_solvers_agree():
    weights = graph(300)
    degree = weights.sum(dim=1)
    iterative, dense = fiedler_vector(weights, degree, "lanczos"), fiedler_vector(weights, degree, "eigh")
    assert torch.allclose(iterative, dense, atol=1e-4 * dense.abs().max().item())


@pytest.mark.parametrize("solver", ["lanczos", "block", "eigh"])
def test_entry_of_greatest_magnitude_is_positive(solver):
    for seed in range(5):
        weights = graph(80, seed)
        y = fiedler_vector(weights, weights.sum(dim=1), solver)
        assert y[y.abs().argmax()] > 0


@pytest.mark.parametrize("solver", ["lanczos", "block", "eigh"])
def test_disconnected_graph_is_split_between_components(solver):
    weights = torch.block_diag(torch.ones(60, 60), torch.ones(40, 40))
    y = fiedler_vector(weights, weights.sum(dim=1), solver)
    assert torch.isfinite(y).all()
    assert (y[:60] > 0).all() != (y[60:] > 0).all()
    assert y[:60].std() < 1e-4
    assert y[60:].std() < 1e-4


@pytest.mark.parametrize("solver", ["lanczos", "block", "eigh"])
def test_isolated_nodes_are_no_crash(solver):
    weights = graph(100)
    weights[:10] = 0
    weights[:, :10] = 0
    y = fiedler_vector(weights, weights.sum(dim=1), solver)
    assert torch.isfinite(y).all()
    assert torch.equal(y[:10], torch.zeros(10))


def test_falls_back_to_the_dense_solver_when_it_does_not_converge(monkeypatch):
    weights = graph(300)
    degree = weights.sum(dim=1)
    expected = fiedler_vector(weights, degree, "eigh")
    monkeypatch.setattr(lanczos, "MAX_STEPS", 2)
    assert torch.equal(fiedler_vector(weights, degree, "lanczos"), expected)


def test_converges_without_falling_back_on_clustered_features(monkeypatch):
    weights = affinity(blobs(6, 100)[0], 5)[0]
    expected = fiedler_vector(weights, weights.sum(dim=1), "eigh")
    monkeypatch.setattr(fiedler, "_dense", refuse)
    found = fiedler_vector(weights, weights.sum(dim=1), "lanczos")
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("solver", ["lanczos", "block", "eigh"])
@pytest.mark.parametrize("sizes", [(5, 12, 30), (40, 90, 130)])
def test_padding_with_isolated_nodes_changes_nothing(solver, sizes):
    largest = max(sizes)
    batch = torch.zeros(len(sizes), largest, largest)
    for item, n in enumerate(sizes):
        batch[item, :n, :n] = graph(n, item)
    together = fiedler_vector(batch, batch.sum(dim=2), solver)
    for item, n in enumerate(sizes):
        alone = fiedler_vector(batch[item, :n, :n], batch[item, :n, :n].sum(dim=1), solver)
        torch.testing.assert_close(together[item, :n], alone, rtol=1e-3, atol=1e-4)
        assert not together[item, n:].any()


def test_an_item_that_does_not_converge_leaves_the_others_alone(monkeypatch):
    easy = blobs(2, 50)[0]
    weights = torch.stack([affinity(easy, 8)[0], graph(100, 0)])
    expected = fiedler_vector(weights, weights.sum(dim=2), "eigh")
    monkeypatch.setattr(lanczos, "MAX_STEPS", 12)
    dense = []
    original = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: dense.append(len(matrix)) or original(matrix))
    found = fiedler_vector(weights, weights.sum(dim=2))
    assert dense == [1]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("steps", [12, 30])
def test_large_graphs_are_solved_by_restarts(monkeypatch, steps):
    weights = graph(300).double()
    degree = weights.sum(dim=1)
    expected = fiedler_vector(weights, degree, "eigh")
    monkeypatch.setattr(fiedler, "DENSE_UP_TO", 200)
    monkeypatch.setattr(lanczos, "MAX_STEPS", steps)
    monkeypatch.setattr(lanczos, "_RESTARTS", 100)
    monkeypatch.setattr(fiedler, "_dense", refuse)
    assert torch.allclose(fiedler_vector(weights, degree), expected, atol=1e-6 * expected.abs().max().item())


def test_restarts_end_where_eigenvalues_hardly_differ(monkeypatch):
    """Eight equal components: the second eigenvalue is one of seven."""
    monkeypatch.setattr(fiedler, "DENSE_UP_TO", 200)
    monkeypatch.setattr(lanczos, "MAX_STEPS", 10)
    monkeypatch.setattr(fiedler, "_dense", refuse)
    weights = torch.block_diag(*[torch.ones(40, 40)] * 8) + 1e-6 * torch.rand(320, 320)
    weights = (weights + weights.T) / 2
    y = fiedler_vector(weights, weights.sum(dim=1))
    assert torch.isfinite(y).all()
    assert max(y[first : first + 40].std() for first in range(0, 320, 40)) < 1e-2 * y.abs().max()
