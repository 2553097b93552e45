"""Variation of information (Meilă 2007) in bits: what each of two partitions does not say of the other.

H(regions | segments) + H(segments | regions): 0 for equal partitions, lower is better, no upper bound but log2 of the
pixels. The score is the mean over images; one without a scored pixel is left out.
"""

import numpy as np

from diffcut_bench.evaluation.images import ScoredImage
from diffcut_bench.evaluation.metrics import Metric, ratio


def entropy(counts: np.ndarray) -> float:
    """Entropy in bits of a distribution that is given by its counts, of which one at least is not zero."""
    share = np.sort(counts[counts > 0]) / counts.sum()  # no order of segments changes the last digit
    return 0.0 if len(share) == 1 else float(-(share * np.log2(share)).sum())


def of_image(image: ScoredImage) -> tuple[float, float]:
    """Bits and 1; zeros without scored pixels."""
    counts = image.table.numpy()
    if not counts.any():
        return 0.0, 0.0
    return max(2 * entropy(counts) - entropy(counts.sum(axis=0)) - entropy(counts.sum(axis=1)), 0.0), 1.0


METRIC = Metric(
    name="voi",
    heading="VoI",
    measure=of_image,
    reduce=ratio,
    higher_is_better=False,
    is_fraction=False,
    digits=2,
    order=33,
    in_tables=False,
    about="VoI: variation of information between segments and annotated regions in bits, the mean over images; lower "
    "is better.",
)
