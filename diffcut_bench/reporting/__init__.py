"""What people look at: tables, pictures, runs of Weights & Biases."""

from diffcut_bench.reporting.details import (
    class_table,
    common_images,
    counts_of,
    image_table,
    ranked_images,
    row_counts,
)
from diffcut_bench.reporting.figures import (
    Curve,
    draw_class_bars,
    draw_curves,
    draw_heat_map,
    encode_figure,
    inline_svg,
    write_figure,
)
from diffcut_bench.reporting.gallery import choose_images, embed_picture
from diffcut_bench.reporting.page import (
    DatasetPart,
    Drawing,
    GalleryPicture,
    Headline,
    Page,
    ReproductionPart,
    RunDetails,
    render_page,
)
from diffcut_bench.reporting.parts import counted
from diffcut_bench.reporting.pictures import draw_outcome, encode_png, overlay, palette, with_legend
from diffcut_bench.reporting.report import make_report
from diffcut_bench.reporting.settings import Comparison, compare_settings, heading, hidden_place, settings_of, text_of
from diffcut_bench.reporting.sweeps import SweepFigure, sweep_figures
from diffcut_bench.reporting.tables import (
    Column,
    Table,
    footer,
    interval_text,
    percent,
    protocols_in_force,
    results_table,
    scored_images,
)
from diffcut_bench.reporting.tracker import Tracker
from diffcut_bench.reporting.wandb_tracker import WandbTracker

__all__ = [
    "Column",
    "Comparison",
    "Curve",
    "DatasetPart",
    "Drawing",
    "GalleryPicture",
    "Headline",
    "Page",
    "ReproductionPart",
    "RunDetails",
    "SweepFigure",
    "Table",
    "Tracker",
    "WandbTracker",
    "choose_images",
    "class_table",
    "common_images",
    "compare_settings",
    "counted",
    "counts_of",
    "draw_class_bars",
    "draw_curves",
    "draw_heat_map",
    "draw_outcome",
    "embed_picture",
    "encode_figure",
    "encode_png",
    "footer",
    "heading",
    "hidden_place",
    "image_table",
    "inline_svg",
    "interval_text",
    "make_report",
    "overlay",
    "palette",
    "percent",
    "protocols_in_force",
    "ranked_images",
    "render_page",
    "results_table",
    "row_counts",
    "scored_images",
    "settings_of",
    "sweep_figures",
    "text_of",
    "with_legend",
    "write_figure",
]
