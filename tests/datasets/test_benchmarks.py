"""Label maps of the six benchmarks, exactly, in miniature and under each protocol."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import miniatures
import numpy as np
import pytest
from miniatures import values

from diffcut_bench.config import build_protocol, instantiate, load_config
from diffcut_bench.datasets import Benchmark, listed_ids, open_benchmark, prepare
from diffcut_bench.datasets.coco import curated_ids
from diffcut_bench.errors import UserError
from diffcut_bench.scoring.reading import read_label

BG = "background"
VOID = -1


@dataclass(frozen=True)
class Case:
    """Raw values, and what each protocol makes of them: a class name, or VOID."""

    write: Callable[[Path, np.ndarray], None]
    raw: tuple[int, ...]
    released: tuple[str | int, ...]
    paper: tuple[str | int, ...]
    strict: tuple[str | int, ...]
    overrides: tuple[str, ...] = ()


CASES = {
    "voc": Case(
        miniatures.write_voc,
        raw=(0, 1, 15, 20, 255),
        released=(BG, "aeroplane", "person", "tvmonitor", BG),
        paper=(BG, "aeroplane", "person", "tvmonitor", BG),
        strict=(BG, "aeroplane", "person", "tvmonitor", VOID),
    ),
    "context": Case(
        miniatures.write_context,
        raw=(0, 2, 9, 1, 431, 458, 459),
        released=(BG, "aeroplane", "bag", BG, BG, "wood piece", BG),
        paper=(BG, "aeroplane", "bag", BG, BG, "wood piece", BG),
        strict=(BG, "aeroplane", "bag", BG, BG, "wood piece", BG),
    ),
    "coco_object": Case(
        miniatures.write_coco,
        raw=(0, 10, 11, 12, 25, 28, 29, 89, 90, 91, 181, 255),
        released=("person", "fire hydrant", BG, "stop sign", BG, BG, BG, "toothbrush", BG, BG, BG, BG),
        paper=("person", "fire hydrant", BG, "stop sign", BG, BG, BG, "toothbrush", BG, BG, BG, BG),
        strict=("person", "fire hydrant", BG, "stop sign", BG, BG, BG, "toothbrush", BG, BG, BG, VOID),
        overrides=("dataset.ids=all",),
    ),
    "coco_stuff27": Case(
        miniatures.write_coco,
        raw=(0, 1, 15, 156, 181, 255),
        released=("person-things", "vehicle-things", "animal-things", "sky-stuff", "solid-stuff", VOID),
        paper=("person-things", "vehicle-things", "animal-things", "sky-stuff", "solid-stuff", VOID),
        strict=("person-things", "vehicle-things", "animal-things", "sky-stuff", "solid-stuff", VOID),
        overrides=("dataset.ids=all",),
    ),
    "cityscapes27": Case(
        miniatures.write_cityscapes,
        raw=(7, 0, 1, 6, 8, 33, 26, 255),  # −1 in eight bits is 255
        released=("road", VOID, VOID, VOID, "sidewalk", "bicycle", "car", VOID),
        paper=("road", VOID, VOID, VOID, "sidewalk", "bicycle", "car", VOID),
        strict=("road", VOID, VOID, VOID, "sidewalk", "bicycle", "car", VOID),
    ),
    "ade20k": Case(
        miniatures.write_ade20k,
        raw=(1, 0, 2, 149, 150),
        released=("wall", "other", "building", "clock", VOID),
        paper=("wall", VOID, "building", "clock", "flag"),
        strict=("wall", VOID, "building", "clock", "flag"),
    ),
}


def benchmark(name: str, root: Path, *overrides: str) -> Benchmark:
    config = load_config([f"dataset={name}", f"dataset.root={root}", *overrides])
    built = instantiate("dataset", config.dataset)
    assert isinstance(built, Benchmark)
    return built


@pytest.mark.parametrize("protocol", ["released", "paper", "strict"])
@pytest.mark.parametrize("name", CASES)
def test_label_map_under_each_protocol(tmp_path, name, protocol):
    case = CASES[name]
    case.write(tmp_path, values(*case.raw))
    config = load_config([f"dataset={name}", f"dataset.root={tmp_path}", f"protocol={protocol}", *case.overrides])
    dataset = instantiate("dataset", config.dataset).from_originals()
    label = read_label(dataset.pair(0), build_protocol(config.protocol).void)
    expected = [
        value if isinstance(value, int) else dataset.class_names.index(value) for value in getattr(case, protocol)
    ]
    assert label.ravel()[: len(expected)].tolist() == expected


@pytest.mark.parametrize(
    ("name", "expected", "classes", "background"),
    [
        ("voc", 1449, 21, 20),
        ("context", 5105, 60, 59),
        ("coco_object", 2175, 81, 80),
        ("coco_stuff27", 2175, 27, None),
        ("cityscapes27", 500, 27, None),
        ("ade20k", 2000, 150, None),
    ],
)
def test_published_split(tmp_path, name, expected, classes, background):
    built = benchmark(name, tmp_path)
    assert (built.n_expected, len(built.class_names), built.background) == (expected, classes, background)
    assert built.lookup.max() == classes - 1
    assert set(built.lookup[built.lookup >= 0].tolist()) == set(range(classes))
    assert built.card.homepage.startswith("http")
    assert built.card.licence


def test_curated_ids_are_2175_of_val2017():
    ids = curated_ids()
    assert len(ids) == len(set(ids)) == 2175
    assert all(len(image_id) == 12 and image_id.isdigit() for image_id in ids)


@pytest.mark.shared
def test_curated_ids_equal_the_published_list(shared):
    assert curated_ids() == (shared / "mappings" / "Coco164kFull_Stuff_Coarse_7.txt").read_text().split()


@pytest.mark.parametrize("name", CASES)
def test_what_was_looked_for_is_in_the_error(tmp_path, name):
    with pytest.raises(UserError) as caught:
        benchmark(name, tmp_path).from_originals()
    assert str(tmp_path) in caught.value.where
    assert caught.value.where.count(",") >= 1


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("val2017", "stuffthingmaps/val2017"),
        ("images/val2017", "annotations/val2017"),
        ("coco/images/val2017", "coco/stuffthingmaps/val2017"),
        ("coco/val2017", "stuffthingmaps_trainval2017/val2017"),
    ],
)
def test_coco_is_found_in_its_usual_places(tmp_path, images, labels):
    miniatures.picture(tmp_path / images / "000000000139.jpg")
    miniatures.grey(tmp_path / labels / "000000000139.png", values(0))
    assert len(benchmark("coco_object", tmp_path, "dataset.ids=all").from_originals()) == 1


def test_cityscapes_is_found_unpacked_by_archive_name(tmp_path):
    miniatures.write_cityscapes(tmp_path / "x", values(7))
    (tmp_path / "leftImg8bit_trainvaltest").mkdir()
    (tmp_path / "gtFine_trainvaltest").mkdir()
    (tmp_path / "x" / "leftImg8bit").rename(tmp_path / "leftImg8bit_trainvaltest" / "leftImg8bit")
    (tmp_path / "x" / "gtFine").rename(tmp_path / "gtFine_trainvaltest" / "gtFine")
    data = benchmark("cityscapes27", tmp_path).from_originals()
    assert data.ids == ["frankfurt_000000_000294", "lindau_000001_000019"]


@pytest.mark.parametrize("name", CASES)
def test_stray_files_change_nothing(tmp_path, name):
    case = CASES[name]
    case.write(tmp_path, values(*case.raw))
    before = benchmark(name, tmp_path, *case.overrides).from_originals().fingerprint()
    for folder in [path for path in tmp_path.rglob("*") if path.is_dir()]:
        (folder / ".DS_Store").write_bytes(b"x")
        (folder / "Thumbs.db").write_bytes(b"x")
        (folder / "._hidden.png").write_bytes(b"x")
    assert benchmark(name, tmp_path, *case.overrides).from_originals().fingerprint() == before


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", ["image", "label"])
def test_a_missing_partner_is_named(tmp_path, name, kind):
    case = CASES[name]
    case.write(tmp_path, values(*case.raw))
    built = benchmark(name, tmp_path, *case.overrides)
    lost = getattr(built.find(tmp_path), f"{kind}s")[1]
    lost.unlink()
    with pytest.raises(UserError, match="file missing") as caught:
        built.from_originals()
    assert caught.value.where == str(lost)


def test_context_refuses_another_mat(tmp_path):
    import scipy.io

    miniatures.write_context(tmp_path, values(2))
    scipy.io.savemat(tmp_path / "trainval" / "2008_000002.mat", {"anno": np.zeros((2, 2))})
    with pytest.raises(ValueError, match=r"2008_000002\.mat.*no variable LabelMap"):
        benchmark("context", tmp_path).from_originals().read(0)


def test_coco_takes_a_list_of_ids(tmp_path):
    miniatures.write_coco(tmp_path, values(3))
    (tmp_path / "mine.txt").write_text("000000000724\n")
    data = benchmark("coco_stuff27", tmp_path, f"dataset.ids={tmp_path / 'mine.txt'}").from_originals()
    assert data.ids == ["000000000724"]


def test_a_root_and_a_list_that_read_like_something_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    miniatures.write_coco(tmp_path / "2017", values(3))
    (tmp_path / "mine.txt").write_text("000000000724\n")
    listed = benchmark("coco_stuff27", Path("2017"), "dataset.ids='~/mine.txt'")
    assert prepare(listed, tmp_path / "data").ids == ["000000000724"]
    assert len(open_benchmark(listed, tmp_path / "data")) == 1


def test_lists_of_ids_never_share_a_prepared_form(tmp_path):
    sources = set()
    for number, content in enumerate(("000000000724", "000000000139", "000000000139\n000000000724")):
        (tmp_path / str(number)).mkdir()
        path = tmp_path / str(number) / "curated.txt"
        path.write_text(content + "\n")
        sources.add(benchmark("coco_stuff27", tmp_path, f"dataset.ids={path}").source)
    assert len(sources) == 3
    assert "coco-val2017-curated" not in sources


def test_the_curated_images_are_not_in_train2017(tmp_path):
    with pytest.raises(UserError, match="all of val2017"):
        benchmark("coco_object", tmp_path, "dataset.split=train2017")


def test_a_list_that_is_no_text_is_a_user_error(tmp_path):
    miniatures.write_voc(tmp_path, values(0))
    listed = tmp_path / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation" / "val.txt"
    listed.write_bytes("2007_000033".encode("utf-16"))
    with pytest.raises(UserError, match="list of images"):
        benchmark("voc", tmp_path).from_originals()


@pytest.mark.parametrize(
    "content",
    [
        "\ufeff2007_000033\r\n2007_000061\r\n",
        "/JPEGImages/2007_000033.jpg /SegmentationClass/2007_000033.png\n"
        "/JPEGImages/2007_000061.jpg /SegmentationClass/2007_000061.png\n",
        "JPEGImages/2007_000033.jpg\n\nJPEGImages/2007_000061.jpg",
        "2007_000033  1\n2007_000061 -1\n",
        "2007_000033.jpg\n2007_000061.jpg\n",
    ],
)
def test_lists_as_people_have_them(tmp_path, content):
    miniatures.write_voc(tmp_path, values(0))
    listed = tmp_path / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation" / "val.txt"
    listed.write_bytes(content.encode())
    assert benchmark("voc", tmp_path).from_originals().ids == ["2007_000033", "2007_000061"]


def test_a_list_that_pairs_an_image_with_another_s_label_is_an_error(tmp_path):
    (tmp_path / "mine.txt").write_text("/JPEGImages/a.jpg /SegmentationClass/b.png\n")
    with pytest.raises(UserError, match=r"pairs /JPEGImages/a\.jpg with /SegmentationClass/b\.png"):
        listed_ids(tmp_path / "mine.txt")


def test_ids_with_dots_and_folders_stay_as_they_are(tmp_path):
    (tmp_path / "mine.txt").write_text("city/frame.v2\n0001.5\n")
    assert listed_ids(tmp_path / "mine.txt") == ["city/frame.v2", "0001.5"]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("value", ["2012", "null", "1.5"])
def test_a_split_that_is_no_text_is_a_user_error(tmp_path, name, value):
    with pytest.raises(UserError, match="split takes text"):
        benchmark(name, tmp_path, f"dataset.split={value}")


@pytest.mark.parametrize(
    ("name", "override", "what"),
    [("voc", "dataset.background=none", "true or false"), ("coco_object", "dataset.ids=[1]", "ids takes text")],
)
def test_options_of_another_kind_are_user_errors(tmp_path, name, override, what):
    with pytest.raises(UserError, match=what):
        benchmark(name, tmp_path, override)


def test_an_id_listed_twice_is_an_error(tmp_path):
    miniatures.write_voc(tmp_path, values(0), ids=("2007_000033", "2007_000033"))
    with pytest.raises(UserError, match="twice"):
        benchmark("voc", tmp_path).from_originals()


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "folder", "overrides", "pairs"),
    [
        ("voc", "VOCdevkit", (), 15),
        ("coco_object", "coco", ("dataset.ids=all",), 8),
        ("coco_object", "coco", ("dataset.ids=all", "dataset.split=train2017"), 13),
        ("coco_stuff27", "coco", ("dataset.ids=all",), 8),
        ("cityscapes27", "cityscapes", ("dataset.split=train",), 3),
        ("ade20k", "ADEChallengeData2016", (), 3),
    ],
)
def test_real_samples_are_read(shared, name, folder, overrides, pairs):
    data = benchmark(name, shared / "samples" / folder, *overrides).from_originals()
    assert len(data) == pairs
    for index in range(pairs):
        image, label = data.read(index)
        assert image.size == label.shape[::-1]
        assert (label >= 0).mean() > 0.3
