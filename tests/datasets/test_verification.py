import miniatures
import numpy as np
import pytest
import scipy.io
from miniatures import values
from PIL import Image, ImageDraw

from diffcut_bench.datasets import ade20k, context, folder, open_benchmark, prepare, verify, voc
from diffcut_bench.datasets.context import read_label_map


def write_scenes(root, shift: int = 0, count: int = 14) -> None:
    """ADE20K in miniature: a disc at another position in each picture; labels are those of the picture ``shift`` on."""
    top = root / "ADEChallengeData2016"
    for side in ("images", "annotations"):
        (top / side / "validation").mkdir(parents=True)
    centres = np.random.default_rng(0).integers(5, 60, (count, 2)).tolist()
    for number in range(count):
        for side, index, suffix in (("images", number, "jpg"), ("annotations", (number + shift) % count, "png")):
            x, y = centres[index]
            canvas = Image.new("RGB" if side == "images" else "L", (100, 100), (20, 90, 40) if side == "images" else 1)
            ink = (220, 200, 90) if side == "images" else 13
            ImageDraw.Draw(canvas).ellipse((x, y, x + 35, y + 35), fill=ink)
            canvas.save(top / side / "validation" / f"ADE_val_{number:08d}.{suffix}")


def test_counts_pixels_of_each_class(tmp_path):
    miniatures.write_voc(tmp_path, values(0, 1, 1, 255))
    found = verify(voc(str(tmp_path)).from_originals())
    assert found.pixels["aeroplane"] == 4
    assert found.pixels["void"] == 2
    assert found.pixels["background"] == 2 * 24 - 6
    assert found.problems == []


def test_number_of_pairs_is_compared_with_the_published_split(tmp_path):
    miniatures.write_voc(tmp_path, values(0, 1))
    found = verify(voc(str(tmp_path)).from_originals())
    assert not found.fine
    assert "2 pairs, but the published split has 1449" in found.verdict
    other = voc(str(tmp_path), split="val")
    assert verify(other.from_originals()).fingerprint == found.fingerprint


def test_a_split_without_a_published_number_can_be_fine(tmp_path):
    miniatures.write_voc(tmp_path, values(0, 1))
    lists = tmp_path / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation"
    (lists / "val.txt").rename(lists / "mine.txt")
    found = verify(voc(str(tmp_path), split="mine").from_originals())
    assert found.fine
    assert found.verdict == "fine: every pair can be read"


def test_pictures_without_edges_say_nothing_of_the_labels(tmp_path):
    write_scenes(tmp_path)
    for path in (tmp_path / "ADEChallengeData2016" / "images" / "validation").iterdir():
        Image.new("RGB", (100, 100), (128, 128, 128)).save(path)
    found = verify(ade20k(str(tmp_path)).from_originals())
    assert found.aligned is None and "shifted" not in found.verdict


@pytest.mark.parametrize("damage", ["size", "colour", "value", "truncated"])
def test_every_damaged_label_is_named(tmp_path, damage):
    miniatures.write_ade20k(tmp_path, values(1, 2))
    path = tmp_path / "ADEChallengeData2016" / "annotations" / "validation" / "ADE_val_00000002.png"
    if damage == "size":
        Image.new("L", (5, 4), 1).save(path)
    elif damage == "colour":
        Image.new("RGB", (6, 4)).save(path)
    elif damage == "value":
        miniatures.grey(path, values(1, 151))
    else:
        path.write_bytes(path.read_bytes()[:40])
    found = verify(ade20k(str(tmp_path)).from_originals())
    assert len(found.problems) == 1
    assert "ADE_val_00000002.png" in found.problems[0]
    assert found.verdict.startswith("off: 1 problem")


def test_labels_shifted_by_one_file_are_noticed(tmp_path):
    write_scenes(tmp_path / "right")
    write_scenes(tmp_path / "shifted", shift=1)
    right = verify(ade20k(str(tmp_path / "right")).from_originals())
    shifted = verify(ade20k(str(tmp_path / "shifted")).from_originals())
    assert right.aligned is not None
    assert right.aligned > 0.9
    assert "shifted" not in right.verdict
    assert not shifted.fine
    assert "have shifted" in shifted.verdict


def test_a_flipped_byte_in_a_prepared_picture_is_found(tmp_path):
    miniatures.write_voc(tmp_path, values(0, 1))
    prepare(voc(str(tmp_path)), tmp_path / "data")
    content = (tmp_path / "VOCdevkit" / "VOC2012" / "JPEGImages" / "2007_000033.jpg").read_bytes()
    arrow = next((tmp_path / "data" / "voc-val").glob("*.arrow"))
    rows = bytearray(arrow.read_bytes())
    rows[rows.find(content) + len(content) // 2] ^= 1
    arrow.write_bytes(bytes(rows))
    found = verify(open_benchmark(voc(None), tmp_path / "data"))
    assert found.problems == ["2007_000033: its bytes are not those that were prepared"]


def test_every_problem_names_its_image_and_an_unreadable_file_ends_nothing(shapes):
    for name, data in (
        ("picture0", b"no picture"),
        ("picture3", (shapes / "images" / "picture3.png").read_bytes()[:99]),
    ):
        (shapes / "images" / f"{name}.png").write_bytes(data)
    Image.new("F", (150, 140)).save(shapes / "images" / "picture6.tif")
    (shapes / "images" / "picture6.png").unlink()
    Image.new("RGB", (10, 10)).save(shapes / "labels" / "picture2.png")
    dataset = folder(str(shapes), num_classes=3)
    (shapes / "images" / "picture5.png").unlink()  # while it runs
    found = verify(dataset)
    names = ("picture0", "picture2", "picture3", "picture5", "picture6")
    assert [next(name for name in names if name in problem) for problem in found.problems] == list(names)
    assert found.fingerprint is None
    assert found.verdict.startswith("off: 5 problems")


def test_problems_of_a_prepared_set_name_their_image_too(tmp_path):
    miniatures.write_ade20k(tmp_path, values(1, 2))
    top = tmp_path / "ADEChallengeData2016" / "annotations" / "validation"
    Image.new("RGB", (6, 4)).save(top / "ADE_val_00000002.png")
    prepare(ade20k(str(tmp_path)), tmp_path / "data")
    found = verify(open_benchmark(ade20k(None), tmp_path / "data"))
    assert [problem[:16] for problem in found.problems] == ["ADE_val_00000002"]


@pytest.mark.parametrize("label", [np.array([[1.5]]), np.array([[-1]]), np.zeros((1, 1, 2), dtype=np.uint8)])
def test_a_label_map_of_other_numbers_is_a_problem_of_its_file(tmp_path, label):
    miniatures.write_context(tmp_path, values(2))
    path = next(tmp_path.rglob("*.mat"))
    scipy.io.savemat(path, {"LabelMap": label})
    found = verify(context(str(tmp_path)).from_originals())
    assert len(found.problems) == 1
    assert path.name in found.problems[0]


def test_a_label_map_that_unpacks_to_gigabytes_is_refused_by_its_size(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"LabelMap": np.zeros((9000, 9000), np.uint8)}, do_compression=True)
    assert (tmp_path / "a.mat").stat().st_size < 100_000
    with pytest.raises(ValueError, match="LabelMap of 9000×9000 is too large"):
        read_label_map(tmp_path / "a.mat")
