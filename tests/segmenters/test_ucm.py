"""Hierarchies of other programs, cut at thresholds."""

import miniatures
import numpy as np
import pytest
import scipy.io
import torch
from conftest import same_partition

from diffcut_bench.config import load_config
from diffcut_bench.errors import UserError
from diffcut_bench.scoring.passes import run_cell, run_cells
from diffcut_bench.segmenters import Ucm
from diffcut_bench.segmenters.ucm import cut

# Three columns of pixels: a contour of 0.3 after the first, one of 0.6 after the second.
LEVELS = {0.2: [0, 1, 2], 0.3: [0, 0, 1], 0.5: [0, 0, 1], 0.6: [0, 0, 0]}


def contours(columns: int = 3, rows: int = 2) -> np.ndarray:
    ucm = np.zeros((2 * rows + 1, 2 * columns + 1))
    ucm[:, 2], ucm[:, 4] = 0.3, 0.6
    return ucm


def rescale(ids, *, covers="image"):
    return ids


@pytest.mark.parametrize("threshold", LEVELS)
def test_a_threshold_keeps_the_contours_above_it(threshold):
    assert cut(contours(), threshold).tolist() == [LEVELS[threshold]] * 2


def test_segments_touch_along_edges_and_not_at_corners():
    ucm = np.zeros((5, 5))
    ucm[2, :] = ucm[:, 2] = 0.5
    ucm[2, 2] = 0.1
    assert len(np.unique(cut(ucm, 0.2))) == 4


def test_a_hierarchy_grows_coarser():
    generator = np.random.default_rng(0)
    ucm = generator.random((21, 31))
    ucm[1::2, 1::2] = 0
    before = cut(ucm, 0.0)
    assert len(np.unique(before)) == 150
    for threshold in np.linspace(0.1, 1, 10):
        after = cut(ucm, threshold)
        assert set(np.unique(after)) == set(range(after.max() + 1)), "contiguous"
        assert len(set(zip(before.ravel(), after.ravel(), strict=True))) == len(np.unique(before)), "nested"
        before = after
    assert len(np.unique(before)) == 1


def write(folder, images: int = 3):
    """A BSDS500 in miniature whose hierarchies are its annotations' own; returns root and folder of hierarchies."""
    halves = np.repeat([[1, 1, 2]], 2, axis=0).repeat(20, axis=0).repeat(20, axis=1)
    thirds = np.repeat([[1, 2, 3]], 2, axis=0).repeat(20, axis=0).repeat(20, axis=1)
    miniatures.write_bsds(folder, {f"{number}": [halves, thirds] for number in range(images)})
    large = np.zeros((81, 121))
    large[:, 40], large[:, 80] = 0.3, 0.6
    (folder / "ucm").mkdir()
    for number in range(images):
        scipy.io.savemat(folder / "ucm" / f"{number}.mat", {"ucm2": large})
    return folder, folder / "ucm"


def configs(root, folder, *overrides, thresholds=(0.1, 0.4, 0.7)):
    base = ["dataset=bsds500", f"dataset.root={root}", "protocol=bsds", "refiner=none", "prepared=never"]
    base += ["segmenter=ucm", f"segmenter.folder={folder}", f"output_dir={root / 'out'}", *overrides]
    return [load_config([*base, f"segmenter.threshold={threshold}"]) for threshold in thresholds]


def test_thresholds_are_scored_against_every_annotator_in_one_pass(tmp_path, monkeypatch):
    root, folder = write(tmp_path)
    cells = run_cells(configs(root, folder))
    coverings = [cell.result.scores["covering"].value for cell in cells]
    # Of three segments one annotator has merged two, whose region is half covered: (2/3 · 1/2 + 1/3 + 1) / 2.
    assert coverings == pytest.approx([(2 / 3 / 2 + 1 / 3 + 1) / 2, (1 + 2 / 3 / 2 + 1 / 3) / 2, (5 / 9 + 1 / 3) / 2])
    assert [cell.result.segments_per_image.mean for cell in cells] == [3, 2, 1]
    assert cells[1].result.scores["boundary_f"].value < cells[0].result.scores["boundary_f"].value == 1


def test_a_file_that_is_missing_or_damaged_is_a_failure_of_its_image(tmp_path):
    root, folder = write(tmp_path, images=6)
    (folder / "1.mat").unlink()
    (folder / "2.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    scipy.io.savemat(folder / "3.mat", {"ucm": np.zeros((81, 121))})
    scipy.io.savemat(folder / "4.mat", {"ucm2": np.zeros((80, 121))})
    scipy.io.savemat(folder / "5.mat", {"ucm2": np.full((81, 121), np.nan)})
    result = run_cell(configs(root, folder, thresholds=[0.1])[0]).result
    assert [failure.id for failure in result.failures] == ["1", "2", "3", "4", "5"]
    told = [
        "no prediction",
        "can't be read",
        "no variable ucm2, but ucm",
        "is due, not float64 of 80×121",
        "not finite",
    ]
    for failure, what in zip(result.failures, told, strict=True):
        assert f"{failure.id}.mat" in failure.error and what in failure.error


def test_the_key_holds_what_the_files_hold_and_the_threshold(tmp_path):
    root, folder = write(tmp_path)
    first = [cell.result.key for cell in run_cells(configs(root, folder))]
    assert len(set(first)) == 3
    moved = folder.rename(root / "elsewhere")
    assert [cell.result.key for cell in run_cells(configs(root, moved))] == first
    scipy.io.savemat(moved / "0.mat", {"ucm2": np.zeros((81, 121))})
    assert not {cell.result.key for cell in run_cells(configs(root, moved))} & set(first)


def test_a_folder_is_asked_for_and_has_to_hold_something(tmp_path):
    with pytest.raises(UserError, match=r"segmenter\.folder is not set") as caught:
        Ucm(None)
    assert caught.value.where == "segmenter=ucm"
    with pytest.raises(UserError, match="no predictions for any of the 2 images") as caught:
        Ucm(str(tmp_path)).depends_on(["a", "b"])
    assert "'{id}_pred.mat'" in caught.value.hint
    with pytest.raises(ValueError, match="threshold must lie in"):
        Ucm(str(tmp_path), threshold="low")


def test_a_changed_file_is_read_again(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"ucm2": contours()})
    before = Ucm(str(tmp_path), threshold=0.1)("a", rescale)
    scipy.io.savemat(tmp_path / "a.mat", {"ucm2": contours() * 0})
    after = Ucm(str(tmp_path), threshold=0.1)("a", rescale)
    assert same_partition(before, torch.tensor([[0, 1, 2]] * 2))
    assert int(after.max()) == 0


@pytest.mark.parametrize("threshold", [float("inf"), -float("inf"), float("nan")])
def test_a_threshold_is_a_number_that_a_key_can_hold(tmp_path, threshold):
    with pytest.raises(ValueError, match="threshold must lie in"):
        Ucm(str(tmp_path), threshold=threshold)
