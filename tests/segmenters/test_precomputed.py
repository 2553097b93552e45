import shutil

import numpy as np
import pytest
import torch
from conftest import shapes_overrides
from PIL import Image

from diffcut_bench.config import load_config
from diffcut_bench.errors import UserError
from diffcut_bench.scoring.framing import Framing, prepare_example, prepare_prediction
from diffcut_bench.scoring.passes import run_cell
from diffcut_bench.segmenters import Precomputed
from diffcut_bench.store import read_rows


def score(root, out, *overrides):
    base = [o for o in shapes_overrides(root, out) if not o.startswith("backbone")]
    return run_cell(load_config([*base, "segmenter=precomputed", "refiner=none", *overrides]))


def copy_labels(shapes, folder, change=lambda label: label, size=None):
    folder.mkdir(parents=True)
    for path in sorted((shapes / "labels").iterdir()):
        picture = Image.fromarray(change(np.array(Image.open(path))))
        if size is not None:
            picture = picture.resize(size(picture), Image.Resampling.NEAREST)
        picture.save(folder / path.name)
    return folder


def test_the_annotation_itself_scores_one_hundred_whatever_its_numbers(shapes, tmp_path):
    renamed = copy_labels(shapes, tmp_path / "labels", lambda label: np.array([40, 7, 200], np.uint8)[label % 255])
    rules = ["protocol.background_rule=one_to_one", "protocol.void=ignore"]
    for protocol in ("released", "strict"):
        cell = score(shapes, tmp_path / "out", f"segmenter.folder={renamed}", f"protocol={protocol}", *rules)
        assert cell.result.metrics.miou == 1
        assert cell.result.segments_per_image.max == 3


def test_colours_and_16_bits_are_segments_too(shapes, tmp_path):
    colours = np.random.default_rng(0).integers(0, 255, (256, 3), dtype=np.uint8)
    coloured = copy_labels(shapes, tmp_path / "rgb", lambda label: colours[label])
    wide = copy_labels(shapes, tmp_path / "wide", lambda label: label.astype(np.uint16) * 250)
    options = ("protocol.void=ignore", "protocol.background_rule=one_to_one")
    rows = [
        read_rows(score(shapes, tmp_path / "out", f"segmenter.folder={f}", *options).folder) for f in (coloured, wide)
    ]
    assert rows[0] == rows[1]
    assert all(sum(row.fp) == 0 for row in rows[0])


def test_background_rule_and_refinement_apply_as_to_any_method(shapes, tmp_path):
    stripes = 3 * (np.arange(200, dtype=np.uint8) % 2)
    split = copy_labels(shapes, tmp_path / "split", lambda label: label + stripes[: label.shape[1]])
    merged = score(shapes, tmp_path / "out", f"segmenter.folder={split}", "protocol.background_rule=overlap")
    apart = score(shapes, tmp_path / "out", f"segmenter.folder={split}", "protocol.background_rule=one_to_one")
    assert merged.result.metrics.miou > apart.result.metrics.miou
    refined = score(shapes, tmp_path / "out", f"segmenter.folder={split}", "refiner=pamr")
    assert len({cell.result.key for cell in (merged, apart, refined)}) == 3


def test_a_prediction_goes_the_way_of_its_label():
    label = np.random.default_rng(1).integers(0, 5, (61, 90))
    ids = torch.from_numpy(label)
    picture = Image.fromarray(np.zeros((61, 90, 3), np.uint8))
    for crop, size, eval_size, stride in (("center", 128, 32, 32), ("none", 128, 48, 32), ("none", 96, "original", 1)):
        framing = Framing(crop, size, eval_size, "ignore", stride)
        example = prepare_example(0, "a", picture, label, framing)
        assert example.frame == (61, 90)
        same = prepare_prediction(ids, example.frame, framing, covers="image")
        assert np.array_equal(same, example.label)
        doubled = ids.repeat_interleave(2, 0).repeat_interleave(2, 1)
        assert np.array_equal(prepare_prediction(doubled, example.frame, framing, covers="image"), example.label)
        whole = prepare_prediction(example.label, example.frame, framing, covers="crop")
        assert np.array_equal(whole, example.label)


def test_a_prediction_of_another_shape_is_a_failure_that_says_what_to_do(shapes, tmp_path):
    square = copy_labels(shapes, tmp_path / "square", size=lambda picture: (100, 100))
    with pytest.raises(UserError, match=r"segmenter\.covers=crop"):
        score(shapes, tmp_path / "out", f"segmenter.folder={square}")
    cell = score(shapes, tmp_path / "out", f"segmenter.folder={square}", "segmenter.covers=crop")
    assert not cell.result.failures


def test_a_missing_prediction_is_a_failure_and_none_at_all_a_mistake(shapes, tmp_path):
    folder = copy_labels(shapes, tmp_path / "some")
    (folder / "picture3.png").unlink()
    cell = score(shapes, tmp_path / "out", f"segmenter.folder={folder}")
    assert [failure.id for failure in cell.result.failures] == ["picture3"]
    assert "no prediction" in cell.result.failures[0].error
    with pytest.raises(UserError, match="no predictions for any of the 8 images"):
        score(shapes, tmp_path / "out", f"segmenter.folder={folder}", "segmenter.pattern='{id}_x.png'")
    with pytest.raises(UserError, match="folder is not set"):
        score(shapes, tmp_path / "out")


def test_the_key_follows_the_files_not_their_folder(shapes, tmp_path):
    first = copy_labels(shapes, tmp_path / "first")
    shutil.copytree(first, tmp_path / "second")
    cells = [score(shapes, tmp_path / "out", f"segmenter.folder={tmp_path / name}") for name in ("first", "second")]
    assert cells[1].skipped
    label = np.array(Image.open(tmp_path / "second" / "picture0.png"))
    label[0, 0] = 77
    Image.fromarray(label).save(tmp_path / "second" / "picture0.png")
    assert not score(shapes, tmp_path / "out", f"segmenter.folder={tmp_path / 'second'}").skipped


def test_one_matching_for_the_data_set(shapes, tmp_path):
    """Cluster 1 is the disc but in one image, where ids are swapped: only matching in each image forgives that."""

    def swap_first(label):
        swap_first.calls += 1
        return np.where(label == 1, 2, np.where(label == 2, 1, label)) if swap_first.calls == 1 else label

    swap_first.calls = 0
    folder = copy_labels(shapes, tmp_path / "swapped", swap_first)
    rules = [f"segmenter.folder={folder}", "protocol.background_rule=one_to_one", "protocol.void=ignore"]
    image = score(shapes, tmp_path / "out", *rules)
    dataset = score(shapes, tmp_path / "out", *rules, "protocol.matching=dataset")
    assert image.result.metrics.miou == 1
    rows = read_rows(dataset.folder)
    assert [sum(row.fp) > 0 for row in rows] == [True] + [False] * 7
    assert sum(map(sum, (row.tp for row in rows))) + sum(rows[0].fp) == sum(row.pixels for row in rows)
    assert dataset.result.protocol["matching"] == "dataset"


@pytest.mark.parametrize(
    ("override", "message"),
    [("refiner=pamr", "refiner=none"), ("protocol.background_rule=overlap", "background_rule=one_to_one")],
)
def test_one_matching_wants_ids_that_reach_it_unchanged(shapes, tmp_path, override, message):
    folder = copy_labels(shapes, tmp_path / "same")
    rules = [f"segmenter.folder={folder}", "protocol.matching=dataset", "protocol.background_rule=one_to_one", override]
    with pytest.raises(UserError) as refused:
        score(shapes, tmp_path / "out", *rules)
    assert message in refused.value.hint


def test_features_are_not_computed(shapes, tmp_path):
    folder = copy_labels(shapes, tmp_path / "same")
    cell = score(shapes, tmp_path / "out", f"segmenter.folder={folder}")
    assert cell.result.config["choices"]["backbone"] == "none"
    assert cell.result.timings.features_s == 0
    with pytest.raises(UserError, match="needs features"):
        run_cell(load_config([*shapes_overrides(shapes, tmp_path / "out"), "backbone=none", "features=memory"]))


def test_options_out_of_range():
    with pytest.raises(ValueError, match="pattern must hold"):
        Precomputed(".", pattern="x.png")
    with pytest.raises(ValueError, match="covers must be"):
        Precomputed(".", covers="half")
