"""What the solvers of `fiedler` share: M = D^-1/2 W D^-1/2, and leading eigenvectors of small matrices.

Knows tensors only.
"""

import torch
from jaxtyping import Float
from torch import Tensor

# ‖Mv − θv‖ at which an eigenvector of M (‖M‖ = 1) counts as found, in units of the dtype's epsilon.
_TOLERANCE_EPS = 16.0
# M is raised to the power of 2 to this many: settles gaps between eigenvalues down to the rounding of float32.
_SQUARINGS = 20


def tolerance(dtype: torch.dtype) -> float:
    """Residual ‖Mv − θv‖ at which an eigenvector counts as found."""
    return _TOLERANCE_EPS * torch.finfo(dtype).eps


def scale_and_trivial(
    degree: Float[Tensor, "items nodes"],
) -> tuple[Float[Tensor, "items nodes"], Float[Tensor, "items nodes"]]:
    """``D^-1/2``, 0 for isolated nodes, and the eigenvector of M's eigenvalue 1, at norm 1."""
    scale = torch.where(degree > 0, degree.clamp_min(torch.finfo(degree.dtype).tiny).rsqrt(), 0.0)
    return scale, torch.nn.functional.normalize(degree.sqrt(), dim=1)


def deflated(
    weights: Float[Tensor, "items nodes nodes"],
    scale: Float[Tensor, "items nodes"],
    trivial: Float[Tensor, "items nodes"],
    moved_to: int = -1,
) -> Float[Tensor, "items nodes nodes"]:
    """M with the trivial eigenvalue moved from 1, and those of isolated nodes from 0, so that none of them ever leads.

    Args:
        weights, scale, trivial: see `scale_and_trivial`.
        moved_to: −1; or 0, where a product by the matrix is to leave nothing of their eigenvectors.
    """
    matrix = (scale[:, :, None] * weights).mul_(scale[:, None, :])
    matrix.baddbmm_(trivial[:, :, None], trivial[:, None, :], alpha=moved_to - 1)
    if moved_to:
        matrix.diagonal(dim1=1, dim2=2).add_((scale == 0).to(matrix.dtype), alpha=moved_to)
    return matrix


def leading(matrix: Float[Tensor, "items size size"]) -> Float[Tensor, "items size"]:
    """Eigenvector of the greatest eigenvalue of symmetric matrices of spectrum in [−1, 1].

    ``(A + I)^(2^j)`` tends to the projector on it. Twenty products of small matrices cost a fifth of the dense
    eigendecompositions, and all items of a batch at once.
    """
    rescale = 4 if matrix.shape[-1] <= 16 else 3  # squarings: often enough to stay within the range of float32
    power = matrix.clone()
    power.diagonal(dim1=1, dim2=2).add_(1)
    for j in range(_SQUARINGS):
        power = power @ power
        if j % rescale == 0:
            power = power / power.diagonal(dim1=1, dim2=2).sum(dim=1)[:, None, None]
    column = power.diagonal(dim1=1, dim2=2).argmax(dim=1)
    return torch.nn.functional.normalize(power.take_along_dim(column[:, None, None], dim=1)[:, 0], dim=1)


def residual(matrix: Float[Tensor, "items size size"], vector: Float[Tensor, "items size"]) -> Float[Tensor, " items"]:
    """‖Av − θv‖ of vectors of norm 1, θ their Rayleigh quotient."""
    image = (vector[:, None] @ matrix)[:, 0]
    value = (image * vector).sum(dim=1, keepdim=True)
    return (image - value * vector).norm(dim=1)


def indicator(
    scale: Float[Tensor, "items nodes"], vectors: Float[Tensor, "items nodes"]
) -> Float[Tensor, "items nodes"]:
    """``D^-1/2 u`` of eigenvectors ``u``, with the sign that makes the entry of greatest magnitude positive."""
    y = scale * vectors
    peak = y.gather(1, y.abs().argmax(dim=1, keepdim=True))
    return y * torch.where(peak < 0, -1.0, 1.0)


def golden_start(size: int) -> Float[Tensor, " size"]:
    """Where iterations start: multiples of the golden ratio, modulo 1 and centred.

    A start must not be orthogonal to the vector that is sought. Random numbers would do; these need no seed, and being
    as far from periodic as can be, they follow no rows or blocks of patches. Made on the host, so that every device
    starts from the same, and because not every one has float64.
    """
    return torch.frac(torch.arange(1, size + 1, dtype=torch.float64) * 0.6180339887498949) - 0.5
