"""Segments of several annotators: from .mat files to maps, in the originals and prepared."""

import io

import miniatures
import numpy as np
import pytest
import scipy.io
from PIL import Image

from diffcut_bench.datasets import bsds500, open_benchmark, prepare, verify
from diffcut_bench.datasets.bsds500 import read_segmentations
from diffcut_bench.errors import UserError
from diffcut_bench.matlab import read_variable

HALVES = np.repeat([[1, 2]], 4, axis=0).repeat(3, axis=1)
STRIPES = np.repeat(np.arange(1, 5)[:, None], 6, axis=1)
MANY = np.arange(1, 25).reshape(4, 6) + 40_000


@pytest.fixture
def root(tmp_path):
    miniatures.write_bsds(tmp_path, {"10": [HALVES, STRIPES, HALVES[:, ::-1]], "7": [MANY, STRIPES]})
    return tmp_path


def test_each_annotator_has_a_map_of_segments_from_0(root, tmp_path):
    originals = bsds500(str(root)).from_originals()
    prepared = prepare(bsds500(str(root)), tmp_path / "data")
    assert originals.ids == ["10", "7"]
    for dataset in (originals, prepared, open_benchmark(bsds500(None), tmp_path / "data")):
        first, second = (dataset.read(index)[1] for index in (0, 1))
        assert (first.shape, second.shape) == ((3, 4, 6), (2, 4, 6))
        assert np.array_equal(first, np.stack([HALVES, STRIPES, HALVES[:, ::-1]]) - 1)
        assert np.array_equal(second, np.stack([MANY, STRIPES]) - 1), "16 bits"
        assert (dataset.num_classes, dataset.background, dataset.annotators) == (0, None, True)
    assert originals.fingerprint() == prepared.fingerprint()


def test_a_pixel_that_nobody_gave_a_segment_is_void(tmp_path):
    miniatures.write_bsds(tmp_path, {"1": [HALVES * (STRIPES > 1)]})
    label = bsds500(str(tmp_path)).from_originals().read(0)[1]
    assert (label[0, 0] == -1).all() and (label[0, 1:] >= 0).all()


@pytest.mark.parametrize(("split", "images"), [("test", 200), ("val", 100), ("train", 200)])
def test_published_splits(tmp_path, split, images):
    miniatures.write_bsds(tmp_path, {"1": [HALVES]}, split)
    built = bsds500(str(tmp_path), split)
    assert (built.n_expected, built.source, len(built.from_originals())) == (images, f"bsds500-{split}", 1)


def test_a_split_that_was_never_published_is_a_mistake(tmp_path):
    with pytest.raises(UserError, match="no split tset") as caught:
        bsds500(str(tmp_path), "tset")
    assert "test" in caught.value.hint


def test_verify_counts_segments_and_void_of_all_annotators(root):
    found = verify(bsds500(str(root)).from_originals())
    assert found.pixels == {"void": 0, "segments": 5 * 24}
    assert found.problems == []
    assert "2 pairs, but the published split has 200" in found.verdict


DAMAGES = {
    "no mat": ("text", "no MATLAB 5 file"),
    "other variable": ({"LabelMap": HALVES}, "no variable groundTruth, but LabelMap"),
    "no cells": ({"groundTruth": HALVES}, "no Segmentation of each annotator"),
    "no annotator": ({"groundTruth": np.empty((1, 0), object)}, "no Segmentation of each annotator"),
    "other sizes": (miniatures.annotations(HALVES, STRIPES[:, :5]), "no Segmentation of each annotator"),
    "other heights": (miniatures.annotations(HALVES, STRIPES[:3]), "of one size for all annotators"),
    "other picture": (miniatures.annotations(HALVES[:, :5]), "label is 5×4 but its image is 6×4"),
    "half a map": (miniatures.annotations(np.vstack([HALVES, HALVES])[:6]), "label is 6×6 but its image is 6×4"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_a_problem_of_its_image_alone(root, damage):
    content, what = DAMAGES[damage]
    path = next(root.rglob("groundTruth/test/7.mat"))
    path.write_text(content) if isinstance(content, str) else scipy.io.savemat(path, content)
    found = verify(bsds500(str(root)).from_originals())
    assert len(found.problems) == 1
    assert "7.mat" in found.problems[0] and what in found.problems[0]


@pytest.mark.parametrize("values", [HALVES - 1.5, HALVES * -1.0, HALVES * 70_000, HALVES * (1 + 0j)])
def test_only_whole_numbers_of_16_bits_are_segments(tmp_path, values):
    content = miniatures.annotations(HALVES)
    content["groundTruth"][0, 0]["Segmentation"] = values
    scipy.io.savemat(tmp_path / "a.mat", content)
    with pytest.raises(ValueError, match=r"no map of ids 0\.\.65535"):
        read_segmentations(tmp_path / "a.mat")


def test_what_would_unpack_to_gigabytes_is_refused_before_it_does(tmp_path):
    zeros = np.zeros((4000, 4000), np.uint16)
    scipy.io.savemat(tmp_path / "a.mat", miniatures.annotations(zeros, zeros), do_compression=True)
    assert (tmp_path / "a.mat").stat().st_size < 200_000
    with pytest.raises(ValueError, match="groundTruth unpacks to more than 8000000 bytes"):
        read_variable(tmp_path / "a.mat", "groundTruth", most=1_000_000)
    assert read_segmentations(tmp_path / "a.mat").size == (4000, 8000)


def test_the_prepared_label_is_one_picture_of_16_bits(root, tmp_path):
    dataset = prepare(bsds500(str(root)), tmp_path / "data")
    label = Image.open(io.BytesIO(dataset.records[0]["label"]["bytes"]))
    assert (label.size, label.mode) == ((6, 12), "I;16")
