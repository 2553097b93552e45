"""Speed against the plain textbook version, as ratios in one run."""

from diffcut_bench.bench.reading import compare_lookup, compare_workers
from diffcut_bench.bench.segmenter import Comparison, as_record, compare_tau_path, compare_with_textbook
from diffcut_bench.bench.textbook import textbook_recursive_ncut

__all__ = [
    "Comparison",
    "as_record",
    "compare_lookup",
    "compare_tau_path",
    "compare_with_textbook",
    "compare_workers",
    "textbook_recursive_ncut",
]
