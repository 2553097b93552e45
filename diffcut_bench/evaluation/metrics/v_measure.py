"""V-measure (Rosenberg & Hirschberg 2007): harmonic mean of homogeneity and completeness.

Homogeneity is 1 where each segment holds pixels of one region alone, completeness where each region lies in one
segment. In [0, 1]. As in scikit-learn, one region makes any partition homogeneous, and one segment makes it complete.
The score is the mean over images; one without a scored pixel is left out.
"""

from diffcut_bench.evaluation.images import ScoredImage
from diffcut_bench.evaluation.metrics import Metric, ratio
from diffcut_bench.evaluation.metrics.voi import entropy


def of_image(image: ScoredImage) -> tuple[float, float]:
    """V-measure and 1; zeros without scored pixels."""
    counts = image.table.numpy()
    if not counts.any():
        return 0.0, 0.0
    regions, segments = entropy(counts.sum(axis=1)), entropy(counts.sum(axis=0))
    shared = max(regions + segments - entropy(counts), 0.0)
    homogeneity = shared / regions if regions else 1.0
    completeness = shared / segments if segments else 1.0
    both = homogeneity + completeness
    return (2 * homogeneity * completeness / both if both else 0.0), 1.0


METRIC = Metric(
    name="v_measure",
    heading="V-measure",
    measure=of_image,
    reduce=ratio,
    order=35,
    in_tables=False,
    about="V-measure: harmonic mean of homogeneity and completeness of the segments, the mean over images.",
)
