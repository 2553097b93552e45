import json
from dataclasses import replace

import pytest
from conftest import DATA

from diffcut_bench.errors import UserError
from diffcut_bench.store import Cell, Failure, ImageRow, Result, Score, Timings, cell_key, read_result, read_rows

ROWS = [ImageRow(i, f"image{i}", 3 + i, 100, [i, 2], [0, 1], [5, 0]) for i in range(4)]
OLD = Result.from_json((DATA / "result_v1.json").read_text())
RESULT = replace(
    OLD,
    key=cell_key({"a": 1}),
    dataset=replace(OLD.dataset, n_images=4),
    scores={**OLD.scores, "miou": Score(0.5, (0.4, 0.6), {"cup": 0.5, "floor": None})},
)


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
    cell.finish(RESULT, ROWS, "a: 1\n", range(4))
    assert cell.result() == RESULT
    assert read_rows(cell.finished_dir) == ROWS
    assert sorted(path.name for path in cell.finished_dir.iterdir()) == [
        "SHA256SUMS",
        "config.yaml",
        "per_image.parquet",
        "result.json",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_what_metrics_measured_is_kept_with_the_rows(cell):
    rows = [replace(row, measured={"edges": [row.index / 3, float("inf")]}) for row in ROWS[:3]]
    cell.append([*rows, ROWS[3]], {}, Timings())
    assert cell.progress().rows == [*rows, ROWS[3]]
    cell.finish(RESULT, [*rows, ROWS[3]], "", range(4))
    assert read_rows(cell.finished_dir) == [*rows, replace(ROWS[3], measured={"edges": None})]


def test_a_new_result_takes_the_place_of_the_old(cell):
    for seed in (1, 2):
        cell.append(ROWS, {}, Timings())
        cell.finish(replace(RESULT, environment=replace(RESULT.environment, seed=seed)), ROWS, "", range(4))
    result = cell.result()
    assert result is not None
    assert result.environment.seed == 2
    assert len(list(cell.finished_dir.parent.iterdir())) == 1


def test_reopening_forgets_failures_and_keeps_rows_and_pictures(cell):
    failure = Failure("bad", "broken", 4)
    cell.append(ROWS, {4: failure}, Timings())
    (cell.work_dir / "pictures").mkdir()
    (cell.work_dir / "pictures" / "image0.png").write_bytes(b"x")
    failed = replace(RESULT, dataset=replace(RESULT.dataset, n_images=5), failures=[failure])
    cell.finish(failed, ROWS, "", range(5))
    cell.reopen()
    cell.reopen()  # as after a kill in the middle
    assert cell.progress().rows == ROWS
    assert cell.progress().failures == {}
    assert (cell.work_dir / "pictures" / "image0.png").is_file()


def test_a_journal_tells_what_it_holds_from_what_was_changed(cell):
    """Every bit of a journal, one at a time: the rows are those that were written, or fewer."""
    for row in ROWS:
        cell.append([row], {}, Timings(wall_s=1.0))
    journal = cell.work_dir / "journal.jsonl"
    whole = journal.read_bytes()
    places = range(0, 8 * len(whole), 7)
    assert len(places) >= 300
    for place in places:
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        journal.write_bytes(changed)
        progress = cell.progress()
        assert all(row in ROWS for row in progress.rows)
        assert progress.damaged or progress.rows == ROWS
        assert progress.timings.wall_s == len(progress.rows)


@pytest.mark.parametrize("line", ["null", "{}", "5", "[]", '{"sha256": 1}', "[" * 20_000, '{"rows": []}', '"\\ud800"'])
def test_unexpected_lines_of_a_journal_are_counted_and_passed_over(cell, line):
    cell.append(ROWS, {}, Timings())
    journal = cell.work_dir / "journal.jsonl"
    journal.write_bytes(journal.read_bytes() + line.encode() + b"\n")
    assert cell.progress().rows == ROWS
    assert cell.progress().damaged == 1


def test_lines_of_another_cell_or_an_older_version_are_not_taken(cell, tmp_path):
    cell.append(ROWS, {}, Timings())
    journal = cell.work_dir / "journal.jsonl"
    other = Cell(tmp_path, "sample-net-cut", cell_key({"a": 2}))
    other.append([], {}, Timings())
    (other.work_dir / "journal.jsonl").write_bytes(journal.read_bytes())
    assert (other.progress().rows, other.progress().damaged) == ([], 1)
    entry = json.loads(journal.read_text())
    del entry["sha256"]
    journal.write_text(json.dumps(entry))
    assert (cell.progress().rows, cell.progress().damaged) == ([], 1)


def test_progress_of_images_leaves_out_what_is_not_of_them(cell):
    cell.append(ROWS, {7: Failure("bad", "broken")}, Timings())
    own = cell.progress().of({0: "image0", 1: "another", 7: "bad"})
    assert own.rows == ROWS[:1]
    assert list(own.failures) == [7]


@pytest.mark.parametrize(
    ("rows", "failures"),
    [(ROWS[:3], []), (ROWS, [Failure("bad", "broken", 3)]), ([*ROWS[:3], ROWS[0]], []), ([*ROWS, ROWS[0]], [])],
    ids=["missing", "row and failure", "twice for another", "twice"],
)
def test_nothing_incomplete_is_published(cell, rows, failures):
    cell.append(ROWS, {}, Timings())
    with pytest.raises(UserError, match="not published: of 4 images"):
        cell.finish(replace(RESULT, failures=failures), rows, "", range(4))
    assert not cell.finished_dir.exists()
    assert cell.progress().rows == ROWS, "nothing is lost"


@pytest.mark.parametrize("name", ["result.json", "per_image.parquet", "SHA256SUMS"])
def test_a_changed_bit_of_a_finished_cell_is_found(cell, name):
    cell.append(ROWS, {}, Timings())
    cell.finish(RESULT, ROWS, "a: 1\n", range(4))
    path = cell.finished_dir / name
    whole = path.read_bytes()
    for place in range(0, 8 * len(whole), max(8 * len(whole) // 300, 1)):
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        assert cell.result() is None or (name == "SHA256SUMS" and cell.result() == RESULT)
        if name == "result.json":
            with pytest.raises(UserError):
                read_result(cell.finished_dir)
        if name == "per_image.parquet":
            with pytest.raises(UserError):
                read_rows(cell.finished_dir)
    path.unlink()
    assert (cell.result() is None) == (name != "SHA256SUMS"), "older results have no checksums"


def test_another_cells_result_is_not_taken_for_this_one(cell, tmp_path):
    other = Cell(tmp_path, "sample-net-cut", cell_key({"a": 2}))
    other.append(ROWS, {}, Timings())
    other.finish(replace(RESULT, key=cell_key({"a": 2})), ROWS, "", range(4))
    other.finished_dir.rename(cell.finished_dir)
    assert cell.result() is None
    assert cell.damage is not None
    assert "the result of another cell" in cell.damage.what


@pytest.mark.parametrize("text", ["null", "{}", "5", "[]", '{"schema_version": 1}', "", "[" * 20_000, '{"a": 1e999}'])
def test_unexpected_results_are_one_clear_error(cell, text):
    cell.finished_dir.mkdir(parents=True)
    (cell.finished_dir / "result.json").write_text(text)
    with pytest.raises(UserError, match="result can't be read"):
        read_result(cell.finished_dir)
    assert cell.result() is None


def test_a_newer_result_is_neither_read_nor_replaced(cell):
    cell.append(ROWS, {}, Timings())
    cell.finish(RESULT, ROWS, "", range(4))
    path = cell.finished_dir / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 99}))
    (cell.finished_dir / "SHA256SUMS").unlink()
    with pytest.raises(UserError, match="schema_version 99"):
        cell.result()
