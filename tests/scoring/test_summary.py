"""From rows to what result.json says: every score with the interval that the seed gives, and no NaN."""

import math
from dataclasses import replace

import pytest
from conftest import DATA

from diffcut_bench.errors import UserError
from diffcut_bench.evaluation import score_images
from diffcut_bench.scoring.summary import image_table, summarise
from diffcut_bench.store import SCHEMA_VERSION, ImageRow, Result

NAMES = ("background", "cat", "dog")
NAMED = {"matching": "named", "absent_classes": "nan"}
# Neither annotated nor predicted: the dog.
ROWS = [ImageRow(i, f"image{i}", 2 + i**3, 100, [40 + i, 10, 0], [5, i, 0], [i, 5, 0]) for i in range(12)]


@pytest.mark.parametrize("seed", [42, 7])
def test_intervals_are_those_of_the_seed(seed):
    found = summarise(ROWS, NAMES, NAMED, seed)
    expected = score_images(image_table(ROWS), NAMED, seed=seed)
    assert set(found) == {"miou", "jaccard", "pixel_accuracy", "segments"}
    for name, score in found.items():
        low, high = expected[name].interval[:, 0].tolist()
        assert (score.value, score.ci95) == (expected[name].scores[0].item(), (low, high))
        other = score_images(image_table(ROWS), NAMED, seed=seed + 1)[name].interval[:, 0].tolist()
        assert score.ci95 != tuple(other)


def test_a_score_says_of_how_many_images_it_is():
    """Those with nothing to score, here and in a mean over images, are none of them."""
    void = ImageRow(12, "void", 3, 0, [0] * 3, [0] * 3, [0] * 3)
    ari = [[0.5, 1.0]] * 4 + [[0.0, 1.0]] * 3 + [[0.0, 0.0]] * 6
    rows = [replace(row, measured={"ari": own}) for row, own in zip([*ROWS, void], ari, strict=True)]
    found = summarise(rows, NAMES, NAMED, 42)
    assert {name: score.n for name, score in found.items()} == {
        **{"miou": 12, "jaccard": 12, "pixel_accuracy": 12, "segments": 13, "ari": 7}
    }
    assert found["ari"].value == pytest.approx(4 * 0.5 / 7)


def test_what_is_not_defined_is_none():
    found = summarise(ROWS, NAMES, NAMED, 42)
    assert list(found["miou"].per_class) == list(NAMES)
    assert found["miou"].per_class["dog"] is found["miou"].per_class_ci95["dog"] is None
    assert found["miou"].per_class_ci95["cat"] is not None
    assert found["segments"].per_class == {}


def test_a_score_without_a_value_is_written_as_null(add_metric):
    add_metric(
        "odd",
        "from diffcut_bench.evaluation import Metric\n"
        "METRIC = Metric(name='odd', heading='odd', statistic=lambda images: images.fn[:, :1],\n"
        "    reduce=lambda sums: 1 / (sums[..., 0] - sums[..., 0]))\n",
    )
    score = summarise(ROWS, NAMES, NAMED, 42)["odd"]
    assert (score.value, score.ci95) == (None, None), "an infinity"
    result = Result.from_json((DATA / "result_v1.json").read_text())
    written = replace(result, scores={**result.scores, "odd": score}, schema_version=SCHEMA_VERSION).to_json()
    assert Result.from_json(written).scores["odd"] == score


def test_what_was_not_measured_on_all_images_is_left_out():
    measured = [ImageRow(0, "a", 1, 4, [2], [1], [1], measured={"edges": [0.5, math.nan], "rest": [1.0]})]
    table = image_table(
        [*measured, ImageRow(1, "b", 1, 4, [2], [1], [1], measured={"edges": [1.5, 2.0], "rest": None})]
    )
    assert list(table.measured) == ["edges"]
    assert table.measured["edges"][:, 0].tolist() == [0.5, 1.5]


def test_a_metric_that_measures_more_of_some_images_is_told():
    rows = [replace(row, measured={"edges": [1.0] * (1 + row.index)}) for row in ROWS[:2]]
    with pytest.raises(UserError, match="edges measured 1 and 2 numbers"):
        summarise(rows, NAMES, NAMED, 42)
