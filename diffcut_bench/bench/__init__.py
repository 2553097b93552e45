"""Speed against plain textbook versions, floors and rivals, as ratios in one run."""

from diffcut_bench.bench.reading import compare_lookup, compare_workers
from diffcut_bench.bench.segmenter import Comparison, compare_tau_path, compare_with_textbook

__all__ = [
    "Comparison",
    "compare_lookup",
    "compare_tau_path",
    "compare_with_textbook",
    "compare_workers",
]
