from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import DATA

from diffcut_bench.errors import UserError
from diffcut_bench.evaluation import known_metrics, resample
from diffcut_bench.extensions import using_folders
from diffcut_bench.reporting.granularity import CellsAlong, CellsBySegments, cells_along, compare_at_segments
from diffcut_bench.scoring.summary import image_table
from diffcut_bench.store import ImageRow, Result

RESULT = Result.from_json((DATA / "result_v1_before_identity.json").read_text())
IMAGES = 12
METRICS = [known_metrics()[name] for name in ("miou", "pixel_accuracy")]


def cell(name: str, **settings: float | str) -> tuple[Path, Result]:
    return Path(name), replace(RESULT, config={**RESULT.config, "segmenter": RESULT.config["segmenter"] | settings})


def rows(segments: int, hits: int, images: int = IMAGES) -> list[ImageRow]:
    """Images of 100 pixels of one class, of which about so many are hit."""
    found = [min(hits + number, 100) for number in range(images)]
    return [ImageRow(n, str(n), segments, 100, [hit], [0], [100 - hit]) for n, hit in enumerate(found)]


def along(setting: str, *values: float) -> CellsAlong:
    return CellsAlong(f"segmenter.{setting}", tuple(cell(f"{setting}-{value}", **{setting: value}) for value in values))


def test_a_cell_stands_for_those_that_differ_in_one_number():
    named = cell("named", tau=0.5, alpha=5)
    taus = [cell(f"tau-{tau}", tau=tau, alpha=5) for tau in (0.7, 0.3)]
    others = [cell("alpha", tau=0.5, alpha=2), cell("both", tau=0.3, alpha=2), cell("word", tau=0.5, solver="eigh")]
    elsewhere = cell("elsewhere", tau=0.9)
    dataset = replace(elsewhere[1].dataset, fingerprint="0" * 64)
    others.append((elsewhere[0], replace(elsewhere[1], dataset=dataset)))
    found = cells_along(named, [*others, *taus, named])
    assert found == CellsAlong("segmenter.tau", (taus[1], named, taus[0])), "in the order of tau"
    assert cells_along(named, others[:1]) == CellsAlong("segmenter.alpha", (others[0], named))
    assert cells_along(named, others[1:]) == CellsAlong("segmenter.tau", (named,)), "what could be varied"


def test_scores_between_neighbours_are_interpolated_with_the_same_draws():
    parts = [rows(8, 60), rows(2, 20), rows(4, 50)]
    curve = CellsBySegments.of([cell("x")[1]] * 3, parts)
    assert curve.segments == (2, 4, 8)
    coarse, fine = (resample(image_table(parts[i]), METRICS, {}, seed=7) for i in (2, 0))
    for at, weight in ((4.0, 0.0), (5.0, 0.25), (8.0, 1.0)):
        for told, low, high in zip(curve.at(at, METRICS, 7), coarse, fine, strict=True):
            for mixed, first, second in zip(told, low, high, strict=True):
                assert torch.allclose(mixed, (1 - weight) * first + weight * second, rtol=1e-12)
    twins = CellsBySegments.of([cell("x")[1]] * 3, [rows(2, 20), rows(2, 30), rows(4, 40)])
    assert twins.at(2.0, METRICS, 7)[0].scores.isfinite().all(), "two cells of as many segments"


def test_two_methods_at_equal_numbers_of_segments():
    sides = along("tau", 0.3, 0.5), along("alpha", 2, 5, 10)
    parts = [[rows(2, 20), rows(6, 40)], [rows(1, 30), rows(4, 60), rows(9, 60)]]
    table = compare_at_segments(sides, parts, "pixel_accuracy", 4.0)
    assert [row[1] for row in table.rows] == ["pixel accuracy", "mIoU"], "every score, the chosen one first"
    hits = [20 + 5.5, 40 + 5.5, 60 + 5.5]  # of a hundred pixels, in the mean
    expected = [(hits[0] + hits[1]) / 2, hits[2], hits[2] - (hits[0] + hits[1]) / 2]
    assert [float(text) for text in table.rows[0][2:5]] == pytest.approx(expected, abs=0.051)
    assert table.rows[0][0] == "4.0"
    assert "first: 2 cells along tau, 2.0 – 6.0 segments an image" in table.notes
    assert any(f"paired bootstrap over {IMAGES} images" in note for note in table.notes)
    points = compare_at_segments(sides, parts, "miou")
    assert [row[0] for row in points.rows] == ["2.0", "3.0", "4.0", "5.0", "6.0"], "of the range that both have"
    assert {row[1] for row in points.rows} == {"mIoU"}
    # Both methods hit the same pixels more in the same images: the difference is sure though neither score is.
    low, high = (float(end) for end in table.rows[0][5].split(" – "))
    assert low == high == pytest.approx(expected[2], abs=0.051) and table.rows[0][6] == "≤ 0.0005"


def test_images_of_all_cells_count_and_few_have_no_interval():
    sides = along("tau", 0.3, 0.5), along("alpha", 2, 5)
    few = [[rows(2, 20), rows(6, 40, 5)], [rows(1, 30), rows(9, 60)]]
    table = compare_at_segments(sides, few, "miou", 4.0)
    assert "paired bootstrap over 5 images, 2000 resamples; the second less the first" in table.notes
    assert table.rows[0][5:] == ("–", "–")


def test_what_can_not_be_compared_says_which_range_each_has():
    two, three = along("tau", 0.3, 0.5), along("alpha", 2, 5)
    parts = [[rows(2, 20), rows(3, 40)], [rows(5, 30), rows(9, 60)]]
    with pytest.raises(UserError, match="no number of segments an image in common") as apart:
        compare_at_segments((two, three), parts, "miou")
    assert apart.value.where == "first: 2.0 – 3.0 along tau; second: 5.0 – 9.0 along alpha"
    assert "run -m … segmenter.tau=A,B,C and diffcut-bench run -m … segmenter.alpha=A,B,C" in apart.value.hint
    with pytest.raises(UserError, match="7 segments an image are not in both") as beyond:
        compare_at_segments((two, three), [[rows(2, 20), rows(6, 40)], parts[1]], "miou", 7.0)
    assert beyond.value.hint.startswith("--at-segments from 5 to 6")
    thirds = [rows(2, 20, 8) + rows(7, 20)[8:], rows(7, 20, 8) + rows(2, 20)[8:]]
    with pytest.raises(UserError, match="7 segments an image are not in both") as beyond:
        compare_at_segments((two, three), [thirds, [rows(1, 20), rows(9, 60)]], "miou", 7.0)
    assert beyond.value.hint.startswith("--at-segments from 3.67 to 5.33"), "which are between 3 2/3 and 5 1/3"
    with using_folders([Path("/own")]), pytest.raises(UserError, match="nothing to interpolate between") as alone:
        compare_at_segments((along("tau", 0.3), three), [[rows(2, 20)], parts[1]], "miou")
    assert alone.value.hint.startswith("diffcut-bench run -m … segmenter.tau=A,B,C --config-dir /own, with")
    with pytest.raises(UserError, match="both cells are of one curve"):
        compare_at_segments((two, two), [parts[0], parts[0]], "miou")
    other = [[ImageRow(0, "elsewhere", 1, 9, [1], [0], [8])] for _ in range(2)]
    with pytest.raises(UserError, match="no image in common"):
        compare_at_segments((two, three), [parts[0], other], "miou")
