"""What a cut will take of memory, said before it starts. Knows tensors only."""

from diffcut_bench.ncut.fiedler import DENSE_UP_TO
from diffcut_bench.ncut.settings import Solver

# N×N matrices alive at once: W and its largest sub-graph; the dense solver adds M, its eigenvectors and its workspace.
_MATRICES: dict[Solver, int] = {"lanczos": 2, "eigh": 6}


class GraphTooLargeError(ValueError):
    """One image does not fit in ``max_memory_gib``.

    Args:
        nodes: patches of the image.
        matrix_gib: what its affinity matrix takes.
        needed_gib: what its cut takes in all.
        limit_gib: what it may take.
    """

    def __init__(self, nodes: int, matrix_gib: float, needed_gib: float, limit_gib: float) -> None:
        super().__init__(nodes, matrix_gib, needed_gib, limit_gib)
        self.nodes, self.matrix_gib, self.needed_gib, self.limit_gib = nodes, matrix_gib, needed_gib, limit_gib

    def __str__(self) -> str:
        return (
            f"an image of {self.nodes} patches needs about {self.needed_gib:.1f} GiB for its cut, of which its "
            f"affinity matrix alone takes {self.matrix_gib:.1f} GiB; max_memory_gib is {self.limit_gib:g}"
        )


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
    needed = needed_gib(nodes, element_size, solver)
    if nodes > DENSE_UP_TO and needed > limit_gib:
        raise GraphTooLargeError(nodes, _matrix_gib(nodes, element_size), needed, limit_gib)


def _matrix_gib(nodes: int, element_size: int) -> float:
    return nodes**2 * element_size / 2**30
