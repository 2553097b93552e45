"""What people look at: tables and pictures."""

from diffcut_bench.reporting.pictures import draw_outcome, encode_png, overlay, palette
from diffcut_bench.reporting.tables import Column, Table, footer, interval_text, percent, results_table

__all__ = [
    "Column",
    "Table",
    "draw_outcome",
    "encode_png",
    "footer",
    "interval_text",
    "overlay",
    "palette",
    "percent",
    "results_table",
]
