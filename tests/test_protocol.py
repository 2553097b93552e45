import inspect

import pytest

from diffcut_bench.config import load_config
from diffcut_bench.evaluation import Protocol, assign_clusters, choices_in_force

RELEASED = {
    "name": "released",
    "crop": "center",
    "image_size": 1024,
    "eval_size": 128,
    "similarity": "dot",
    "background_rule": "unmatched",
    "void": "background",
    "matching": "per_image",
    "criterion": "overlap",
    "surplus": "absent_class",
    "absent_classes": "nan",
    "ade20k_labels": "released",
    "label_codes": "float32",
    "zero_affinity": "drop",
}


def test_the_released_choices_are_legal():
    assert Protocol(**RELEASED).background_rule == "unmatched"


def test_every_choice_of_the_assignment_is_the_protocols():
    assert list(Protocol(**RELEASED).assignment) == list(inspect.signature(assign_clusters).parameters)[1:]


def test_all_problems_are_said_at_once():
    wrong = {**RELEASED, "similarity": "l2", "void": "maybe", "image_size": 8, "eval_size": 0}
    with pytest.raises(ValueError) as caught:
        Protocol(**wrong)
    for word in ("similarity", "void", "image_size", "eval_size"):
        assert word in str(caught.value)


def test_a_result_from_before_a_choice_is_told_as_what_was_computed():
    older = {name: value for name, value in RELEASED.items() if name != "surplus"}
    assert choices_in_force(older) == RELEASED
    assert Protocol(**older) == Protocol(**RELEASED)
    assert choices_in_force({**RELEASED, "surplus": "unmatched"})["surplus"] == "unmatched"
    assert choices_in_force({}) == {}, "of the oldest nothing is known"


def test_choices_of_names_are_in_force_where_segments_are_named():
    unnamed = {**RELEASED, "name_pooling": "nearest_exact", "name_input": "unit"}
    assert choices_in_force(unnamed) == RELEASED
    named = {**RELEASED, "matching": "named"}
    assert choices_in_force(named) == {**named, "name_pooling": "pixels", "name_input": "normalised"}, "as it was done"
    assert choices_in_force({**named, "name_pooling": "nearest_exact"})["name_pooling"] == "nearest_exact"
    with pytest.raises(ValueError, match=r"name_pooling must be pixels \| nearest_exact, not 'nearest'"):
        Protocol(**{**RELEASED, "name_pooling": "nearest"})


def test_the_sets_say_whose_a_surplus_cluster_is():
    sets = {name: load_config([f"protocol={name}"]).protocol["surplus"] for name in ("released", "paper", "strict")}
    assert sets == {"released": "absent_class", "paper": "unmatched", "strict": "unmatched"}
