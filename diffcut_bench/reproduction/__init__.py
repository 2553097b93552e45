"""The paper's tables and figures: which cells, what was published, and whether ours agree."""

from diffcut_bench.reproduction.budget import TFLOPS, plan_budget
from diffcut_bench.reproduction.curves import figure_curves
from diffcut_bench.reproduction.measure import measure_cells
from diffcut_bench.reproduction.outcome import average_seeds
from diffcut_bench.reproduction.plan import PlannedCell, plan_cells, resolve_under, told_by
from diffcut_bench.reproduction.spec import Tuning, load_reproduction
from diffcut_bench.reproduction.tables import redraw, write_reproduction
from diffcut_bench.reproduction.tuning import tune_setting

__all__ = [
    "TFLOPS",
    "PlannedCell",
    "Tuning",
    "average_seeds",
    "figure_curves",
    "load_reproduction",
    "measure_cells",
    "plan_budget",
    "plan_cells",
    "redraw",
    "resolve_under",
    "told_by",
    "tune_setting",
    "write_reproduction",
]
