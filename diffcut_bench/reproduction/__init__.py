"""The paper's tables and figures: which cells, what was published, and whether ours agree."""

from diffcut_bench.reproduction.claims import Point, check_claim
from diffcut_bench.reproduction.plan import PlannedCell, plan_cells, resolve_under
from diffcut_bench.reproduction.spec import Claim, Experiment, Row, Tuning, known_experiments, load_experiment
from diffcut_bench.reproduction.tables import cells_table, claims_table, redrawn_table
from diffcut_bench.reproduction.verdict import MEASURES, Measure, Measured, Verdict, judge

__all__ = [
    "MEASURES",
    "Claim",
    "Experiment",
    "Measure",
    "Measured",
    "PlannedCell",
    "Point",
    "Row",
    "Tuning",
    "Verdict",
    "cells_table",
    "check_claim",
    "claims_table",
    "judge",
    "known_experiments",
    "load_experiment",
    "plan_cells",
    "redrawn_table",
    "resolve_under",
]
