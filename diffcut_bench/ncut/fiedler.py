"""Second eigenvectors of a batch of symmetric normalised Laplacians. Knows tensors only.

A node without edges is legal and changes nothing for the others: batches of graphs of several sizes are padded with
such nodes.
"""

import warnings

import torch
from jaxtyping import Float
from torch import Tensor

from diffcut_bench.ncut.block import ROUNDS, effort_of, improve, start_block
from diffcut_bench.ncut.lanczos import leading_vectors, restarted
from diffcut_bench.ncut.settings import Solver
from diffcut_bench.ncut.spectral import deflated, golden_start, indicator, scale_and_trivial

# Above this many nodes the whole spectrum costs minutes and several times W's memory: the best vector found is taken.
DENSE_UP_TO = 4096


def fiedler_vector(
    weights: Float[Tensor, "*batch nodes nodes"], degree: Float[Tensor, "*batch nodes"], solver: Solver = "lanczos"
) -> Float[Tensor, "*batch nodes"]:
    """Relaxed Normalized Cut indicator ``y = D^-1/2 u₂`` (Shi & Malik 2000, equation 11).

    ``u₂`` belongs to the second smallest eigenvalue of ``D^-1/2 (D − W) D^-1/2``, which is the second largest
    of ``M = D^-1/2 W D^-1/2``. Its sign is chosen so that the entry of ``y`` of greatest magnitude is positive.

    Args:
        weights: symmetric non-negative affinities, at least 2×2; disconnected graphs and isolated nodes are legal.
        degree: row sums of ``weights``.
        solver: see `NCutSettings`. Graphs that the iteration leaves unsolved go to the dense solver; those of more than
            `DENSE_UP_TO` nodes never do, and keep the best vector found (Lanczos is restarted before, a few times at
            most, while that halves its residual). Its cut is a legal one, and all that an eigenvalue so close to the
            next can decide.

    Returns:
        ``y``, one value a node; 0 for isolated nodes.
    """
    graphs, volumes = weights.reshape(-1, *weights.shape[-2:]), degree.reshape(-1, degree.shape[-1])
    solver = solver_on(graphs.device, solver)
    if solver == "block":
        return _block(graphs, volumes).view(degree.shape)
    scale, trivial = scale_and_trivial(volumes)
    if solver == "eigh":
        vectors = _dense(graphs, scale, trivial)
    else:
        vectors, unsolved = leading_vectors(graphs, scale, trivial)
        if unsolved and graphs.shape[-1] <= DENSE_UP_TO:
            vectors[unsolved] = _dense(graphs[unsolved], scale[unsolved], trivial[unsolved])
        else:
            for item in unsolved:
                vectors[item] = restarted(graphs[item], scale[item], trivial[item], vectors[item])
    return indicator(scale, vectors).view(degree.shape)


def solver_on(device: torch.device, solver: Solver) -> Solver:
    """The solver that runs: on an accelerator ``block`` takes the place of ``lanczos``."""
    return "block" if solver == "lanczos" and device.type != "cpu" else solver


def last_resort(
    weights: Float[Tensor, "items nodes nodes"],
    degree: Float[Tensor, "items nodes"],
    indicators: Float[Tensor, "items nodes"],
) -> Float[Tensor, "items nodes"]:
    """Indicators of graphs that every round of block iteration left unsolved.

    By the dense solver on the host, and a warning says so: an accelerator's takes such matrices one by one. Graphs of
    more than `DENSE_UP_TO` nodes keep those that they have.
    """
    if degree.shape[1] > DENSE_UP_TO:
        return indicators.nan_to_num()
    # The same words each time: Python shows them once.
    warnings.warn(
        f"some sub-graphs were not solved by block iteration on {weights.device.type}; the dense solver takes them on "
        "the host, which is slow",
        RuntimeWarning,
        stacklevel=2,
    )
    scale, trivial = scale_and_trivial(degree.cpu())
    return indicator(scale, _dense(weights.cpu(), scale, trivial)).to(weights.device)


def _dense(weights: Tensor, scale: Tensor, trivial: Tensor) -> Tensor:
    """The eigenvector from the whole spectrum."""
    return torch.linalg.eigh(deflated(weights, scale, trivial)).eigenvectors[..., -1]


def _block(weights: Tensor, degree: Tensor) -> Tensor:
    """Indicators by rounds of block iteration, each of the graphs that the last one left unsolved."""
    block = start_block(degree.shape[1], degree.dtype).to(degree.device).expand(len(degree), -1, -1)
    indicators = torch.zeros_like(degree)
    unsolved = torch.arange(len(degree), device=degree.device)
    for rounds in range(ROUNDS):
        found = improve(weights[unsolved], degree[unsolved], block, effort_of(rounds))
        indicators[unsolved] = found.indicator
        unsolved, block = unsolved[found.unsolved], found.block[found.unsolved]
        if not len(unsolved):
            break
    else:
        indicators[unsolved] = last_resort(weights[unsolved], degree[unsolved], indicators[unsolved])
    # Graphs whose second eigenvalue is 0 have none: of all vectors, which are equally good, the one that Lanczos takes.
    scale, trivial = scale_and_trivial(degree)
    start = golden_start(degree.shape[1]).to(degree.dtype).to(degree.device) * (scale > 0)
    start = start - (start * trivial).sum(dim=1, keepdim=True) * trivial
    return torch.where(indicators.any(dim=1, keepdim=True), indicators, indicator(scale, start))
