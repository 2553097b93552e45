"""Graph partitioning on tensors: affinity, second eigenvector, splitting point, recursion. Imports torch only.

Read `textbook` first: the method on one screen.
"""

from diffcut_bench.ncut.affinity import affinity, cosine_matrix, scaled_cosines
from diffcut_bench.ncut.bipartition import best_bipartition
from diffcut_bench.ncut.coarse import CoarseGrid, coarse_to_fine_ncut
from diffcut_bench.ncut.fiedler import fiedler_vector
from diffcut_bench.ncut.memory import GraphTooLargeError, needed_gib
from diffcut_bench.ncut.recursive import ncut_tree, ncut_trees, recursive_ncut
from diffcut_bench.ncut.settings import NCutSettings
from diffcut_bench.ncut.tree import ImageTree, NCutTree

__all__ = [
    "CoarseGrid",
    "GraphTooLargeError",
    "ImageTree",
    "NCutSettings",
    "NCutTree",
    "affinity",
    "best_bipartition",
    "coarse_to_fine_ncut",
    "cosine_matrix",
    "fiedler_vector",
    "ncut_tree",
    "ncut_trees",
    "needed_gib",
    "recursive_ncut",
    "scaled_cosines",
]


def __dir__() -> list[str]:
    return sorted(__all__)
