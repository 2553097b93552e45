import json
import re
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import make_older, shapes_overrides, write_shapes
from PIL import Image

from diffcut_bench.commands.words import find_cell
from diffcut_bench.config import load_config
from diffcut_bench.errors import UserError
from diffcut_bench.evaluation import FEWEST_IMAGES, known_metrics
from diffcut_bench.scoring.passes import run_cell
from diffcut_bench.store import read_rows

PICTURES = 12


@pytest.fixture
def shapes(tmp_path):
    """Pictures enough for intervals."""
    return write_shapes(tmp_path / "shapes", PICTURES)


@pytest.fixture
def two(shapes, tmp_path):
    base = shapes_overrides(shapes, tmp_path / "out")
    return [run_cell(load_config([*base, *own])) for own in ([], ["segmenter.alpha=1", "segmenter.tau=0.2"])]


def test_compare_shows_both_and_their_difference(cli, two, tmp_path):
    first, second = two
    done = cli("compare", first.folder, second.result.key[:8], f"output_dir={tmp_path / 'out'}")
    assert done.code == 0, done.err
    line = next(line for line in done.out.splitlines() if line.startswith("mIoU "))
    numbers = [float(n.replace("−", "-")) for n in re.findall(r"[−-]?\d+\.\d", line)]
    a, b = 100 * first.result.metrics.miou, 100 * second.result.metrics.miou
    assert numbers[:3] == pytest.approx([a, b, b - a], abs=0.051)
    low, high = numbers[3:5]
    assert low <= b - a <= high
    for name in (*(f"IoU of {name}" for name in first.result.metrics.iou_per_class), "pixel accuracy"):
        assert re.search(f"^{name} +│", done.out, re.MULTILINE)
    assert "mIoU is of all classes together, “IoU of …” of one class" in done.out
    assert f"first: {first.folder.name}\nsecond: {second.folder.name}\n" in done.out
    assert f"paired bootstrap over {PICTURES} images" in done.out
    assert "picture" in done.out.partition("Images that differ most")[2] or "picture" in done.out


def test_cells_of_two_versions_of_the_program_are_told(cli, two, tmp_path):
    path = two[1].folder / "result.json"
    record = json.loads(path.read_text())
    record["identity"]["numerics_version"] -= 1
    path.write_text(json.dumps(record))
    (path.parent / "SHA256SUMS").unlink()
    assert "this program's numerics" in cli("compare", *(cell.folder for cell in two), f"output_dir={tmp_path}").out


def test_results_of_both_schemas_stand_side_by_side(cli, two, tmp_path):
    commands = [
        ("compare", *(cell.folder for cell in two), f"output_dir={tmp_path / 'out'}"),
        ("show", two[0].folder, f"output_dir={tmp_path / 'out'}"),
    ]
    told = [cli(*command).out for command in commands]
    make_older(two[0].folder)
    assert [cli(*command).out for command in commands] == told
    assert cli("verify", tmp_path / "out").code == 0
    assert cli("report", tmp_path / "out", "--gallery", "0").code == 0
    assert "left out" not in (tmp_path / "out" / "reports" / "index.html").read_text()


def test_images_in_one_cell_only_are_left_out_and_said(cli, two, shapes, tmp_path):
    few = run_cell(load_config([*shapes_overrides(shapes, tmp_path / "out"), "limit=5"]))
    done = cli("compare", two[0].folder, few.folder, f"output_dir={tmp_path / 'out'}")
    assert "paired bootstrap over 5 images" in done.out
    assert f"{PICTURES - 5} images are in one cell only" in done.out


def test_cells_of_other_classes_or_images_are_refused(cli, two, tmp_path):
    other = write_shapes(tmp_path / "other", 2)
    for kind in ("images", "labels"):
        for path in (other / kind).iterdir():
            path.rename(path.with_name(f"other-{path.name}"))
    base = shapes_overrides(other, tmp_path / "out")
    strangers = run_cell(load_config(base))
    four = run_cell(load_config([*base, "dataset.num_classes=4"]))
    for cell, message in ((strangers, "no image in common"), (four, "different classes")):
        done = cli("compare", two[0].folder, cell.folder, f"output_dir={tmp_path / 'out'}")
        assert done.code == 2
        assert message in done.err
        assert len(done.err.strip().splitlines()) == 3
    assert "different classes" in cli("compare", two[0].folder, four.folder, "--at-segments").err


def test_show_lists_classes_and_images(cli, two, tmp_path):
    name = two[0].folder.name
    done = cli("show", name, "--images", "2", f"output_dir={tmp_path / 'out'}")
    assert done.code == 0, done.err
    for class_name, iou in two[0].result.metrics.iou_per_class.items():
        line = next(line for line in done.out.splitlines() if line.startswith(class_name))
        assert f"{100 * iou:.1f}" in line
        low, high = two[0].result.metrics.iou_per_class_ci95[class_name]
        assert f"{100 * low:.1f} – {100 * high:.1f}" in line
        assert line.split()[-1] == str(PICTURES), "every shape is in every picture"
    ranks = re.findall(r"^ *(\d+) │ picture", done.out, re.MULTILINE)
    assert ranks == ["1", "2", str(PICTURES - 1), str(PICTURES)]


def test_cells_are_found_by_folder_name_and_key(two, tmp_path):
    out = tmp_path / "out"
    folder, key = two[0].folder, two[0].result.key
    for name in (str(folder), folder.name, key[:6]):
        assert find_cell(name, out) == (folder, two[0].result)
    with pytest.raises(UserError, match="no finished cell"):
        find_cell("nothing", out)
    with pytest.raises(UserError, match="2 cells begin with"):
        find_cell("", out)
    (folder / "result.json").write_text("{")
    with pytest.raises(UserError, match="not what was written"):
        find_cell(folder.name, out)
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(UserError, match="result can't be read"):
        find_cell(folder.name, out)


def test_class_intervals_are_in_the_result_and_old_results_lack_them(two):
    raw = json.loads((two[0].folder / "result.json").read_text())
    assert set(raw["metrics"]["iou_per_class_ci95"]) == set(raw["metrics"]["iou_per_class"])
    assert raw["dataset"]["n_available"] == PICTURES
    scores = {**two[0].result.scores, "miou": replace(two[0].result.scores["miou"], per_class_ci95={})}
    old = replace(two[0].result, scores=scores, identity={}, schema_version=1)
    assert "iou_per_class_ci95" not in old.to_json()
    assert "identity" not in old.to_json()


def test_a_class_of_few_images_has_no_interval(cli, shapes, tmp_path):
    # Class 1 is taken out of enough labels; class 0 and 2 stay everywhere.
    for path in sorted((shapes / "labels").iterdir())[FEWEST_IMAGES - 1 :]:
        label = np.array(Image.open(path))
        Image.fromarray(np.where(label == 1, 0, label).astype(np.uint8)).save(path)
    base = shapes_overrides(shapes, tmp_path / "out")
    cells = [run_cell(load_config([*base, *own])) for own in ([], ["segmenter.tau=0.2"])]
    assert cells[0].result.metrics.iou_per_class_ci95["class 1"] is None
    done = cli("compare", *(cell.folder for cell in cells), f"output_dir={tmp_path / 'out'}")
    assert re.search(r"^IoU of class 1 .*│ +– │ +– *$", done.out, re.MULTILINE)
    assert re.search(r"^IoU of class 2 .*│ +[−\d.]+ – [−\d.]+ │ +[≤ \d.]+ *$", done.out, re.MULTILINE)
    assert f"a class annotated in fewer than {FEWEST_IMAGES} images" in done.out
    shown = cli("show", cells[0].folder, f"output_dir={tmp_path / 'out'}").out
    assert re.search(rf"^class 1 .*│ +– │ +{FEWEST_IMAGES - 1} *$", shown, re.MULTILINE)
    assert re.search(rf"^class 2 .*\d – .*│ +{PICTURES} *$", shown, re.MULTILINE)
    assert f"no interval is told of fewer than {FEWEST_IMAGES} images" in shown


def test_a_few_images_have_no_interval_at_all(cli, shapes, tmp_path):
    base = [*shapes_overrides(shapes, tmp_path / "out"), "limit=1"]
    cells = [run_cell(load_config([*base, *own])) for own in ([], ["segmenter.tau=0.2"])]
    low, high = cells[0].result.metrics.miou_ci95
    assert low == high, "result.json keeps what the bootstrap says"
    done = cli("compare", *(cell.folder for cell in cells), f"output_dir={tmp_path / 'out'}")
    assert done.code == 0
    told = re.findall(r"^(?:mIoU|pixel accuracy) +│.*│ +(.*?) +│ +(.*?) *$", done.out, re.MULTILINE)
    assert told == [("–", "–")] * 2


def test_rows_that_can_not_be_read_are_a_user_error(cli, two, tmp_path):
    (two[0].folder / "per_image.parquet").write_bytes(b"PAR1 no more")
    for command in (("show", two[0].folder), ("compare", two[0].folder, two[1].folder)):
        done = cli(*command, f"output_dir={tmp_path / 'out'}")
        assert done.code == 2
        assert "not what was written" in done.err
        assert len(done.err.strip().splitlines()) == 3


def test_an_override_is_no_cell(cli, tmp_path):
    done = cli("compare", "abc", f"output_dir={tmp_path}")
    assert done.code == 2
    assert "two cells are compared, and one is named" in done.err


def lines_of(printed: str, part: int) -> list[list[str]]:
    """Cells of the lines of one of the tables that were printed."""
    tables: list[list[list[str]]] = [[]]
    for line in printed.splitlines():
        if "┃" in line:
            tables.append([])
        elif "│" in line:
            tables[-1].append([cell.strip() for cell in line.split("│")])
    return tables[part]


def test_the_score_that_is_named_leads(cli, two, tmp_path):
    plain = cli("compare", *(cell.folder for cell in two))
    assert lines_of(plain.out, 2)[0][0] == "mIoU"
    assert "mIoU of an image: the mean over the classes" in plain.out
    words = [cli("compare", *(cell.folder for cell in two), word) for word in ("metric=ari", "score=ari")]
    assert words[0].out == words[1].out
    cells, differences, moved = (lines_of(words[0].out, part) for part in (1, 2, 3))
    assert re.match(r"tau +┃ alpha +┃ +ARI +┃ +95 % interval +┃ +mIoU", words[0].out.splitlines()[1])
    assert differences[0][0] == "ARI"
    assert sorted(line[0] for line in differences) == sorted(line[0] for line in lines_of(plain.out, 2))
    own = [cell.result.scores["ari"] for cell in two]
    assert differences[0][1:3] == [f"{100 * score.value:.1f}" for score in own]
    assert [line[2] for line in cells] == differences[0][1:3]
    measured = [{row.id: row.measured["ari"][0] for row in read_rows(cell.folder)} for cell in two]
    told = [float(line[3].replace("−", "-")) for line in moved]
    assert told == sorted(told)
    lowest, *_, greatest = sorted(measured[1][name] - measured[0][name] for name in measured[0])
    assert (told[0], told[-1]) == pytest.approx((100 * lowest, 100 * greatest), abs=0.051)
    assert "ARI of each image alone" in words[0].out


def test_a_score_that_one_cell_lacks_does_not_lead(cli, two):
    path = two[0].folder / "per_image.parquet"
    rows = [
        replace(row, measured={n: v for n, v in row.measured.items() if n != "ari"}) for row in read_rows(path.parent)
    ]
    pq.write_table(pa.Table.from_pylist([asdict(row) for row in rows]), path)
    (path.parent / "SHA256SUMS").unlink()
    done = cli("compare", *(cell.folder for cell in two), "score=ari")
    assert done.code == 0, done.err
    assert lines_of(done.out, 2)[0][0] == "mIoU"
    assert "no ARI of both cells: mIoU leads (if_exists=overwrite" in done.out


def test_a_metric_that_is_none_is_refused(cli, two):
    done = cli("compare", *(cell.folder for cell in two), "metric=arri")
    assert done.code == 2
    assert "no metric is named 'arri'" in done.err and "did you mean ari" in done.err


def test_show_lists_every_score(cli, two, tmp_path):
    done = cli("show", two[0].folder, "score=covering")
    assert done.code == 0, done.err
    told = {line[0]: line[1:] for line in lines_of(done.out, 2)}
    assert next(iter(told)) == "covering (%)"
    assert set(told) == {
        f"{metric.heading} (%)" if metric.is_fraction else metric.heading
        for name, metric in known_metrics().items()
        if name in two[0].result.scores
    }
    score = two[0].result.scores["covering"]
    low, high = (f"{100 * end:.1f}" for end in score.ci95)
    assert told["covering (%)"][:3] == [f"{100 * score.value:.1f}", f"{low} – {high}", str(PICTURES)]
    known = two[0].result.reference.of("covering")
    assert told["covering (%)"][3:5] == [f"{100 * known.floor.value:.1f}", f"{100 * known.ceiling.value:.1f}"]
    assert re.search(r"^rank +┃ image +┃ +covering +┃ segments", done.out, re.MULTILINE)


def test_methods_are_compared_at_equal_numbers_of_segments(cli, shapes, tmp_path):
    base = shapes_overrides(shapes, tmp_path / "out")
    swept = [("segmenter=grid", f"segmenter.rows={n}", "segmenter.cols=2") for n in (1, 3, 5)]
    swept += [("segmenter=kmeans", f"segmenter.clusters={n}") for n in (3, 5)]
    cells = [run_cell(load_config([*base, *own])) for own in swept]
    grid, kmeans = cells[1].folder, cells[3].folder
    done = cli("compare", grid, kmeans, "--at-segments", "4")
    assert done.code == 0, done.err
    assert len(lines_of(done.out, 1)) == 5, "the cells of both curves"
    told = {line[1]: line for line in lines_of(done.out, 2)}
    assert {line[0] for line in told.values()} == {"4.0"}
    # 4 segments lie in the middle of grids of 2 and of 6, and near the middle of three and five clusters.
    value = 100 * (cells[0].result.metrics.miou + cells[1].result.metrics.miou) / 2
    assert float(told["mIoU"][2]) == pytest.approx(value, abs=0.051)
    assert {"mIoU", "ARI", "VoI", "pixel accuracy"} <= set(told) and "segments" not in told
    assert "first: 3 cells along rows, 2.0 – 10.0 segments an image" in done.out
    assert "second: 2 cells along clusters" in done.out
    assert "in every resample a cell's number of segments is that of all images" in done.out
    points = lines_of(cli("compare", grid, kmeans, "score=ari", "--at-segments").out, 2)
    assert {line[1] for line in points} == {"ARI"} and len(points) == 5
    # What follows the flag is a number, or else a cell or an override.
    for words in ((grid, kmeans, "--at-segments", "score=ari"), ("--at-segments", grid, kmeans, "score=ari")):
        assert lines_of(cli("compare", *words).out, 2) == points

    beyond = cli("compare", grid, kmeans, "--at-segments", "40")
    assert beyond.code == 2
    assert "40 segments an image are not in both ranges" in beyond.err
    assert "first: 2.0 – 10.0 along rows; second: " in beyond.err and "segmenter.clusters=A,B,C" in beyond.err
    alone = run_cell(load_config([*base, "segmenter.tau=0.5"]))
    lonely = cli("compare", grid, alone.folder, "--at-segments")
    assert (lonely.code, len(lonely.err.strip().splitlines())) == (2, 3)
    assert "there is nothing to interpolate between" in lonely.err and "segmenter.tau=A,B,C" in lonely.err
    assert f"{alone.result.segments_per_image.mean:.1f} segments an image" in lonely.err
    same = cli("compare", grid, cells[0].folder, "--at-segments")
    assert same.code == 2 and "both cells are of one curve" in same.err
