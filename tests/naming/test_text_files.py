import hashlib
import os
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from diffcut_bench.errors import UserError
from diffcut_bench.naming.text_files import read_class_list, read_templates

# Printable, without what the form itself is made of; spaces inside a word, not around it.
WORDS = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters=",:|"), min_size=1, max_size=8)
NAMES = st.lists(WORDS, min_size=1, max_size=2).map(" ".join)
LISTS = st.lists(st.none() | st.lists(NAMES, min_size=1, max_size=4).map(tuple), min_size=1, max_size=8)
ONE_FILE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def listed(tmp_path, text: str | bytes):
    path = tmp_path / "classes.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_class_list(str(path))


@ONE_FILE
@given(LISTS, st.sampled_from(["\n", "\r\n"]), st.booleans(), st.integers(0, 99), st.sampled_from([",", ", ", " ,"]))
def test_a_list_is_read_as_it_was_written(tmp_path, names, newline, has_mark, seed, comma):
    lines = [f"{index}:{'invalid_class_id' if own is None else comma.join(own)}" for index, own in enumerate(names)]
    lines += [""] * (seed % 3)
    random.Random(seed).shuffle(lines)
    data = (("\ufeff" if has_mark else "") + newline.join(lines)).encode()
    found = listed(tmp_path, data)
    assert found.names == {index: own for index, own in enumerate(names) if own is not None}
    assert found.sha256 == hashlib.sha256(data).hexdigest()


@ONE_FILE
@example(data=b"!\t{}")
@given(st.binary(max_size=40) | st.text("0123:,ab \n{}\x00\u2028\t", max_size=20).map(str.encode))
def test_whatever_a_file_holds_is_read_or_a_users_error(tmp_path, data):
    path = tmp_path / "file.txt"
    path.write_bytes(data)
    for read in (read_class_list, read_templates):
        try:
            found = read(str(path))
        except UserError as error:
            assert len(str(error).splitlines()) == 3
            assert str(path) in error.where
        else:
            words = found[0] if read is read_templates else [word for own in found.names.values() for word in own]
            assert all(word and word == word.strip() and word.isprintable() for word in words)


@pytest.mark.parametrize(
    ("text", "what", "where"),
    [
        ("0:cat\n1:sofa\n1:disc", "id 1 is there twice", "line 3"),
        ("0:cat\n2:sofa", "id 1 is missing", "classes.txt"),
        ("1:cat\n2:sofa", "id 0 is missing", "classes.txt"),
        ("0:cat\n\n999999:sofa", "id 1 is missing", "classes.txt"),
        ("0:cat\n-1:sofa", "not of the form", "line 2"),
        ("0:cat\n1", "not of the form", "line 2"),
        ("0:cat\n1:a:b", "not of the form", "line 2"),
        ("0:cat\n01:sofa", "not of the form", "line 2"),
        ("0:cat\n٣:sofa", "not of the form", "line 2"),
        ("0:cat\n" + "9" * 5000 + ":sofa", "not of the form", "line 2"),
        ("cat,kitten\nsofa", "not of the form", "line 1"),
        ("0:cat,,kitten", "id 0 has an empty name", "line 1"),
        ("0:cat\n1: ", "id 1 has an empty name", "line 2"),
        ("0:cat\n1:invalid_class_id,sofa", "id 1 is no class, and has names", "line 2"),
        ("0:cat\u200b", r"holds the character '\\u200b'", "line 1"),
        ("0:cat\r1:sofa", r"holds the character '\\r'", "line 1"),
        ("\n \n", "the class list is empty", "classes.txt"),
        (b"0:caf\xe9", "no UTF-8 text", "byte 5"),
        ("0:cat".encode("utf-16"), "no UTF-8 text", "byte 0"),
    ],
)
def test_what_is_wrong_with_a_list_is_said_with_its_line(tmp_path, text, what, where):
    with pytest.raises(UserError, match=what) as caught:
        listed(tmp_path, text)
    assert where in caught.value.where


def test_a_list_that_is_not_there_says_where_it_was_looked_for(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere.txt"):
        with pytest.raises(UserError, match="can't be read") as caught:
            read_class_list(str(path))
        assert (caught.value.where, caught.value.hint) == (str(path), "namer.classes_file=FILE")


def test_what_never_ends_or_is_too_large_for_a_list_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 30)
    for path in (tmp_path / "fifo", Path("/dev/zero"), tmp_path / "huge", tmp_path):
        with pytest.raises(UserError, match="can't be read"):
            read_class_list(str(path))


@ONE_FILE
@given(st.permutations(range(5)), st.integers(0, 2))
def test_a_class_is_found_by_its_name_wherever_it_stands(tmp_path, order, more):
    names = ["cat", "sofa", "Potted Plant", "cell phone|mobile", "background"]
    own = [("cat", "cats"), ("couch", "sofa"), ("potted plant",), ("phone", "mobile"), ("background", "sky", "sky")]
    lines = [own[index] for index in order]
    lines[2:2] = [(f"stuff {number}",) for number in range(more)]
    text = "".join(f"{index}:{','.join(words)}\n" for index, words in enumerate(lines))
    assert listed(tmp_path, text).words(names, 4) == tuple(own)


def test_a_list_without_a_background_gives_it_its_one_word(tmp_path):
    found = listed(tmp_path, "0:invalid_class_id\n1:cat,kitten\n2:invalid_class_id\n3:sofa")
    assert found.words(["cat", "sofa", "background"], 2) == (("cat", "kitten"), ("sofa",), ("background",))
    assert found.words(["rest", "cat"], 0) == (("background",), ("cat", "kitten"))
    with pytest.raises(UserError, match="1 of 2 classes are in no line: background"):
        found.words(["cat", "background"])
    other = listed(tmp_path, "0:background,sky\n1:rest\n2:cat")
    assert other.words(["cat", "rest"], 1) == (("cat",), ("rest",)), "its own name comes first"


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["cat", "dog", "horse"], "2 of 3 classes are in no line: dog, horse"),
        (["person", "child"], "classes 'person' and 'child' are in one line"),
        (["screen"], "class 'screen' is in several lines"),
    ],
)
def test_a_list_of_another_data_set_is_refused(tmp_path, names, what):
    found = listed(tmp_path, "0:cat\n1:person,child\n2:monitor,screen\n3:blind,screen")
    with pytest.raises(UserError, match=what) as caught:
        found.words(names)
    assert "classes.txt" in caught.value.where


def test_of_several_lines_the_one_that_begins_with_the_name_is_the_classs(tmp_path):
    found = listed(tmp_path, "0:monitor,screen\n1:Screen,blind")
    assert found.words(["screen"]) == (("Screen", "blind"),)


def test_templates_are_the_lines_of_a_file(tmp_path):
    path = tmp_path / "templates.txt"
    path.write_bytes(b"\xef\xbb\xbfa photo of a {}.\r\n\r\n  the {} in the scene\r\n")
    found, digest = read_templates(str(path))
    assert found == ("a photo of a {}.", "the {} in the scene")
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("text", "what", "where"),
    [
        ("a {}.\nno gap", "not a phrase with one {}: 'no gap'", "line 2"),
        ("a {} and a {}", "not a phrase with one {}", "line 1"),
        ("a {0}", "not a phrase with one {}", "line 1"),
        ("a {} {name}", "not a phrase with one {}", "line 1"),
        ("a {}\nthe {}\na {} ", "the phrase is there twice", "line 3"),
        ("\n", "the file of phrases is empty", "templates.txt"),
    ],
)
def test_what_is_wrong_with_templates_is_said_with_its_line(tmp_path, text, what, where):
    path = tmp_path / "templates.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=what) as caught:
        read_templates(str(path))
    assert where in caught.value.where
