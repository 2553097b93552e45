"""The paper's tables and figures: which cells, what was published, and whether ours agree."""

from diffcut_bench.reproduction.budget import TFLOPS, plan_budget
from diffcut_bench.reproduction.claims import Checked, check_claims
from diffcut_bench.reproduction.curves import Point, check_curve, figure_curves
from diffcut_bench.reproduction.leads import Contest, Lead, check_lead, mean_lead, measure_lead
from diffcut_bench.reproduction.measure import measure_cells
from diffcut_bench.reproduction.plan import PlannedCell, average_seeds, plan_cells, resolve_under
from diffcut_bench.reproduction.record import write_reproduction
from diffcut_bench.reproduction.spec import Claim, Reproduction, Row, Tuning, known_reproductions, load_reproduction
from diffcut_bench.reproduction.tables import cells_table, claims_table, redraw, redrawn_table
from diffcut_bench.reproduction.tuning import Tuned, training_configs, tune_setting
from diffcut_bench.reproduction.verdict import Measure, Measured, Verdict, judge, known_measures

__all__ = [
    "TFLOPS",
    "Checked",
    "Claim",
    "Contest",
    "Lead",
    "Measure",
    "Measured",
    "PlannedCell",
    "Point",
    "Reproduction",
    "Row",
    "Tuned",
    "Tuning",
    "Verdict",
    "average_seeds",
    "cells_table",
    "check_claims",
    "check_curve",
    "check_lead",
    "claims_table",
    "figure_curves",
    "judge",
    "known_measures",
    "known_reproductions",
    "load_reproduction",
    "mean_lead",
    "measure_cells",
    "measure_lead",
    "plan_budget",
    "plan_cells",
    "redraw",
    "redrawn_table",
    "resolve_under",
    "training_configs",
    "tune_setting",
    "write_reproduction",
]
