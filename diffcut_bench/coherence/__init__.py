"""Semantic coherence (the paper's Fig. 3): does the similarity of two patches tell that they are of one class?"""

from diffcut_bench.coherence.measure import Measurement, measure_coherence
from diffcut_bench.coherence.sampling import SamplingOptions, draw_pairs

__all__ = ["Measurement", "SamplingOptions", "draw_pairs", "measure_coherence"]
