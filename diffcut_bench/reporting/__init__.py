"""What people look at: tables, pictures, runs of Weights & Biases."""

from diffcut_bench.reporting.details import (
    ImageScore,
    class_table,
    common_images,
    difference_texts,
    rank_table,
    score_table,
)
from diffcut_bench.reporting.explorer import Explorer
from diffcut_bench.reporting.exploring import explore_cuts, explore_outcome
from diffcut_bench.reporting.figures import encode_figure, new_figure, write_figure
from diffcut_bench.reporting.granularity import CellsAlong, cells_along, compare_at_segments
from diffcut_bench.reporting.page import render_page
from diffcut_bench.reporting.pictures import draw_outcome, encode_png, overlay, palette, with_legend
from diffcut_bench.reporting.report import make_report, stored_curves
from diffcut_bench.reporting.sweeps import sweep_figures
from diffcut_bench.reporting.tables import (
    Column,
    Table,
    interval_text,
    lift_text,
    linking_text,
    number_columns,
    protocols_in_force,
    results_table,
    scored_images,
)
from diffcut_bench.reporting.tracker import Tracker
from diffcut_bench.reporting.wandb_tracker import WandbTracker
from diffcut_bench.scoring.ranking import leading_metric

__all__ = [
    "CellsAlong",
    "Column",
    "Explorer",
    "ImageScore",
    "Table",
    "Tracker",
    "WandbTracker",
    "cells_along",
    "class_table",
    "common_images",
    "compare_at_segments",
    "difference_texts",
    "draw_outcome",
    "encode_figure",
    "encode_png",
    "explore_cuts",
    "explore_outcome",
    "interval_text",
    "leading_metric",
    "lift_text",
    "linking_text",
    "make_report",
    "new_figure",
    "number_columns",
    "overlay",
    "palette",
    "protocols_in_force",
    "rank_table",
    "render_page",
    "results_table",
    "score_table",
    "scored_images",
    "stored_curves",
    "sweep_figures",
    "with_legend",
    "write_figure",
]
