"""What a command line means by pictures."""

from pathlib import Path

import pytest
from PIL import Image

from diffcut_bench.errors import UserError
from diffcut_bench.segmentation import WrittenFiles, named_pictures, split_list


@pytest.fixture
def photos(tmp_path, monkeypatch):
    for name in ("a.jpg", "b.png", "2019/a.jpg", "2019/may/c.tif", ".hidden/d.png", "2019/.e.png", "out/a_labels.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2)).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    (tmp_path / "photos" / "out" / "segments.json").write_text("{}")
    (tmp_path / "photos" / "2019" / "loop").symlink_to(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def named(words, **options):
    return named_pictures(words, is_written=WrittenFiles(), **options)


def relative(pictures):
    return [each.relative.as_posix() for each in pictures]


def test_a_folder_is_its_own_pictures_and_with_recursive_those_below(photos):
    assert relative(named(["photos"])) == ["a.jpg", "b.png"]
    found = named(["photos"], recursive=True)
    assert relative(found) == ["2019/a.jpg", "2019/may/c.tif", "a.jpg", "b.png"]
    assert [each.path for each in found] == [Path("photos", name) for name in relative(found)]


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("photos/*", ["a.jpg", "b.png"]),
        ("photos/*/a.*", ["2019/a.jpg"]),
        ("photos/**/*.jpg", ["2019/a.jpg", "a.jpg"]),
        ("photos/[b-z].png", ["b.png"]),
        ("pho*s/20?9/*", ["photos/2019/a.jpg"]),
        ("photos/2019/**", ["a.jpg", "may/c.tif"]),
        ("**/a*", ["photos/2019/a.jpg", "photos/a.jpg"]),  # none of the folder that has a segments.json
        ("photos/out/*", ["a_labels.png"]),  # named by the user's own word
    ],
)
def test_a_pattern_names_places_from_its_fixed_part(photos, pattern, wanted):
    assert relative(named([pattern])) == wanted


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(photos):
    Image.new("RGB", (3, 2)).save(photos / "[b].png")
    assert [each.path.name for each in named_pictures(["photos/[b].png"])] == ["[b].png"]


def test_a_file_that_is_named_is_its_name_and_none_comes_twice(photos):
    found = named_pictures(["photos/2019/a.jpg", "photos/2019", "photos/no.png"])
    assert relative(found) == ["a.jpg", "no.png"]
    assert relative(named_pictures(["photos/2019", str(photos / "a.jpg")])) == ["a.jpg", "a.jpg"]


def test_a_list_keeps_the_folders_of_relative_paths(photos):
    listed = ["photos/2019/a.jpg", str(photos / "b.png"), "../x/c.png", "./photos/a.jpg", "$HOME/*.png"]
    assert relative(named_pictures([], listed=listed)) == [
        *("photos/2019/a.jpg", "b.png", "c.png", "photos/a.jpg", "$HOME/*.png"),
    ]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (b"a.png\nb c.png\n", ["a.png", "b c.png"]),
        (b"a\r\nb", ["a", "b"]),
        (b"a\nb.png\0c.png\0", ["a\nb.png", "c.png"]),
        (b"\n\n", []),
        (b"a\r\n  \r\nb\r\n", ["a", "b"]),
        (b"\xef\xbb\xbfa\n", ["a"]),
        ("\ufeffé\r\nb\r\n".encode("utf-16-le"), ["é", "b"]),
        (b"a\xff.png\n", ["a\udcff.png"]),
    ],
)
def test_lists_are_of_lines_or_of_texts_that_end_with_zero(text, wanted):
    assert split_list(text) == wanted


def test_what_the_command_wrote_itself_is_no_picture_to_segment(photos):
    found = named_pictures(["photos"], is_written=lambda path, root: path.name == "b.png")
    assert relative(found) == ["a.jpg"]


def test_a_name_that_is_too_long_is_that_of_a_file(photos):
    assert relative(named(["x" * 5000])) == ["x" * 5000]


@pytest.mark.parametrize(
    ("word", "what"),
    [
        ("photos/*.bmp", "no picture fits this pattern"),
        ("photos/2019/may/../../.hidden/empty", "no picture in this folder"),
        ("photos/**x/*", "Invalid pattern"),
        ("https://example.org/a.png", "an address"),
    ],
)
def test_nothing_found_is_a_user_error(photos, word, what):
    (photos / ".hidden" / "empty").mkdir()
    with pytest.raises(UserError, match=what):
        named_pictures([word])
