"""Second eigenvector of the symmetric normalised Laplacian, by Lanczos or densely. Knows tensors only."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Solver = Literal["lanczos", "eigh"]

# Below this many nodes a dense eigendecomposition is as cheap as a few Lanczos steps.
DENSE_BELOW = 48
# Krylov dimension after which the iteration hands over to the dense solver.
MAX_STEPS = 120
_CHECK_EVERY = 4
# ‖Mv − θv‖ at which an eigenvector of M (‖M‖ = 1) counts as found, in units of the dtype's epsilon.
_TOLERANCE_EPS = 16.0
_HALF = 0.5


def fiedler_vector(
    weights: Float[Tensor, "nodes nodes"], degree: Float[Tensor, " nodes"], solver: Solver = "lanczos"
) -> Float[Tensor, " nodes"]:
    """Relaxed Normalized Cut indicator ``y = D^-1/2 u₂`` (Shi & Malik 2000, equation 11).

    ``u₂`` belongs to the second smallest eigenvalue of ``D^-1/2 (D − W) D^-1/2``, which is the second largest
    of ``M = D^-1/2 W D^-1/2``. Its sign is chosen so that the entry of ``y`` of greatest magnitude is positive.

    Args:
        weights: symmetric non-negative affinities, at least 2×2; disconnected graphs and isolated nodes are legal.
        degree: row sums of ``weights``.
        solver: ``lanczos`` iterates with the trivial eigenvector deflated and full reorthogonalisation, and falls
            back to ``eigh`` for small graphs or when it has not converged; ``eigh`` is always dense.

    Returns:
        ``y``, one value a node.
    """
    scale = torch.where(degree > 0, degree.clamp_min(torch.finfo(degree.dtype).tiny).rsqrt(), 0.0)
    vector: Tensor | None = None
    if solver == "lanczos" and len(degree) >= DENSE_BELOW:
        vector = _lanczos(weights, degree.sqrt(), scale)
    if vector is None:
        vector = _dense(weights, degree.sqrt(), scale)
    y = scale * vector
    return y * torch.where(y[y.abs().argmax()] < 0, -1.0, 1.0)


def _dense(weights: Tensor, trivial: Tensor, scale: Tensor) -> Tensor:
    """The same eigenvector from the whole spectrum; deflated too, so that a disconnected graph is no special case."""
    unit = trivial / trivial.norm()
    normalised = scale[:, None] * weights * scale[None, :] - 2 * torch.outer(unit, unit)
    return torch.linalg.eigh(normalised).eigenvectors[:, -1]


def _lanczos(weights: Tensor, trivial: Tensor, scale: Tensor) -> Tensor | None:
    """Leading eigenvector of M in the complement of the trivial one; None where MAX_STEPS were not enough."""
    n, dtype, device = len(scale), weights.dtype, weights.device
    steps = min(MAX_STEPS, n - 1)
    tolerance = _TOLERANCE_EPS * torch.finfo(dtype).eps
    basis = torch.zeros(steps + 2, n, dtype=dtype, device=device)  # row 0: the deflated trivial eigenvector
    basis[0] = trivial / trivial.norm()
    # Made on the host: the same on every device, and not every device has float64.
    start = torch.frac(torch.arange(1, n + 1, dtype=torch.float64) * 0.6180339887498949) - 0.5
    vector = start.to(device=device, dtype=dtype)
    vector = vector - basis[0] * (basis[0] @ vector)
    basis[1] = vector / vector.norm()
    tridiagonal = torch.zeros(steps, steps, dtype=dtype, device=device)
    for k in range(steps):
        vector = scale * (weights @ (scale * basis[k + 1]))
        tridiagonal[k, k] = basis[k + 1] @ vector
        for _ in range(2):  # classical Gram-Schmidt, twice: orthogonal to rounding
            vector = vector - basis[: k + 2].T @ (basis[: k + 2] @ vector)
        beta = vector.norm()
        if k % _CHECK_EVERY == _CHECK_EVERY - 1 or k == steps - 1:
            ritz = torch.linalg.eigh(tridiagonal[: k + 1, : k + 1]).eigenvectors[:, -1]
            found = basis[1 : k + 2].T @ ritz
            # A norm below one: the Krylov space was exhausted exactly, and the Ritz vector lies in its empty rows.
            if beta * ritz[-1].abs() <= tolerance and found.norm() > _HALF:
                return found
        if k + 1 < steps:
            tridiagonal[k, k + 1] = tridiagonal[k + 1, k] = beta
            basis[k + 2] = torch.where(beta > 0, vector / beta, 0.0)
    return None
