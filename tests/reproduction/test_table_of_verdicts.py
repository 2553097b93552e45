"""The redrawn tables of made-up values: every verdict, and what stands beside it."""

import pytest

from diffcut_bench.config import load_config
from diffcut_bench.reporting import Table
from diffcut_bench.reproduction import PlannedCell, average_seeds, redraw
from diffcut_bench.reproduction.outcome import Outcome
from diffcut_bench.reproduction.spec import Reproduction, Row
from diffcut_bench.reproduction.verdict import Measured
from diffcut_bench.store import Bracket, Score

COLUMNS = {"a": [], "b": [], "c": []}
ROWS = [
    Row("ours", published={"a": 65.2, "b": 71.68, "c": 30.0}),
    Row("seeds", published={"a": 50.0}),
    Row("theirs", published={"a": 9.8}, not_run="trained"),
    Row("new"),
]


@pytest.fixture(scope="module")
def tables() -> dict[str, Table]:
    config = load_config([])
    bracket = Bracket(Score(0.317, (0.3, 0.33)), Score(0.881), Score(0.6002, (0.55, 0.65)))
    ours = (
        Measured(65.55, (62.0, 69.0), bracket=bracket),
        Measured(71.2, (68.0, 74.0)),
        Measured(30.0, None, ("limit=3",)),
    )
    lifts = {42: Score(-0.2, (-0.3, 0.1)), 43: Score(0.1, (-0.2, 0.4))}
    seeds = {
        seed: Measured(value, (value - 2, value + 2), bracket=Bracket(Score(0.5), Score(0.75), lifts[seed]))
        for seed, value in ((42, 50.0), (43, 52.0))
    }
    new = (Measured(12.345), None, None)
    outcomes = [
        *(Outcome(PlannedCell(ROWS[0], name, config=config), each) for name, each in zip(COLUMNS, ours, strict=True)),
        *(Outcome(PlannedCell(ROWS[1], "a", config=config, seed=seed), each) for seed, each in seeds.items()),
        Outcome(PlannedCell(ROWS[2], "a"), why="trained"),
        *(
            Outcome(PlannedCell(ROWS[3], name, config=config), each, "" if each else "no weights")
            for name, each in zip(COLUMNS, new, strict=True)
        ),
    ]
    reproduction = Reproduction("Made", "a test", name="made", columns=COLUMNS, rows=ROWS)
    return redraw(reproduction, average_seeds(outcomes))


def test_every_verdict_and_its_tolerance_stand_in_the_table(tables):
    table = tables["table"]
    assert set(tables) == {"table", "cells"}, "there are no claims"
    assert table.rows == (
        ("ours", "published", "65.2", "71.68", "30.0"),
        ("", "ours", "65.55", "71.20", "30.00"),
        ("", "95 % over images", "62.0 – 69.0", "68.0 – 74.0", ""),
        ("", "floor – ceiling", "31.7 – 88.1", "", ""),
        ("", "lift", "0.60 (0.55 – 0.65)", "", ""),
        ("", "difference", "+0.35", "−0.48", "+0.00"),
        ("", "tolerance", "±0.35", "±0.305", "±0.35"),
        ("", "verdict", "reproduced", "differs", "limited (a)"),
        ("seeds", "published", "50.0", "", ""),
        ("", "ours", "51.00", "", ""),
        ("", "deviation over 2 seeds", "1.41", "", ""),
        ("", "95 % over images", "49.0 – 53.0", "", ""),
        ("", "floor – ceiling", "50.0 – 75.0", "", ""),
        ("", "lift", "−0.05 (−0.25 – 0.25)", "", ""),
        ("", "difference", "+1.00", "", ""),
        ("", "tolerance", "±2.88", "", ""),
        ("", "verdict", "reproduced", "", ""),
        ("theirs", "published (b)", "9.8", "", ""),
        ("new", "ours", "12.35", "", ""),
        ("", "verdict", "", "not run (c)", "not run (c)"),
    )
    notes = "\n".join(table.notes)
    for note in (
        "floor: a grid of as many segments",
        "(a) limited: limit=3",
        "(b) not run: trained",
        "(c) not run: no weights",
        "decides no verdict",
    ):
        assert note in notes


def test_cells_tell_all_that_a_verdict_was_made_from(tables):
    names = [column.name for column in tables["cells"].columns]
    rows = [dict(zip(names, row, strict=True)) for row in tables["cells"].rows]
    words = {(row["method"], row["column"], row["seed"]): row["verdict"] for row in rows}
    assert words["ours", "a", ""] == "reproduced"
    assert words["theirs", "a", ""] == "not run: trained"
    assert words["new", "a", ""] == "not stated"
    assert words["seeds", "a", "42"] == words["seeds", "a", "43"] == "one of 2 seeds"
    (mean,) = (row for row in rows if row["seed"] == "mean of 2")
    assert (mean["ours"], mean["deviation"], mean["difference"], mean["tolerance"]) == (
        "51.000",
        "1.414",
        "1.000",
        "2.878",
    )
    place = ("floor", "ceiling", "lift", "lift low", "lift high")
    assert [mean[name] for name in place] == ["50.000", "75.000", "-0.050", "-0.250", "0.250"]
    (first, second) = (row for row in rows if row["method"] == "ours" and row["column"] in "ab")
    assert [first[name] for name in place] == ["31.700", "88.100", "0.600", "0.550", "0.650"]
    assert {second[name] for name in place} == {""}
    (one,) = (row for row in rows if row["seed"] == "43")
    assert (one["ours"], one["difference"], one["tolerance"]) == ("52.000", "2.000", "")
