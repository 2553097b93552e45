import pytest

from diffcut_bench.evaluation import Protocol

RELEASED = {
    **{"name": "released", "crop": "center", "image_size": 1024, "eval_size": 128, "similarity": "dot"},
    **{"background_rule": "unmatched", "void": "background", "matching": "per_image", "criterion": "overlap"},
    **{"absent_classes": "nan", "ade20k_labels": "released", "label_codes": "float32", "zero_affinity": "drop"},
}


def test_the_released_choices_are_legal():
    assert Protocol(**RELEASED).background_rule == "unmatched"


def test_all_problems_are_said_at_once():
    wrong = {**RELEASED, "similarity": "l2", "void": "maybe", "image_size": 8, "eval_size": 0}
    with pytest.raises(ValueError) as caught:
        Protocol(**wrong)
    for word in ("similarity", "void", "image_size", "eval_size"):
        assert word in str(caught.value)
