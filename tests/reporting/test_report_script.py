"""Tables of the report in a browser: they sort by columns and are filtered by words."""

from dataclasses import replace

import pytest
from test_page import EVIL, page, table

from diffcut_bench.reporting import Column, render_page

TAB, ENTER = "\ue004", "\ue007"
ROWS = (
    ("kmeans", "65.2", "–"),
    ("diffcut", "−1.5", "40.1 – 50.0"),
    ("DiffCut 10", "7", "9.5 – 60.0 (limited)"),
    ("DiffCut 9", "–", "100.0 – 120.0"),
    ("slic", "100", ""),
)
BLOCKS = (
    ("DiffCut", "published", "65.2"),
    ("", "ours", "1.0"),
    ("AutoSC", "published", "25.3"),
    ("", "ours", "70.0"),
)
SHOWN = """
  const table = document.querySelectorAll(".scroll > table")[arguments[0]];
  const rows = [...table.tBodies[0].rows].filter((row) => row.checkVisibility());
  return rows.map((row) => row.cells[arguments[1]].textContent.trim());
"""
CLICK = "document.querySelectorAll('.scroll > table')[arguments[0]].querySelectorAll('th button')[arguments[1]].click()"


@pytest.fixture
def opened(browser, tmp_path):
    """A report whose third table has `ROWS`, and whose first has `BLOCKS`."""
    columns = (Column("method"), Column("mIoU", numeric=True), Column("interval", numeric=True))
    made = page(EVIL)
    paper = replace(made.reproductions[0], tables=(table("paper", *BLOCKS, columns=columns),))
    results = table("results", *ROWS, columns=columns)
    details = tuple(replace(made.details[0], name=f"{number}e1", anchor=f"cell-{number}") for number in range(5))
    parts = {"reproductions": (paper, *made.reproductions[1:]), "results": results, "details": details}
    text = render_page(replace(made, **parts))
    (tmp_path / "index.html").write_text(text, encoding="utf-8")
    browser.resize(1280, 900)
    browser.open(tmp_path / "index.html")
    yield browser
    assert browser.errors() == []


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (1, ["diffcut", "DiffCut 9", "DiffCut 10", "kmeans", "slic"]),
        (2, ["diffcut", "DiffCut 10", "kmeans", "slic", "DiffCut 9"]),
        (3, ["DiffCut 10", "diffcut", "DiffCut 9", "kmeans", "slic"]),
    ],
)
def test_a_click_sorts_a_second_one_turns_round_a_third_one_undoes(opened, column, expected):
    first = opened.run(SHOWN, 2, 1)
    there = len(expected) + 1 - column  # so many cells of the columns 1, 2, 3 hold something; the others stand last
    turned = [*expected[:there][::-1], *expected[there:]]
    state = "return [...document.querySelectorAll('#results th')].map((each) => each.getAttribute('aria-sort'))"
    for rows, order in ((expected, "ascending"), (turned, "descending"), (first, None)):
        opened.run(CLICK, 2, column)
        assert opened.run(SHOWN, 2, 1) == rows
        assert opened.run(state) == [order if col == column else None for col in range(4)]


def test_a_row_leads_to_the_section_of_its_cell_which_opens(opened):
    is_open = "return [...document.querySelectorAll('.runs details')].map((each) => each.open)"
    opened.run(CLICK, 2, 2)
    assert opened.run(is_open) == [False] * 5
    opened.run("document.querySelector('#results tbody a').click()")
    assert opened.run("return location.hash") == "#cell-1"
    assert opened.run(is_open) == [number == 1 for number in range(5)]


def test_rows_of_one_method_stay_together(opened):
    opened.run(CLICK, 0, 2)
    assert opened.run(SHOWN, 0, 2) == ["25.3", "70.0", "65.2", "1.0"]
    opened.run(CLICK, 0, 2)
    assert opened.run(SHOWN, 0, 2) == ["65.2", "1.0", "25.3", "70.0"]


def test_keys_sort_too(opened):
    opened.run("document.querySelector('#results th button').focus()")
    opened.press(TAB, TAB, ENTER)
    assert opened.run(SHOWN, 2, 2) == ["−1.5", "7", "65.2", "100", "–"]


def test_words_filter_rows_in_any_or_one_column(opened):
    typed = """
      const tools = document.querySelector("#results .tools");
      tools.querySelector("select").value = arguments[1];
      tools.querySelector("input").value = arguments[0];
      tools.querySelector("input").dispatchEvent(new Event("input"));
      return tools.querySelector("output").textContent;
    """
    assert opened.run(typed, "diffcut", "") == "3 of 5"
    assert opened.run(SHOWN, 2, 1) == ["diffcut", "DiffCut 10", "DiffCut 9"]
    assert opened.run(typed, " 10  cut ", "") == "2 of 5"  # in other columns too
    assert opened.run(typed, "10", "1") == "1 of 5"
    assert opened.run(SHOWN, 2, 1) == ["DiffCut 10"]
    assert opened.run(typed, "<b>", "") == "0 of 5"
    assert opened.run(typed, "", "0") == ""
    assert len(opened.run(SHOWN, 2, 1)) == 5


def test_text_of_data_runs_nothing_and_the_page_fits_a_phone(opened):
    assert (
        opened.run("return document.querySelectorAll('b').length") == 1 + 5
    )  # of a card's bar, and the scores of runs
    opened.resize(400, 800, "dark")
    assert opened.run("return document.documentElement.scrollWidth") == 400
