"""Second eigenvectors by Lanczos iteration: for a processor, whose caches hold a matrix from product to product. Knows
tensors only."""

import torch
from jaxtyping import Float
from torch import Tensor

from diffcut_bench.ncut.spectral import deflated, golden_start, leading, residual, tolerance

# Up to this many nodes the powers of the whole matrix cost less than a Krylov space.
_POWERS_UP_TO = 48
# Krylov dimension after which the iteration gives up, or on larger graphs begins anew.
MAX_STEPS = 300
_RESTARTS, _CARRIED = 5, 100
_FIRST_CHECK, _CHECK_GROWTH = 10, 1.2


def leading_vectors(
    weights: Float[Tensor, "items nodes nodes"],
    scale: Float[Tensor, "items nodes"],
    trivial: Float[Tensor, "items nodes"],
) -> tuple[Float[Tensor, "items nodes"], list[int]]:
    """Leading eigenvectors of M in the complement of the trivial one, which is deflated, with full
    reorthogonalisation; small matrices are squared instead.

    Args:
        weights: affinities of each graph.
        scale, trivial: see `scale_and_trivial`.

    Returns:
        The vectors, and the items that are left unsolved, whose vectors are the best yet.
    """
    solve = _powers if weights.shape[-1] <= _POWERS_UP_TO else _lanczos
    return solve(weights, scale, trivial)


def _powers(weights: Tensor, scale: Tensor, trivial: Tensor) -> tuple[Tensor, list[int]]:
    """Leading eigenvectors of small M in the complement of the trivial one, and the items left unsolved."""
    matrix = deflated(weights, scale, trivial)
    vectors = leading(matrix)
    unsolved = ~(residual(matrix, vectors) <= tolerance(weights.dtype))
    return vectors, [item for item, left in enumerate(unsolved.tolist()) if left]


def _lanczos(weights: Tensor, scale: Tensor, trivial: Tensor) -> tuple[Tensor, list[int]]:
    """Leading eigenvectors of M in the complement of the trivial one, and the items that MAX_STEPS left unsolved, whose
    vectors are the best yet."""
    (items, n), dtype, device = scale.shape, weights.dtype, weights.device
    steps = min(MAX_STEPS, n - 1)
    accuracy = tolerance(dtype)
    vectors = torch.zeros(items, n, dtype=dtype, device=device)
    unsolved = list(range(items))
    basis = torch.empty(items, steps + 2, n, dtype=dtype, device=device)  # row 0: the deflated trivial eigenvector
    basis[:, 0] = trivial
    vector = (golden_start(n).to(device, dtype) * (scale > 0))[:, None]
    vector = vector - (vector @ trivial[:, :, None]) * trivial[:, None]
    basis[:, 1] = torch.nn.functional.normalize(vector[:, 0], dim=1)
    tridiagonal = torch.zeros(items, steps, steps, dtype=dtype, device=device)
    live = torch.ones(items, dtype=torch.bool, device=device)
    check = min(_FIRST_CHECK, steps)
    for k in range(steps):
        known = basis[:, : k + 2]
        # From the left, a row vector: products of that form stream the matrix, the other ones do not.
        vector = (basis[:, k + 1 : k + 2] * scale[:, None]) @ weights * scale[:, None]
        overlap = vector @ known.mT
        tridiagonal[:, k, k] = torch.where(live, overlap[:, 0, k + 1], -1.0)  # an exhausted space never leads
        vector = torch.baddbmm(vector, overlap, known, alpha=-1)  # classical Gram-Schmidt, twice
        vector = torch.baddbmm(vector, vector @ known.mT, known, alpha=-1)
        beta = vector[:, 0].norm(dim=1)
        live = live & (beta > accuracy)
        if k + 1 == check:
            projected = tridiagonal[:, : k + 1, : k + 1]
            ritz = leading(projected)
            error = torch.hypot(residual(projected, ritz), torch.where(live, beta * ritz[:, -1], 0.0))
            solved = (error <= accuracy).tolist()
            check = min(int(check * _CHECK_GROWTH) + 1, steps)
            if any(solved) or k + 1 == steps:
                vectors[unsolved] = (ritz[:, None] @ basis[:, 1 : k + 2])[:, 0]
                keep = [item for item, yes in enumerate(solved) if not yes]
                unsolved = [unsolved[item] for item in keep]
                if not unsolved or k + 1 == steps:
                    break
                # A range is a view; to copy large matrices takes as long as tens of products.
                rest = slice(keep[0], keep[-1] + 1) if len(keep) == keep[-1] - keep[0] + 1 else keep
                weights, scale, basis, tridiagonal = weights[rest], scale[rest], basis[rest], tridiagonal[rest]
                vector, beta, live = vector[rest], beta[rest], live[rest]
        if k + 1 < steps:
            tridiagonal[:, k, k + 1] = tridiagonal[:, k + 1, k] = beta * live
            basis[:, k + 2] = torch.where(live[:, None], vector[:, 0] / beta[:, None], 0.0)
    return vectors, unsolved


def restarted(
    weights: Float[Tensor, "nodes nodes"],
    scale: Float[Tensor, " nodes"],
    trivial: Float[Tensor, " nodes"],
    start: Float[Tensor, " nodes"],
) -> Float[Tensor, " nodes"]:
    """Leading eigenvector of M in the complement of the trivial one, by thick-restart Lanczos (Wu & Simon 2000).

    Each round extends the `_CARRIED` leading Ritz vectors of the last one to MAX_STEPS dimensions. It ends when the
    residual is within the tolerance, no longer halved by a round, or after `_RESTARTS` rounds.
    """
    accuracy = tolerance(weights.dtype)
    steps, carried, best = MAX_STEPS, 0, float("inf")
    basis = weights.new_empty(steps + 2, len(scale))  # row 0: the deflated trivial eigenvector
    basis[0], basis[1] = trivial, torch.nn.functional.normalize(start - (start @ trivial) * trivial, dim=0)
    projected = weights.new_zeros(steps, steps)  # M in the basis
    for _ in range(_RESTARTS):
        size, beta = steps, weights.new_zeros(())
        for k in range(carried, steps):
            known = basis[: k + 2]
            vector = ((basis[k + 1] * scale) @ weights) * scale
            overlap = known @ vector
            projected[k, : k + 1] = projected[: k + 1, k] = overlap[1:]
            vector = vector - overlap @ known  # classical Gram-Schmidt, twice
            vector = vector - (known @ vector) @ known
            beta = vector.norm()
            if beta <= accuracy:  # the space is exhausted: it holds its eigenvectors
                size = k + 1
                break
            basis[k + 2] = vector / beta
        values, ritz = torch.linalg.eigh(projected[:size, :size])
        error = float(beta * ritz[-1, -1].abs())
        if error <= accuracy or error > best / 2:
            break
        best = error
        carried = min(_CARRIED, steps // 2)
        basis[1 : carried + 1] = ritz[:, -carried:].T @ basis[1 : steps + 1]
        basis[carried + 1] = basis[steps + 1]
        projected.zero_().diagonal()[:carried] = values[-carried:]
    return ritz[:, -1] @ basis[1 : size + 1]
