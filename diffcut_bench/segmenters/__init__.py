"""Segmenters, one file a method: features or pictures -> segments. `as_segmenter` makes one of any function."""

from diffcut_bench.ncut import GraphTooLargeError
from diffcut_bench.segmenters.agglomerative import Agglomerative
from diffcut_bench.segmenters.autosc import AutoSC
from diffcut_bench.segmenters.base import HasTree, Inputs, Segmenter, as_segmenter, segment_together, sharing_groups
from diffcut_bench.segmenters.clasp import Clasp
from diffcut_bench.segmenters.cluster_probe import ClusterProbe
from diffcut_bench.segmenters.diffcut import DiffCut
from diffcut_bench.segmenters.diffseg import DiffSeg
from diffcut_bench.segmenters.falcon import Falcon
from diffcut_bench.segmenters.falcon_v1 import FalconV1
from diffcut_bench.segmenters.found import Found
from diffcut_bench.segmenters.kmeans import KMeans
from diffcut_bench.segmenters.kway_ncut import KWayNCut
from diffcut_bench.segmenters.lost import Lost
from diffcut_bench.segmenters.maskcut import MaskCut
from diffcut_bench.segmenters.oracle import Oracle
from diffcut_bench.segmenters.patches import Patches
from diffcut_bench.segmenters.precomputed import Precomputed
from diffcut_bench.segmenters.spectral import Spectral
from diffcut_bench.segmenters.spectral_embedding import SpectrumTooLargeError
from diffcut_bench.segmenters.superpixels import Felzenszwalb, Slic
from diffcut_bench.segmenters.tokencut import TokenCut
from diffcut_bench.segmenters.trivial import OneSegment, UniformGrid, grid_of
from diffcut_bench.segmenters.ucm import Ucm

__all__ = [
    "Agglomerative",
    "AutoSC",
    "Clasp",
    "ClusterProbe",
    "DiffCut",
    "DiffSeg",
    "Falcon",
    "FalconV1",
    "Felzenszwalb",
    "Found",
    "GraphTooLargeError",
    "HasTree",
    "Inputs",
    "KMeans",
    "KWayNCut",
    "Lost",
    "MaskCut",
    "OneSegment",
    "Oracle",
    "Patches",
    "Precomputed",
    "Segmenter",
    "Slic",
    "Spectral",
    "SpectrumTooLargeError",
    "TokenCut",
    "Ucm",
    "UniformGrid",
    "as_segmenter",
    "grid_of",
    "segment_together",
    "sharing_groups",
]


def __dir__() -> list[str]:
    return sorted(__all__)
