import json

import pytest
from conftest import DATA

from diffcut_bench.store import Result

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


def test_unknown_fields_are_passed_over_and_later_ones_get_defaults():
    raw = json.loads(OLD)
    raw["invented"] = 1
    raw["timings"]["invented"] = 2
    del raw["protocol"]
    del raw["metrics"]["pixel_accuracy_ci95"]
    result = Result.from_json(json.dumps(raw))
    assert result.protocol == {}
    assert result.timings.wall_s > 0


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
