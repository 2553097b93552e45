import pytest

from diffcut_bench.naming.prompts import BACKGROUND, SYNONYMS, TEMPLATES, class_words


def test_there_are_fourteen_templates_with_one_gap_each():
    assert len(set(TEMPLATES)) == 14
    assert all(template.count("{}") == 1 for template in TEMPLATES)


def test_synonyms_are_the_names_own_then_the_users_then_ours():
    assert class_words(["cat|kitten", "sofa", "cup"]) == (("cat", "kitten"), ("sofa", "couch"), ("cup",))
    assert class_words(["sofa"], words={"sofa": "settee | bench"}) == (("settee", "bench"),)
    assert SYNONYMS["diningtable"].split("|")[0] == "dining table"


def test_background_words_stand_for_the_background_class_and_leave_out_other_classes():
    names = ["Sky", "cat", "background"]
    *things, background = class_words(names, background=2)
    assert things == [("Sky",), ("cat",)]
    assert set(background) == set(BACKGROUND) - {"sky"}
    assert class_words(names, background=2, background_words=["wall", "cat"])[2] == ("wall",)
    assert class_words(names)[2] == ("background",), "without a class for it, a word like any other"


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: class_words(["cat"], words={"dog": "hound"}), "there are not: dog"),
        (lambda: class_words(["cat", "|"]), "has no word"),
        (lambda: class_words(["sky", "background"], 1, background_words=["sky"]), "'background' has no word"),
    ],
)
def test_a_class_without_a_word_is_refused(call, what):
    with pytest.raises(ValueError, match=what):
        call()


def test_a_synonym_of_ours_is_no_other_class():
    person, child = class_words(["person", "child"])
    assert "child" not in person
    assert child == ("child",)
    assert "child" in class_words(["person", "cat"])[0], "otherwise it helps"
