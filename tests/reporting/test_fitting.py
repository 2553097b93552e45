"""Tables in a narrow terminal: no word is broken, nothing is left out, and no line is wider than the terminal."""

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import DATA, SMALL
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from diffcut_bench.cli import main
from diffcut_bench.config import load_config
from diffcut_bench.reporting import Column, Table, class_table, results_table, score_table
from diffcut_bench.reproduction import PlannedCell, load_reproduction, plan_budget, plan_cells, redraw
from diffcut_bench.reproduction.outcome import Outcome
from diffcut_bench.reproduction.verdict import Measured
from diffcut_bench.store import Bracket, Reference, Result, Score

RESULT = Result.from_json((DATA / "result_v1_latest.json").read_text())
BRACKET = Bracket(Score(0.317, (0.3, 0.33)), Score(0.881), Score(0.6002, (0.55, 0.65)))
REFERENCE = Reference(BRACKET.floor, BRACKET.ceiling, BRACKET.lift, "miou")


def lines_of(table: Table, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    table.print(console)
    return console.file.getvalue().splitlines()


def words_of(table: Table) -> set[str]:
    texts = [column.name for column in table.columns] + [cell for row in table.rows for cell in row]
    return {word for text in texts for word in text.split()}


def check(table: Table, width: int = 80) -> list[str]:
    """The lines, after every word was found whole in one of them, unless it is longer than half the width."""
    lines = lines_of(table, width)
    assert max(map(len, lines)) <= width
    found = {word for line in lines for word in re.split(r"[\s┃│]+", line)}
    cut = {word for word in words_of(table) - found if len(word) <= (width - 3) // 2}
    assert not cut
    return lines


def made(**segmenter: object) -> Result:
    config = {**RESULT.config, "segmenter": {**RESULT.config["segmenter"], **segmenter}}
    return replace(RESULT, config=config, reference=REFERENCE)


def reproduced(name: str) -> list[Table]:
    """The tables of a reproduction in which every cell has a made value, and the tables of what it would take."""
    reproduction, config = load_reproduction(name), load_config([])
    cells = [PlannedCell(row, column, config=config) for row in reproduction.rows for column in reproduction.columns]
    bracket = None if name == "bsds500" else BRACKET  # an optimum over thresholds has none
    outcomes = [
        Outcome(cell, why=cell.row.not_run)
        if cell.row.not_run
        else Outcome(cell, Measured(65.55, (62.0, 69.0), ("limit=3",), bracket=bracket))
        for cell in cells
    ]
    planned = plan_cells(reproduction, [])
    budgets = [plan_budget(reproduction, planned, tflops)[0] for tflops in (None, 100.0)]
    return [*redraw(reproduction, outcomes).values(), *budgets]


def test_cells_with_floors_and_ceilings():
    cells = [(Path(f"{tau}-{alpha}"), made(tau=tau, alpha=alpha)) for tau in (0.3, 0.5) for alpha in (1, 10)]
    lines = check(results_table(cells, reference=True))
    headings = [line for line in lines if line.startswith("tau ┃ alpha ┃ ")]
    assert len(headings) == 2, "each part begins with what tells the cells apart"
    assert any("in 2 parts" in line for line in lines)
    (line,) = [line for line in check(results_table(cells, reference=True), 200) if line.startswith("tau ")]
    assert line.endswith("images"), "a wide terminal shows one part"


def test_the_tables_of_one_cell():
    for table in (results_table([(Path("x"), made())], reference=True), score_table(made(), [])):
        check(table)
    check(class_table(made(), []))


@pytest.mark.parametrize("name", ["bsds500", "table2"])
def test_reproductions(name):
    for table in reproduced(name):
        check(table)


def test_a_path_is_broken_at_its_joints_only():
    path = "/a/very/long/folder/of/somebody/who/likes/long/names/of/folders/results/sample-diffcut-0123456789ab"
    lines = lines_of(Table("t", "t", (Column("what"), Column("state")), (("folder", f"{path}: there"),)), 60)
    assert max(map(len, lines)) <= 60
    parts = [line.rpartition("│")[2].strip() for line in lines[2:]]
    assert "".join(parts).removesuffix("there").rstrip() == f"{path}:"
    assert all(part.endswith(("/", "-", ":", "there")) for part in parts if part)


def test_a_long_word_without_joints_leaves_no_empty_line():
    table = Table("t", "t", (Column("what"), Column("digest")), (("key", "0123456789abcdef" * 4),))
    assert [line.rpartition("│")[2].strip() for line in lines_of(table, 60)[2:]] == [
        "0123456789abcdef" * 3 + "01234",
        "56789abcdef",
    ]


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What each command that prints tables printed on the pictures of the sample: its tables."""
    out = tmp_path_factory.mktemp("out")
    told: list[Table] = []
    small = [f"output_dir={out}", "backbone=colour", "limit=3", *SMALL]
    tables = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Table, "print", lambda table, console: told.append(table))

        def run(name: str, *words: object) -> None:
            assert main([name, *map(str, words)]) == 0, words
            tables[name], told[:] = told[:], []

        run("run", "-m", *small, "segmenter.tau=0.3,0.5", "protocol=released,strict")
        first, second, *_ = sorted(path.name for path in (out / "results").iterdir())
        run("compare", first, second, f"output_dir={out}")
        run("show", first, f"output_dir={out}")
        run("tune", *small, "--images", 2, "--grid", "0.4,0.6", "--train", "dataset=sample")
        run("coherence", f"output_dir={out}", "backbone=colour", "limit=6", *SMALL)
        run("reproduce", "table2", "--status", f"output_dir={out}")
        run("doctor", "--all", f"output_dir={out}")
        run("features", "list", f"output_dir={out}")
        run("data", "list", f"output_dir={out}")
        run("check", *small)
    return tables


@pytest.mark.slow
@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize(
    "command", ["run", "compare", "show", "tune", "coherence", "reproduce", "doctor", "features", "data", "check"]
)
def test_what_commands_print_fits(printed, command, width):
    assert printed[command]
    for table in printed[command]:
        check(table, width)


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(24, 100))
def test_any_table_fits_and_keeps_its_words(data, width):
    words = st.lists(st.text("abc–", min_size=1, max_size=9), min_size=1, max_size=4).map(" ".join)
    columns = data.draw(st.lists(st.builds(Column, words, st.just(False)), min_size=1, max_size=9))
    rows = data.draw(st.lists(st.tuples(*[words for _ in columns]), min_size=1, max_size=4))
    check(Table("t", "t", tuple(columns), tuple(rows)), width)
