"""What of a command line is a name, and what is an override."""

from pathlib import Path

import pytest

from diffcut_bench.commands.words import output_folder, split_words
from diffcut_bench.errors import UserError


def test_names_and_overrides_keep_their_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a=b").mkdir()
    words = ["voc", "dataset.root=/x/y", "a=b", "+new.key=1", "c=d.png", "hydra.searchpath=[file:///x]"]
    named = ["voc", "a=b"]
    assert split_words(words) == (named, [word for word in words if word not in named])
    assert split_words(words, {".png"}) == ([*named, "c=d.png"], words[1:2] + words[3:4] + words[5:])


def test_a_value_longer_than_the_name_of_a_file_is_an_override():
    word = f"dataset.ids=[{','.join(map(str, range(5000)))}]"
    assert split_words([word]) == ([], [word])


def test_the_output_folder_is_named_or_the_config_s(tmp_path):
    assert output_folder([str(tmp_path), "dataset.root=x"]) == (tmp_path, ["dataset.root=x"])
    assert output_folder([f"output_dir={tmp_path}", "dataset.root=x"]) == (tmp_path, ["dataset.root=x"])
    assert output_folder([])[0].name == "outputs"
    with pytest.raises(UserError, match="of one folder"):
        output_folder(["a", "b"])
