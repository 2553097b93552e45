import json
import re
from dataclasses import replace

import pytest
from conftest import DATA

from diffcut_bench.store import SCHEMA_VERSION, Result, Score

OLD = (DATA / "result_v1.json").read_text()
OLD_RESULTS = {
    "result_v1.json": 0.4921,
    "result_v1_before_identity.json": 0.3290,
    "result_v1_latest.json": 0.6519,
}


@pytest.mark.parametrize(("name", "miou"), OLD_RESULTS.items())
def test_an_old_result_loads_and_is_written_back_unchanged(name, miou):
    text = (DATA / name).read_text()
    result = Result.from_json(text)
    assert result.metrics.miou == pytest.approx(miou, abs=1e-4)
    assert result.to_json() == text


def test_every_old_result_is_tried():
    assert {path.name for path in DATA.glob("result_*.json")} == {*OLD_RESULTS}


@pytest.mark.parametrize("name", OLD_RESULTS)
def test_scores_of_an_old_result_are_those_of_its_metrics(name):
    raw = json.loads((DATA / name).read_text())
    scores = Result.from_json(json.dumps(raw)).scores
    assert list(scores) == ["miou", "pixel_accuracy", "segments"]
    assert scores["miou"].value == raw["metrics"]["miou"]
    assert scores["miou"].per_class == raw["metrics"]["iou_per_class"]
    assert scores["pixel_accuracy"].ci95 == tuple(raw["metrics"]["pixel_accuracy_ci95"])
    assert scores["segments"] == Score(raw["segments_per_image"]["mean"])
    named = {"mean_image_jaccard": 0.5, "mean_image_jaccard_ci95": [0.4, 0.6]}
    result = Result.from_json(json.dumps({**raw, "metrics": {**raw["metrics"], **named}}))
    assert result.scores["jaccard"] == Score(0.5, (0.4, 0.6))


def test_a_result_of_today_has_scores_beside_metrics_and_loads_again():
    edges = Score(0.25, (0.125, 0.5), {"background": None, "cat": 0.5}, {"background": None, "cat": (0.25, 0.75)})
    old = Result.from_json(OLD)
    result = replace(old, scores={"edges": edges, **old.scores, "odd": Score(None)}, schema_version=SCHEMA_VERSION)
    text = result.to_json()
    assert json.loads(text)["metrics"] == json.loads(OLD)["metrics"]
    assert json.loads(text)["scores"]["odd"] == {"value": None, "ci95": None, "per_class": {}, "per_class_ci95": {}}
    again = Result.from_json(text)
    assert again == result
    assert again.to_json() == text
    assert set(json.loads(text)) == {*json.loads(OLD), "scores"}


def test_images_of_a_score_are_kept_and_older_files_have_none():
    old = Result.from_json(OLD)
    assert {score.n for score in old.scores.values()} == {None}
    scores = {name: replace(score, n=3 + place) for place, (name, score) in enumerate(old.scores.items())}
    again = Result.from_json(replace(old, scores=scores, schema_version=SCHEMA_VERSION).to_json())
    assert again.scores == scores and again.scores["miou"].n == 3


def test_unknown_fields_are_passed_over_and_later_ones_get_defaults():
    raw = json.loads(OLD)
    raw["invented"] = 1
    raw["timings"]["invented"] = 2
    del raw["protocol"]
    del raw["metrics"]["pixel_accuracy_ci95"]
    result = Result.from_json(json.dumps(raw))
    assert result.protocol == {}
    assert result.timings.wall_s > 0
    assert result.scores["pixel_accuracy"].ci95 is None
    assert "pixel_accuracy_ci95" not in json.loads(result.to_json())["metrics"]


def test_a_newer_schema_is_refused():
    raw = json.loads(OLD) | {"schema_version": 99}
    with pytest.raises(ValueError, match="schema_version 99"):
        Result.from_json(json.dumps(raw))


def test_contract_fields():
    raw = json.loads(OLD)
    assert next(iter(raw)) == "schema_version"
    assert {"key", "config", "limited", "dataset", "metrics", "segments_per_image", "failures", "timings"} < set(raw)
    assert set(raw["dataset"]) == {"name", "fingerprint", "n_images", "n_expected"}
    assert {"miou", "pixel_accuracy", "miou_ci95", "iou_per_class"} <= set(raw["metrics"])
    assert set(raw["segments_per_image"]) == {"mean", "min", "max"}
    assert {"features_s", "segment_s", "refine_s", "evaluate_s", "wall_s", "images_per_s"} <= set(raw["timings"])
    assert set(raw["environment"]) == {"packages", "device", "git", "seed", "noise_generator"}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1" * 400])
def test_a_number_that_is_not_finite_is_refused(number):
    text = re.sub(r'"miou": [\d.]+', f'"miou": {number}', (DATA / "result_v1.json").read_text(), count=1)
    with pytest.raises(ValueError, match="a finite number is due"):
        Result.from_json(text)


def test_classes_are_those_of_whatever_score_has_some():
    result = Result.from_json(OLD)
    names = result.class_names
    assert names == tuple(result.scores["miou"].per_class) != ()
    others = {name: score for name, score in result.scores.items() if name != "miou"}
    assert replace(result, scores=others).class_names == ()
    assert replace(result, scores={**others, "own": Score(0.1, per_class={"cat": 0.1})}).class_names == ("cat",)
