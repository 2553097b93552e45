"""What people look at: tables and pictures."""

from diffcut_bench.reporting.pictures import draw_outcome, encode_png, overlay, palette
from diffcut_bench.reporting.tables import footer, print_results

__all__ = ["draw_outcome", "encode_png", "footer", "overlay", "palette", "print_results"]
