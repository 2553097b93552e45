"""Probabilistic Rand index (Unnikrishnan et al. 2007): the share of pairs of pixels that two partitions agree on.

With one annotator this is the Rand index; with several, the mean over annotators. In [0, 1], in practice far above 0.
The score is the mean over images; one without a scored pixel is left out, one of a single pixel has 1.
"""

from diffcut_bench.evaluation.images import ScoredImage
from diffcut_bench.evaluation.metrics import Metric, ratio
from diffcut_bench.evaluation.metrics.ari import count_pairs


def rand_index(image: ScoredImage) -> tuple[float, float]:
    """The index and 1; zeros without scored pixels."""
    if not image.table.any():
        return 0.0, 0.0
    pairs = count_pairs(image.table)
    return 1 - (pairs.fp + pairs.fn) / max(sum(pairs), 1), 1.0


METRIC = Metric(
    name="pri",
    heading="PRI",
    measure=rand_index,
    reduce=ratio,
    order=32,
    in_tables=False,
    about="PRI: probabilistic Rand index, the share of pairs of pixels on which segments and annotated regions agree, "
    "the mean over images.",
)
