import pytest
from PIL import Image

from diffcut_bench.datasets import folder
from diffcut_bench.errors import UserError


def test_pairs_by_stem_whatever_the_order_and_passes_hidden_files_over(shapes):
    (shapes / "images" / ".DS_Store").write_bytes(b"x")
    (shapes / "labels" / ".DS_Store").write_bytes(b"x")
    (shapes / "images" / "notes.txt").write_text("x")
    data = folder(str(shapes), num_classes=3)
    assert data.records["id"][:] == [f"picture{i}" for i in range(8)]
    assert set(data.read(0)[1].ravel().tolist()) == {-1, 0, 1, 2}


def test_without_ignore_index_255_is_unknown(shapes):
    with pytest.raises(ValueError, match="255"):
        folder(str(shapes), num_classes=3, ignore_index=None).read(0)


@pytest.mark.parametrize(("side", "other"), [("images", "label"), ("labels", "image")])
def test_missing_partner_is_named(shapes, side, other):
    Image.new("L", (4, 4)).save(shapes / side / "lonely.png")
    with pytest.raises(UserError, match=f"no {other} for lonely.png"):
        folder(str(shapes), num_classes=3)


def test_two_images_of_one_stem_are_refused(shapes):
    Image.new("RGB", (4, 4)).save(shapes / "images" / "picture0.jpg")
    with pytest.raises(UserError, match="two files for picture0"):
        folder(str(shapes), num_classes=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"root": None, "num_classes": 3}, "dataset.root is not set"),
        ({"root": "/nowhere", "num_classes": 3}, "folder not found"),
        ({"num_classes": None}, "num_classes"),
        ({"num_classes": "three"}, "num_classes"),
        ({"num_classes": 3, "background": 3}, "no class id"),
        ({"num_classes": 3, "ignore_index": 2}, "ignore_index=2"),
        ({"num_classes": 3, "ignore_index": -1}, "ignore_index=-1"),
        ({"num_classes": 3, "ignore_index": 300}, "ignore_index=300"),
        ({"num_classes": 3, "class_names": ["a", "a", "b"]}, "different class names"),
        ({"num_classes": 3, "class_names": "abc"}, "different class names"),
        ({"num_classes": 3, "class_names": ["a"]}, "not 3 different class names"),
    ],
)
def test_bad_arguments_are_user_errors(shapes, arguments, message):
    with pytest.raises(UserError, match=message):
        folder(**{"root": str(shapes), **arguments})


def test_empty_folder_is_said(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    with pytest.raises(UserError, match="no images here"):
        folder(str(tmp_path), num_classes=2)
