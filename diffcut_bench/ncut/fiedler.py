"""Second eigenvectors of a batch of symmetric normalised Laplacians. Knows tensors only.

A node without edges is legal and changes nothing for the others: batches of graphs of several sizes are padded with
such nodes.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from diffcut_bench.ncut.settings import Solver

# Up to this many nodes the powers of the whole matrix cost less than a Krylov space.
POWERS_UP_TO = 48
# Krylov dimension after which the iteration hands over to the dense solver, or on larger graphs begins anew.
MAX_STEPS = 300
# Above this many nodes the whole spectrum costs minutes and several times W's memory: the iteration is restarted.
DENSE_UP_TO = 4096
_RESTARTS, _CARRIED = 5, 100
_FIRST_CHECK, _CHECK_GROWTH = 10, 1.2
# ‖Mv − θv‖ at which an eigenvector of M (‖M‖ = 1) counts as found, in units of the dtype's epsilon.
_TOLERANCE_EPS = 16.0
# M is raised to the power of 2 to this many: settles gaps between eigenvalues down to the rounding of float32.
_SQUARINGS = 20


def fiedler_vector(
    weights: Float[Tensor, "*batch nodes nodes"], degree: Float[Tensor, "*batch nodes"], solver: Solver = "lanczos"
) -> Float[Tensor, "*batch nodes"]:
    """Relaxed Normalized Cut indicator ``y = D^-1/2 u₂`` (Shi & Malik 2000, equation 11).

    ``u₂`` belongs to the second smallest eigenvalue of ``D^-1/2 (D − W) D^-1/2``, which is the second largest
    of ``M = D^-1/2 W D^-1/2``. Its sign is chosen so that the entry of ``y`` of greatest magnitude is positive.

    Args:
        weights: symmetric non-negative affinities, at least 2×2; disconnected graphs and isolated nodes are legal.
        degree: row sums of ``weights``.
        solver: ``lanczos`` iterates with the trivial eigenvector deflated and full reorthogonalisation (small graphs:
            squares the matrix), and falls back to ``eigh`` for graphs that it left unsolved; ``eigh`` is always dense.
            Graphs of more than `DENSE_UP_TO` nodes never fall back: the iteration is restarted while that halves its
            residual, a few times at most, and the best vector found is taken. Its cut is a legal one, and all
            that an eigenvalue so close to the next can decide.

    Returns:
        ``y``, one value a node; 0 for isolated nodes.
    """
    graphs, volumes = weights.reshape(-1, *weights.shape[-2:]), degree.reshape(-1, degree.shape[-1])
    scale = torch.where(volumes > 0, volumes.clamp_min(torch.finfo(volumes.dtype).tiny).rsqrt(), 0.0)
    trivial = torch.nn.functional.normalize(volumes.sqrt(), dim=1)
    if solver == "eigh":
        vectors = _dense(graphs, trivial, scale)
    else:
        solve = _powers if graphs.shape[-1] <= POWERS_UP_TO else _lanczos
        vectors, unsolved = solve(graphs, trivial, scale)
        if unsolved and graphs.shape[-1] <= DENSE_UP_TO:
            vectors[unsolved] = _dense(graphs[unsolved], trivial[unsolved], scale[unsolved])
        elif unsolved:
            for item in unsolved:
                vectors[item] = _restarted(graphs[item], trivial[item], scale[item], vectors[item])
    y = scale * vectors
    peak = y.gather(1, y.abs().argmax(dim=1, keepdim=True))
    return (y * torch.where(peak < 0, -1.0, 1.0)).view(degree.shape)


def _deflated(weights: Tensor, trivial: Tensor, scale: Tensor) -> Tensor:
    """M with the trivial eigenvalue moved from 1 to −1, as are isolated nodes, so that neither ever leads."""
    matrix = scale[:, :, None] * weights * scale[:, None, :]
    matrix = matrix.baddbmm_(trivial[:, :, None], trivial[:, None, :], alpha=-2)
    matrix.diagonal(dim1=1, dim2=2).sub_((scale == 0).to(matrix.dtype))
    return matrix


def _dense(weights: Tensor, trivial: Tensor, scale: Tensor) -> Tensor:
    """The eigenvector from the whole spectrum."""
    return torch.linalg.eigh(_deflated(weights, trivial, scale)).eigenvectors[..., -1]


def _leading(matrix: Float[Tensor, "items size size"]) -> tuple[Tensor, Tensor]:
    """Eigenvector of the greatest eigenvalue of symmetric matrices of spectrum in [−1, 1], and its residual norm.

    ``(A + I)^(2^j)`` tends to the projector on it. Twenty products of small matrices cost a fifth of the dense
    eigendecompositions, and all items of a batch at once.
    """
    power = matrix.clone()
    power.diagonal(dim1=1, dim2=2).add_(1)
    for j in range(_SQUARINGS):
        power = power @ power
        if j % 3 == 0:  # often enough to stay within the range of float32
            power = power / power.diagonal(dim1=1, dim2=2).sum(dim=1)[:, None, None]
    column = power.diagonal(dim1=1, dim2=2).argmax(dim=1)
    vector = torch.nn.functional.normalize(power[torch.arange(len(power), device=power.device), column], dim=1)
    image = (vector[:, None] @ matrix)[:, 0]
    value = (image * vector).sum(dim=1, keepdim=True)
    return vector, (image - value * vector).norm(dim=1)


def _powers(weights: Tensor, trivial: Tensor, scale: Tensor) -> tuple[Tensor, list[int]]:
    """Leading eigenvectors of small M in the complement of the trivial one, and the items left unsolved."""
    vectors, residual = _leading(_deflated(weights, trivial, scale))
    unsolved = ~(residual <= _TOLERANCE_EPS * torch.finfo(weights.dtype).eps)
    return vectors, [item for item, left in enumerate(unsolved.tolist()) if left]


def _start(nodes: int) -> Float[Tensor, " nodes"]:
    """Where the iteration starts: multiples of the golden ratio, modulo 1 and centred.

    A start must not be orthogonal to the vector that is sought. Random numbers would do; these need no seed, and being
    as far from periodic as can be, they follow no rows or blocks of patches. Made on the host, so that every device
    starts from the same, and because not every one has float64.
    """
    return torch.frac(torch.arange(1, nodes + 1, dtype=torch.float64) * 0.6180339887498949) - 0.5


def _lanczos(weights: Tensor, trivial: Tensor, scale: Tensor) -> tuple[Tensor, list[int]]:
    """Leading eigenvectors of M in the complement of the trivial one, and the items that MAX_STEPS left unsolved, whose
    vectors are the best yet."""
    (items, n), dtype, device = scale.shape, weights.dtype, weights.device
    steps = min(MAX_STEPS, n - 1)
    tolerance = _TOLERANCE_EPS * torch.finfo(dtype).eps
    vectors = torch.zeros(items, n, dtype=dtype, device=device)
    unsolved = list(range(items))
    basis = torch.empty(items, steps + 2, n, dtype=dtype, device=device)  # row 0: the deflated trivial eigenvector
    basis[:, 0] = trivial
    vector = (_start(n).to(device, dtype) * (scale > 0))[:, None]
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
        live = live & (beta > tolerance)
        if k + 1 == check:
            ritz, residual = _leading(tridiagonal[:, : k + 1, : k + 1])
            residual = torch.hypot(residual, torch.where(live, beta * ritz[:, -1], 0.0))
            solved = (residual <= tolerance).tolist()
            check = min(int(check * _CHECK_GROWTH) + 1, steps)
            if any(solved) or k + 1 == steps:
                vectors[unsolved] = (ritz[:, None] @ basis[:, 1 : k + 2])[:, 0]
                keep = [item for item, yes in enumerate(solved) if not yes]
                unsolved = [unsolved[item] for item in keep]
                if not unsolved or k + 1 == steps:
                    break
                weights, scale, basis, tridiagonal = weights[keep], scale[keep], basis[keep], tridiagonal[keep]
                vector, beta, live = vector[keep], beta[keep], live[keep]
        if k + 1 < steps:
            tridiagonal[:, k, k + 1] = tridiagonal[:, k + 1, k] = beta * live
            basis[:, k + 2] = torch.where(live[:, None], vector[:, 0] / beta[:, None], 0.0)
    return vectors, unsolved


def _restarted(
    weights: Float[Tensor, "nodes nodes"],
    trivial: Float[Tensor, " nodes"],
    scale: Float[Tensor, " nodes"],
    start: Float[Tensor, " nodes"],
) -> Float[Tensor, " nodes"]:
    """Leading eigenvector of M in the complement of the trivial one, by thick-restart Lanczos (Wu & Simon 2000).

    Each round extends the `_CARRIED` leading Ritz vectors of the last one to MAX_STEPS dimensions. It ends when the
    residual is within the tolerance, no longer halved by a round, or after `_RESTARTS` rounds.
    """
    tolerance = _TOLERANCE_EPS * torch.finfo(weights.dtype).eps
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
            if beta <= tolerance:  # the space is exhausted: it holds its eigenvectors
                size = k + 1
                break
            basis[k + 2] = vector / beta
        values, ritz = torch.linalg.eigh(projected[:size, :size])
        residual = float(beta * ritz[-1, -1].abs())
        if residual <= tolerance or residual > best / 2:
            break
        best = residual
        carried = min(_CARRIED, steps // 2)
        basis[1 : carried + 1] = ritz[:, -carried:].T @ basis[1 : steps + 1]
        basis[carried + 1] = basis[steps + 1]
        projected.zero_().diagonal()[:carried] = values[-carried:]
    return ritz[:, -1] @ basis[1 : size + 1]
