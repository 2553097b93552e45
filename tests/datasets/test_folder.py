import io
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from diffcut_bench.datasets import SegmentationDataset, folder
from diffcut_bench.errors import UserError


def test_pairs_by_stem_whatever_the_order_and_passes_hidden_files_over(shapes):
    (shapes / "images" / ".DS_Store").write_bytes(b"x")
    (shapes / "labels" / ".DS_Store").write_bytes(b"x")
    (shapes / "images" / "notes.txt").write_text("x")
    data = folder(str(shapes), num_classes=3)
    assert data.ids == [f"picture{i}" for i in range(8)]
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
        ({"num_classes": "three"}, "num_classes takes a whole number, not the text 'three'"),
        ({"num_classes": True}, "num_classes takes a whole number, not true"),
        ({"num_classes": 2.0}, "num_classes takes a whole number, not 2.0"),
        ({"num_classes": 0}, "num_classes=0 is out of range"),
        ({"num_classes": 65537, "ignore_index": None}, "num_classes=65537 is out of range"),
        ({"num_classes": 3, "ignore_index": "none"}, "ignore_index takes a whole number, not the text 'none'"),
        ({"num_classes": 3, "ignore_index": 255.0}, "ignore_index takes a whole number, not 255.0"),
        ({"num_classes": 3, "ignore_index": False}, "ignore_index takes a whole number, not false"),
        ({"num_classes": 3, "background": False}, "background takes a whole number, not false"),
        ({"num_classes": 3, "background": "0"}, "background takes a whole number, not the text '0'"),
        ({"num_classes": 3, "background": 3}, "no class id"),
        ({"num_classes": 3, "ignore_index": 2}, "ignore_index=2"),
        ({"num_classes": 3, "ignore_index": -1}, "ignore_index=-1 is out of range"),
        ({"num_classes": 3, "ignore_index": 65536}, "ignore_index=65536 is out of range"),
        ({"num_classes": 300}, "ignore_index=255 is a class id"),
        ({"num_classes": 3, "ignore_index": 0, "background": 0}, "background=0 is no class id"),
        ({"num_classes": 3, "class_names": ["a", "a", "b"]}, "different class names"),
        ({"num_classes": 3, "class_names": "abc"}, "different class names"),
        ({"num_classes": 3, "class_names": ["a"]}, "not 3 different class names"),
        ({"num_classes": 3, "class_names": 5}, "not 3 different class names"),
        ({"num_classes": 3, "class_names": ["a", " ", "b"]}, "name 1 of dataset.class_names is no text"),
    ],
)
def test_bad_arguments_are_user_errors(shapes, arguments, message):
    with pytest.raises(UserError, match=message):
        folder(**({"root": str(shapes)} | arguments))


def test_empty_folder_is_said(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    with pytest.raises(UserError, match="no images here"):
        folder(str(tmp_path), num_classes=2)


@pytest.mark.parametrize("typed", ["none", "255.0"])
def test_the_hint_of_a_wrong_kind_is_what_to_type(shapes, typed):
    value = {"none": "none", "255.0": 255.0}[typed]
    with pytest.raises(UserError) as caught:
        folder(str(shapes), num_classes=3, ignore_index=value)
    assert {"none": "dataset.ignore_index=null", "255.0": "dataset.ignore_index=255"}[typed] in caught.value.hint


@pytest.mark.parametrize("names", ["[yes, no, c]", "[0, 1, 2]", "[a, null, c]", "[on, b, 1.5]"])
def test_class_names_that_yaml_takes_for_something_else_end_the_run_before_it_begins(shapes, names):
    loaded = OmegaConf.to_container(OmegaConf.create(f"names: {names}"))["names"]
    with pytest.raises(UserError, match="is no text but") as caught:
        folder(str(shapes), num_classes=3, class_names=loaded)
    assert "in quotes" in caught.value.hint


def test_quoted_names_are_names(cli, shapes, tmp_path):
    options = ["dataset=folder", f"dataset.root={shapes}", "dataset.num_classes=3", f"output_dir={tmp_path / 'out'}"]
    options += ["backbone=colour", "segmenter=one_segment", "refiner=none", "limit=1"]
    assert cli("run", *options, "dataset.class_names=[true,b,1]").code == 2
    assert not (tmp_path / "out").exists()
    assert cli("run", *options, "dataset.class_names=['true',b,'1']").code == 0
    assert cli("report", f"output_dir={tmp_path / 'out'}").code == 0


def write(root: Path, **pairs: np.ndarray) -> Path:
    """Pairs with these labels; a double underscore in a name is a sub-folder."""
    for name, label in pairs.items():
        stem = name.replace("__", "/")
        for folder_name, picture in (
            ("images", Image.new("RGB", label.shape[::-1])),
            ("labels", Image.fromarray(label)),
        ):
            path = root / folder_name / f"{stem}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
    return root


def row(*values: int, kind: type = np.uint8) -> np.ndarray:
    return np.array([values], dtype=kind)


def classes(data: SegmentationDataset, index: int = 0) -> list[int]:
    return data.read(index)[1].ravel().tolist()


def test_labels_whose_0_means_not_annotated(tmp_path):
    data = folder(str(write(tmp_path, a=row(0, 1, 3, 2))), num_classes=3, ignore_index=0, background=3)
    assert classes(data) == [-1, 0, 2, 1]
    assert data.class_names == ("class 1", "class 2", "class 3")
    assert data.background == 2
    write(tmp_path, a=row(0, 4))
    with pytest.raises(ValueError, match=r"label value \[4\] out of range; folder has 0..3"):
        data.read(0)


def test_more_than_256_classes(tmp_path):
    root = write(tmp_path, a=row(0, 255, 256, 299, 65535, kind=np.uint16))
    data = folder(str(root), num_classes=300, ignore_index=65535)
    assert classes(data) == [0, 255, 256, 299, -1]
    assert folder(str(root), num_classes=65535, ignore_index=65535).num_classes == 65535
    assert classes(folder(str(root), num_classes=65536, ignore_index=None)) == [0, 255, 256, 299, 65535]


def test_more_than_256_classes_are_scored(cli, tmp_path):
    label = np.repeat(np.arange(40, dtype=np.uint16) * 8, 40).reshape(40, 40)
    root = write(tmp_path / "d", a=label)
    options = ["dataset=folder", f"dataset.root={root}", "dataset.num_classes=313", "dataset.ignore_index=65535"]
    ended = cli("run", *options, "backbone=colour", "segmenter=grid", "refiner=none", f"output_dir={tmp_path / 'out'}")
    assert ended.code == 0, ended.err


def test_the_meaning_of_small_labels_has_not_changed_its_fingerprint(shapes):
    assert len(folder(str(shapes), num_classes=3).lookup) == 256


def test_pairs_in_sub_folders(tmp_path):
    root = write(tmp_path, b__x=row(1), a__deep__x=row(0), x=row(2))
    (root / "images" / ".cache").mkdir()
    Image.new("RGB", (1, 1)).save(root / "images" / ".cache" / "x.png")
    data = folder(str(root), num_classes=3)
    assert data.ids == ["a/deep/x", "b/x", "x"]
    assert [classes(data, i) for i in range(3)] == [[0], [1], [2]]


def test_a_linked_sub_folder_is_one_of_them(tmp_path):
    write(tmp_path / "elsewhere", x=row(1))
    root = write(tmp_path / "d", y=row(0))
    for side in ("images", "labels"):
        (root / side / "more").symlink_to(tmp_path / "elsewhere" / side)
    assert folder(str(root), num_classes=2).ids == ["more/x", "y"]


def test_a_run_over_sub_folders_draws_a_picture_of_each(cli, tmp_path):
    root = write(tmp_path / "d", a__x=np.zeros((20, 30), dtype=np.uint8), b__x=np.ones((30, 20), dtype=np.uint8))
    options = ["dataset=folder", f"dataset.root={root}", "dataset.num_classes=2", f"output_dir={tmp_path / 'out'}"]
    assert cli("run", *options, "backbone=colour", "segmenter=one_segment", "refiner=none", "visualise=2").code == 0
    assert len(list(tmp_path.glob("out/results/*/pictures/*.png"))) == 2


@pytest.mark.parametrize("side", ["images", "labels"])
def test_a_partner_in_another_sub_folder_is_missing(tmp_path, side):
    root = write(tmp_path, a__x=row(0))
    (root / side / "a" / "x.png").rename(root / side / "x.png")
    with pytest.raises(UserError, match=r"for x\.png"):
        folder(str(root), num_classes=1)


def test_a_label_that_is_no_png_is_named_as_what_it_is(shapes):
    label = Image.open(shapes / "labels" / "picture0.png")
    (shapes / "labels" / "picture0.png").unlink()
    label.save(shapes / "labels" / "picture0.jpg")
    with pytest.raises(UserError, match=r"no label for picture0\.png: picture0\.jpg is of another kind") as caught:
        folder(str(shapes), num_classes=3)
    assert "labels must be PNG" in caught.value.hint
    assert caught.value.where == str(shapes / "labels" / "picture0.jpg")


def test_missing_partners_are_counted(shapes):
    for path in (shapes / "labels").iterdir():
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    with pytest.raises(UserError, match=r"no label for picture0\.png \(and for 15 more\)") as caught:
        folder(str(shapes), num_classes=3)
    assert "labels/picture0.png" in caught.value.hint


def test_an_image_of_no_known_kind_is_named_as_what_it_is(shapes):
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    (shapes / "images" / "picture0.png").unlink()
    (shapes / "images" / "picture0.npy").write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match=r"no image for picture0\.png: picture0\.npy is of another kind"):
        folder(str(shapes), num_classes=3)


@pytest.mark.parametrize("size", [(1, 1), (40, 1), (1, 40), (2, 2)])
@pytest.mark.parametrize("protocol", ["released", "strict"])
def test_pictures_of_one_pixel_or_one_line(tmp_path, cli, size, protocol):
    root = write(tmp_path / "d", a=np.zeros(size[::-1], dtype=np.uint8))
    options = ["dataset=folder", f"dataset.root={root}", "dataset.num_classes=2", f"protocol={protocol}"]
    options += ["backbone=colour", "segmenter=one_segment", f"output_dir={tmp_path / 'out'}"]
    ended = cli("run", *options, "protocol.image_size=32", "refiner=none")
    assert ended.code == 0, ended.err
    one = ["dataset=folder", f"dataset.root={root}", "dataset.num_classes=1"]
    assert cli("data", "verify", *one).code == 0
