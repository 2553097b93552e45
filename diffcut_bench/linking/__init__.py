"""One matching for the data set, for methods that number the segments of each image anew: segments of all images are
compared by their mean features."""

from diffcut_bench.linking.kmeans import KMeansLinker
from diffcut_bench.linking.matching import Entries, count_linked
from diffcut_bench.linking.prototypes import segment_prototypes

__all__ = ["Entries", "KMeansLinker", "count_linked", "segment_prototypes"]


def __dir__() -> list[str]:
    return sorted(__all__)
