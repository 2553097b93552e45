from dataclasses import replace

import pytest
from conftest import DATA

from diffcut_bench.store import Cell, Failure, ImageRow, Result, Timings, cell_key, read_rows

ROWS = [ImageRow(i, f"image{i}", 3 + i, 100, [i, 2], [0, 1], [5, 0]) for i in range(4)]
RESULT = Result.from_json((DATA / "result_v1.json").read_text())


@pytest.fixture
def cell(tmp_path) -> Cell:
    return Cell(tmp_path, "sample-net-cut", cell_key({"a": 1}))


def test_key_depends_on_values_not_on_their_order():
    assert cell_key({"a": 1, "b": [1, 2]}) == cell_key({"b": [1, 2], "a": 1})
    assert cell_key({"a": 1}) != cell_key({"a": 2})


def test_journal_gives_back_what_was_appended(cell):
    cell.append(ROWS[2:], {7: Failure("bad", "broken")}, Timings(wall_s=1.5))
    cell.append(ROWS[:2], {}, Timings(wall_s=2.0, read_s=1.0))
    progress = cell.progress()
    assert progress.rows == ROWS
    assert progress.failures == {7: Failure("bad", "broken")}
    assert progress.timings == Timings(wall_s=3.5, read_s=1.0)


def test_a_line_cut_off_by_a_kill_loses_only_itself(cell):
    cell.append(ROWS[:1], {}, Timings())
    cell.append(ROWS[1:3], {}, Timings())
    journal = next(cell.work_dir.iterdir())
    journal.write_bytes(journal.read_bytes()[:-20])
    assert cell.progress().rows == ROWS[:1]
    cell.append(ROWS[3:], {}, Timings())
    assert cell.progress().rows == [ROWS[0], ROWS[3]]


def test_images_counted_twice_count_once(cell):
    cell.append(ROWS[:2], {}, Timings())
    cell.append(ROWS[1:], {}, Timings())
    assert cell.progress().rows == ROWS


def test_finishing_makes_one_folder(cell, tmp_path):
    cell.append(ROWS, {}, Timings())
    cell.finish(RESULT, ROWS, "a: 1\n")
    assert cell.result() == RESULT
    assert read_rows(cell.finished_dir) == ROWS
    assert sorted(path.name for path in cell.finished_dir.iterdir()) == [
        "config.yaml",
        "per_image.parquet",
        "result.json",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_a_new_result_takes_the_place_of_the_old(cell):
    for seed in (1, 2):
        cell.append(ROWS, {}, Timings())
        cell.finish(replace(RESULT, environment=replace(RESULT.environment, seed=seed)), ROWS, "")
    result = cell.result()
    assert result is not None
    assert result.environment.seed == 2
    assert len(list(cell.finished_dir.parent.iterdir())) == 1


def test_reopening_forgets_failures_and_keeps_rows_and_pictures(cell):
    cell.append(ROWS, {9: Failure("bad", "broken")}, Timings())
    (cell.work_dir / "pictures").mkdir()
    (cell.work_dir / "pictures" / "image0.png").write_bytes(b"x")
    cell.finish(RESULT, ROWS, "")
    cell.reopen()
    assert cell.progress().rows == ROWS
    assert cell.progress().failures == {}
    assert (cell.work_dir / "pictures" / "image0.png").is_file()
