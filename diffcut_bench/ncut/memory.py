"""What a cut will take of memory, said before it starts. Knows tensors only."""

from diffcut_bench.ncut.fiedler import DENSE_UP_TO
from diffcut_bench.ncut.settings import Solver

# N×N matrices alive at once: W and its largest sub-graph; block iteration adds M, the dense solver its eigenvectors and
# its workspace as well.
_MATRICES: dict[Solver, int] = {"lanczos": 2, "block": 3, "eigh": 6}


class GraphTooLargeError(ValueError):
    """One image does not fit in ``max_memory_gib``; the message has the figures."""


def needed_gib(nodes: int, element_size: int, solver: Solver = "lanczos", cuts: int = 1) -> float:
    """Working memory of the cut of one image, in GiB, its features aside.

    Args:
        nodes: patches.
        element_size: bytes of a number: 4 in float32.
        solver: of the cut.
        cuts: that share one cosine matrix, which from two on is kept beside W.
    """
    return (_MATRICES[solver] + (cuts > 1)) * _matrix_gib(nodes, element_size)


def check_fits(nodes: int, element_size: int, solver: Solver, limit_gib: float) -> None:
    """Refuse an image whose cut needs more than the limit.

    Images of up to `DENSE_UP_TO` patches are always taken: they need little on any machine, and a small limit is how
    their batches are split.

    Raises:
        GraphTooLargeError: with the estimate.
    """
    needed, matrix = needed_gib(nodes, element_size, solver), _matrix_gib(nodes, element_size)
    if nodes > DENSE_UP_TO and needed > limit_gib:
        raise GraphTooLargeError(
            f"an image of {nodes} patches needs about {needed:.1f} GiB for its cut, of which its affinity matrix alone "
            f"takes {matrix:.1f} GiB; max_memory_gib is {limit_gib:g}"
        )


def _matrix_gib(nodes: int, element_size: int) -> float:
    return nodes**2 * element_size / 2**30
