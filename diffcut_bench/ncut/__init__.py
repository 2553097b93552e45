"""Graph partitioning on tensors: affinity, second eigenvector, splitting point, recursion. Imports torch only."""

from diffcut_bench.ncut.affinity import affinity, cosine_matrix
from diffcut_bench.ncut.bipartition import best_bipartition
from diffcut_bench.ncut.fiedler import fiedler_vector
from diffcut_bench.ncut.recursive import ImageTree, NCutTree, ncut_tree, recursive_ncut

__all__ = [
    "ImageTree",
    "NCutTree",
    "affinity",
    "best_bipartition",
    "cosine_matrix",
    "fiedler_vector",
    "ncut_tree",
    "recursive_ncut",
]
