"""Second eigenvectors by filtered subspace iteration: for an accelerator, where a product by sixteen vectors takes no
longer than one by a single vector, and where the host must not be asked in between. Knows tensors only.

A round multiplies a block of vectors by Chebyshev polynomials of M (Zhou, Saad, Tiago & Chelikowsky 2006), which raise
its leading eigenvectors above the others, and takes the best vector of their span (Rayleigh-Ritz). It has the same few
operations for every graph, so nothing of it waits for a result. Graphs that a round leaves unsolved take another.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffcut_bench.ncut.spectral import deflated, golden_start, indicator, leading, scale_and_trivial, tolerance

# Rounds after which a graph is taken for one that more of them would not solve.
ROUNDS = 7
_VECTORS = 16
# Products by M between orthonormalisations: plain powers first, whose result says where the filters have to end.
_POWERS, _FILTERS = 4, (8, 8)
# Diagonal that a Gram matrix is given against rounding, in units of the dtype's epsilon.
_RIDGE_EPS = 8.0
# Square sum of a block whose powers have vanished: M's second eigenvalue is about 0, so no cut costs less than 1.
_NOTHING_LEFT = 1e-34
# Least end of the interval that a filter damps, against the greatest eigenvalue known: more would overflow.
_LEAST_BOUND = 0.05
_LEAST_HALF = 1e-7
# Its greatest end, where a first round was not enough: more eigenvalues than the block has vectors may be the same.
_MOST_BOUND = 0.97
# How far the trivial eigenvalue stays below all others, in units of the dtype's epsilon.
_COMMON_EPS = 64.0
# A Ritz vector shorter than this is made of vectors of almost no length, which stand for no eigenvector.
_LEAST_LENGTH = 0.5


class Round(NamedTuple):
    """What a round has found.

    Attributes:
        indicator: see `fiedler_vector`; what it holds for unsolved graphs is not settled yet.
        unsolved: whether the residual is above the tolerance.
        block: where the next round goes on.
    """

    indicator: Float[Tensor, "items nodes"]
    unsolved: Bool[Tensor, " items"]
    block: Float[Tensor, "items nodes vectors"]


def start_block(nodes: int, dtype: torch.dtype) -> Float[Tensor, "nodes vectors"]:
    """Where the first round starts, on the host: see `golden_start`."""
    return golden_start(nodes * _VECTORS).view(_VECTORS, nodes).T.to(dtype)


def effort_of(rounds: int) -> int:
    """How often the number of filters is doubled in a round after so many others: not in the first two, which nearly
    all graphs are solved by."""
    return max(rounds - 1, 0)


def improve(
    weights: Float[Tensor, "items nodes nodes"],
    degree: Float[Tensor, "items nodes"],
    block: Float[Tensor, "items nodes vectors"],
    effort: int = 0,
) -> Round:
    """One round.

    Args:
        weights, degree: see `fiedler_vector`.
        block: from the last round, or `start_block` at the first one.
        effort: see `effort_of`.
    """
    scale, trivial = scale_and_trivial(degree)
    matrix = deflated(weights, scale, trivial, moved_to=0)
    if effort:
        _subtract_common(matrix, trivial, degree)
        flat = torch.zeros_like(degree[:, 0], dtype=torch.bool)
    else:
        for _ in range(_POWERS):
            block = matrix @ block
        block, size = _independent(block)
        flat = size <= _NOTHING_LEFT
    shift = None
    for products in _FILTERS * 2**effort:
        block, shift = _filtered(matrix, shift, block, products, _MOST_BOUND if effort else None)
        block = _orthonormal(block)
    image = matrix @ block
    ritz = leading(block.mT @ image)[:, None]
    vector, its_image = (ritz @ block.mT)[:, 0], (ritz @ image.mT)[:, 0]
    length = vector.square().sum(dim=1, keepdim=True)
    value = (vector * its_image).sum(dim=1, keepdim=True) / length
    error = torch.addcmul(its_image, value, vector, value=-1).norm(dim=1)
    solved = (error <= tolerance(degree.dtype)) & (length[:, 0] > _LEAST_LENGTH) | flat
    return Round(indicator(scale, vector.masked_fill(flat[:, None], 0)), ~solved, block)


def _subtract_common(matrix: Tensor, trivial: Tensor, degree: Tensor) -> None:
    """Subtract, in place, what all eigenvalues of M but the trivial one have in common.

    Where nodes are hardly tied, eigenvalues lie close together near 1, and filters tell them apart only from the least
    of them on. Gershgorin's circles bound it.
    """
    own = matrix.diagonal(dim1=1, dim2=2) + trivial.square()
    common = 2 * own.masked_fill(degree == 0, 1).amin(dim=1) - 1 - _COMMON_EPS * torch.finfo(matrix.dtype).eps
    common = common.clamp_min(0)[:, None]
    matrix.diagonal(dim1=1, dim2=2).sub_(common)
    matrix.baddbmm_((common * trivial)[:, :, None], trivial[:, None, :])


def _filtered(
    matrix: Tensor, shift: Tensor | None, block: Tensor, products: int, share: float | None
) -> tuple[Tensor, Tensor]:
    """Chebyshev polynomial of M times the block: small where M's eigenvalues lie between 0 and what the block has least
    of (or, if that is less, this share of what it has most of), growing with ``products`` above.

    ``matrix`` is M less ``shift`` on its diagonal; the new shift is returned.
    """
    first = matrix @ block
    least, most = (block * first).sum(dim=1).aminmax(dim=1)  # Rayleigh quotients of its vectors
    if shift is not None:
        least, most = least + shift, most + shift
    if share is not None:
        least = torch.minimum(least, most * share)
    half = torch.maximum(least, most * _LEAST_BOUND).clamp_min(_LEAST_HALF) / 2
    further = half if shift is None else half - shift
    matrix.diagonal(dim1=1, dim2=2).sub_(further[:, None])
    stretch = half.reciprocal()[:, None, None]
    last, this = block, stretch * torch.addcmul(first, further[:, None, None], block, value=-1)
    stretch = 2 * stretch
    for _ in range(products - 1):
        last, this = this, torch.baddbmm(last, matrix, stretch * this, beta=-1)
    return this, half


def _independent(block: Tensor) -> tuple[Tensor, Tensor]:
    """A basis of the block's span, nearly orthonormal, by Cholesky's factorisation; and the block's square sum.

    What the span has too few dimensions for becomes vectors of almost no length.
    """
    gram = block.mT @ block
    diagonal = gram.diagonal(dim1=1, dim2=2)
    size = diagonal.sum(dim=1)
    finfo = torch.finfo(block.dtype)
    diagonal.add_((_RIDGE_EPS * finfo.eps * size).clamp_min(finfo.tiny)[:, None])  # a block of zeros stays one
    return _solve(gram, block), size


def _orthonormal(block: Tensor) -> Tensor:
    """The basis that Cholesky's factorisation makes of `_independent`'s: orthonormal to rounding."""
    block, _ = _independent(block)
    gram = block.mT @ block
    gram.diagonal(dim1=1, dim2=2).add_(_RIDGE_EPS * torch.finfo(block.dtype).eps)
    return _solve(gram, block)


def _solve(gram: Tensor, block: Tensor) -> Tensor:
    factor = torch.linalg.cholesky_ex(gram).L  # whose failure shows in the residual: to ask for it is to wait
    return torch.linalg.solve_triangular(factor.mT, block, upper=True, left=False)
