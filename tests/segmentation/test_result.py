"""What a `Segmentation` gives besides its labels, and the tree that it answers other values of tau from."""

import concurrent.futures
import io
import pickle

import numpy as np
import pytest
import skimage.data
import torch
from conftest import same_partition
from PIL import Image

import diffcut_bench
from diffcut_bench.errors import UserError
from diffcut_bench.ncut import ImageTree, NCutTree
from diffcut_bench.segmenters import diffcut

FAST = "protocol.image_size=256"
OVERRIDES = ["backbone=efficientnet_lite0", FAST]
TAUS = [0.0, 0.3, 0.45, 0.6, 0.8, 0.9]


@pytest.fixture(scope="module")
def segmenter():
    return diffcut_bench.PictureSegmenter(OVERRIDES)


@pytest.fixture(scope="module")
def coffee(segmenter):
    return segmenter(skimage.data.coffee())


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["refiner=none", "upsampler=nearest"],
        ["segmenter.label_codes=float32"],
        ["segmenter=agglomerative", "segmenter.min_patches=1", "refiner=none"],
    ],
)
def test_another_tau_is_what_the_segmenter_gives_there(words):
    picture = skimage.data.coffee()[::2, ::2]
    result = diffcut_bench.PictureSegmenter([*OVERRIDES, *words])(picture)
    found = []
    for tau in TAUS:
        there = diffcut_bench.PictureSegmenter([*OVERRIDES, *words, f"segmenter.tau={tau}"])(picture)
        assert np.array_equal(result.at(tau).labels, there.labels), tau
        assert np.array_equal(result.at(tau).image, result.image)
        found.append(there.num_segments)
    assert found[0] == 1
    assert len(set(found)) > 3


def test_another_tau_computes_no_features_and_few_recursions(segmenter, monkeypatch):
    result, calls = segmenter(skimage.data.coffee()[::2, ::2]), []

    def counted(*arguments):
        calls.append(arguments)
        return original(*arguments)

    original = diffcut.ncut_trees
    monkeypatch.setattr(diffcut, "ncut_trees", counted)
    monkeypatch.setattr(type(segmenter._pipeline.features), "compute", None)  # a call would fail
    own = segmenter.tree_method().tau
    for tau in (own - 0.2, own, own - 0.1):
        result.at(tau)
    assert len(calls) == 1  # to its own tau
    result.at(own + 0.1)
    result.hierarchy()
    result.explore()
    result.at(0.7).at(0.2)
    assert len(calls) == 2  # to tau 0.8
    result.at(0.95)
    assert len(calls) == 3


@pytest.mark.parametrize("tau", [-0.1, float("nan")])
def test_a_tau_that_is_none_is_a_user_error(coffee, tau):
    with pytest.raises(UserError, match="tau="):
        coffee.at(tau)


def test_labels_alone_have_no_other_tau():
    made = diffcut_bench.Segmentation(np.zeros((4, 5, 3), dtype=np.uint8), np.zeros((4, 5), dtype=np.int64))
    for call in (lambda: made.at(0.3), made.hierarchy, made.explore):
        with pytest.raises(UserError, match="made of labels alone"):
            call()


class Halves:
    """Somebody's method with a tree: left and right are parted at every tau above a half."""

    tau, tau_meaning, slider_end = 0.7, "halves are parted where one half is below tau", 0.9

    def __call__(self, features):
        return self.tree(features, self.tau).labels(self.tau).unflatten(1, features.shape[2:])

    def tree(self, features, max_tau):
        left = torch.zeros(features.shape[2:], dtype=torch.bool)
        left[:, : left.shape[1] // 2] = True
        return NCutTree([ImageTree(torch.tensor([0.5]), [-1], left.reshape(1, -1))] * len(features), max_tau)

    def tree_settings(self):
        return {"parts": 2}

    def tree_fault(self, nested):
        return None


def test_a_tree_of_ones_own_is_read_likewise():
    own = ["segmenter=one_segment", f"segmenter._target_={__name__}.{Halves.__name__}", "refiner=none"]
    result = diffcut_bench.PictureSegmenter([*OVERRIDES, *own])(skimage.data.coffee()[::4, ::4])
    assert [result.at(tau).num_segments for tau in (0.4, 0.6)] == [1, 2]
    assert result.hierarchy().to_dict()["parts"] == 2
    assert result.explore().max_tau == 0.9
    assert "halves are parted where one half is below tau." in result.explore().page()


def test_a_method_without_a_tree_says_so():
    result = diffcut_bench.segment(skimage.data.coffee()[::4, ::4], "none", "segmenter=slic", FAST)
    with pytest.raises(UserError, match="this segmenter has no tree"):
        result.at(0.4)


@pytest.mark.parametrize("name", ["diffcut", "agglomerative"])
def test_a_picture_of_one_colour_is_one_segment_at_every_tau(name):
    segmenter = diffcut_bench.PictureSegmenter([*OVERRIDES, f"segmenter={name}"])
    result = segmenter(Image.new("RGB", (40, 30), "teal"))
    assert result.at(0.9).num_segments == 1
    assert result.hierarchy().parents == [-1]
    assert result.explore().leaves.max() == 0


def test_it_is_a_line_of_text():
    image, labels = np.zeros((4, 5, 3), dtype=np.uint8), np.arange(20).reshape(4, 5) // 10
    assert repr(diffcut_bench.Segmentation(image, labels)) == "<Segmentation of 5 × 4 pixels into 2 segments>"
    named = diffcut_bench.Segmentation(image, labels, (("sofa", 0.5), ("cat", 0.9)))
    assert repr(named) == "<Segmentation of 5 × 4 pixels into 2 segments: cat, sofa>"
    assert repr(diffcut_bench.Segmentation(image, labels * 0)).endswith("into 1 segment>")


def test_a_notebook_shows_the_overlay(coffee):
    shown = Image.open(io.BytesIO(coffee._repr_png_()))
    assert np.array_equal(np.asarray(shown), np.asarray(coffee.overlay()))
    large = diffcut_bench.Segmentation(np.zeros((30, 4000, 3), np.uint8), np.zeros((30, 4000), np.int64))
    assert Image.open(io.BytesIO(large._repr_png_())).width == 1024


def test_a_notebook_shows_the_explorer_in_a_frame_of_its_own(coffee):
    html = coffee.explore(largest=100)._repr_html_()
    assert html.startswith("<iframe ")
    assert html.count("<") == 2  # the frame; all of the page is escaped


def test_masks_are_the_segments(coffee):
    masks = coffee.masks()
    assert masks.shape == (coffee.num_segments, 400, 600)
    assert masks.dtype == bool
    assert np.array_equal(masks.argmax(axis=0), coffee.labels)
    assert (masks.sum(axis=0) == 1).all()


def test_coco_and_geojson_hold_the_segments(coffee):
    mask = pytest.importorskip("pycocotools.mask", reason="pip install 'diffcut_bench[formats]'")
    shapely = pytest.importorskip("shapely", reason="pip install 'diffcut_bench[formats]'")
    coco = coffee.to_coco("coffee.png")
    assert coco["images"][0]["file_name"] == "coffee.png"
    decoded = [mask.decode(each["segmentation"]) for each in coco["annotations"]]
    assert np.array_equal(np.argmax(decoded, axis=0), coffee.labels)
    areas = [shapely.geometry.shape(each["geometry"]).area for each in coffee.to_geojson()["features"]]
    assert areas == [segment["area_px"] for segment in coffee.describe()]


def test_pictures_of_one_size_go_through_the_network_together(segmenter, monkeypatch):
    pictures = [skimage.data.coffee()[::2, ::2], skimage.data.astronaut()[::2, ::2], skimage.data.coffee()[::2, ::2]]
    pictures.append(Image.new("RGB", (300, 200), "teal"))
    batches, compute = [], type(segmenter._pipeline.features).compute

    def counted(self, images):
        batches.append(len(images))
        return compute(self, images)

    monkeypatch.setattr(type(segmenter._pipeline.features), "compute", counted)
    together = list(segmenter.map(iter(pictures), batch_size=4))
    assert batches == [2, 1]  # the one of one colour needs none
    assert [result.labels.shape for result in together] == [(200, 300), (256, 256), (200, 300), (200, 300)]
    for picture, result in zip(pictures, together, strict=True):
        assert same_partition(torch.from_numpy(segmenter(picture).labels), torch.from_numpy(result.labels))


def test_a_picture_that_fails_stands_in_its_place(segmenter):
    pictures = [skimage.data.coffee()[::4, ::4], "missing.png", skimage.data.coffee()[::4, ::4]]
    first, error, last = segmenter.try_map(pictures, batch_size=2)
    assert isinstance(error, UserError)
    assert np.array_equal(first.labels, last.labels)
    given = segmenter.map(pictures, batch_size=2)
    assert np.array_equal(next(given).labels, first.labels)
    with pytest.raises(UserError, match=r"missing\.png"):
        next(given)


def test_pictures_are_read_as_they_are_needed(segmenter):
    taken = []

    def pictures():
        for number in range(5):
            taken.append(number)
            yield Image.new("RGB", (8, 8), "teal")

    next(segmenter.map(pictures(), batch_size=2))
    assert taken == [0, 1]


def test_threads_may_share_one(segmenter):
    pictures = [skimage.data.coffee()[::4, ::4], skimage.data.astronaut()[::4, ::4]] * 4
    alone = [segmenter(picture).labels for picture in pictures]
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        for expected, found in zip(alone, threads.map(lambda each: segmenter(each).at(0.6), pictures), strict=True):
            assert np.array_equal(found.at(0.5).labels, expected)


def test_a_copy_for_another_process_is_built_anew(segmenter):
    copy = pickle.loads(pickle.dumps(segmenter))
    picture = skimage.data.coffee()[::4, ::4]
    assert np.array_equal(copy(picture).labels, segmenter(picture).labels)
    assert copy.identity() == segmenter.identity()


def test_the_package_lists_what_it_has():
    assert set(diffcut_bench.__all__) <= set(dir(diffcut_bench))
    assert all(hasattr(diffcut_bench, name) for name in dir(diffcut_bench))


def test_it_is_saved_where_text_says(coffee, tmp_path):
    coffee.save(str(tmp_path / "labels.png"), str(tmp_path / "overlay.png"))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "labels.png")), coffee.labels)


def test_large_pictures_are_described_in_parts_as_each_segment_by_itself():
    generator = np.random.default_rng(0)
    labels = np.kron(generator.integers(0, 9, (30, 40)), np.ones((50, 40), dtype=np.int64))  # 2.4 megapixels: parts
    image = generator.integers(0, 256, (*labels.shape, 3), dtype=np.uint8)
    for found in diffcut_bench.Segmentation(image, labels).describe():
        mask = labels == found["id"]
        rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert found["area_px"] == mask.sum()
        assert found["bbox"] == [cols[0], rows[0], cols[-1] + 1, rows[-1] + 1]
        assert found["mean_rgb"] == image[mask].mean(axis=0).round(1).tolist()


@pytest.mark.parametrize("tau", [-0.1, 1.5, float("nan"), float("inf")])
def test_what_is_no_threshold_is_named_so(coffee, tau):
    for call in (coffee.at, coffee.hierarchy, coffee.explore):
        with pytest.raises(UserError, match="between 0 and 1") as caught:
            call(tau)
        assert caught.value.where == f"tau={tau}"


def test_a_batch_has_a_picture(segmenter):
    for batch_size in (0, -1):
        with pytest.raises(UserError, match="no batch without pictures"):
            list(segmenter.map([skimage.data.coffee()], batch_size))


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        ([[0, 0, 5, 5]] * 3, "not all of 0"),
        ([[-1, 0, 1, 1]] * 3, "not all of 0"),
        ([[0, 0, 10**12, 1]] * 3, "not all of 0"),
        ([[0.0, 0.0, 1.0, 1.0]] * 3, "integers"),
        ([[False, False, True, True]] * 3, "integers"),
        ([[0, 1]], "labels of"),
        ([], "integers"),
    ],
)
def test_labels_that_are_none_of_segments_are_refused(labels, what):
    with pytest.raises(UserError, match=what):
        diffcut_bench.Segmentation(np.zeros((3, 4, 3), np.uint8), np.array(labels))


def test_labels_may_be_of_any_integers():
    image, labels = np.zeros((3, 4, 3), np.uint8), np.array([[0, 0, 1, 1]] * 3)
    for kind in (np.uint8, np.int32, np.uint64):
        made = diffcut_bench.Segmentation(image, labels.astype(kind))
        assert made.labels.dtype == np.int64
        assert [each["area_px"] for each in made.describe()] == [6, 6]
    with pytest.raises(UserError, match="1 names of 2 segments"):
        diffcut_bench.Segmentation(image, labels, (("cat", 0.5),))
    with pytest.raises(UserError, match="the image is no"):
        diffcut_bench.Segmentation(image / 255, labels)
