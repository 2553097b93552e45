import numpy as np
import pytest
import torch

from diffcut_bench.coherence.heatmaps import Mark, choose_mark, deepest_patch, mark_between, similarity_map
from diffcut_bench.coherence.sampling import PatchGrid, SamplingOptions
from diffcut_bench.errors import UserError

OPTIONS = SamplingOptions()


def grid(*boxes: tuple[int, int, int, int, int]) -> PatchGrid:
    """A 10×10 grid of class 0 with boxes (class, top, left, height, width)."""
    labels = np.zeros((10, 10), np.int64)
    for name, top, left, height, width in boxes:
        labels[top : top + height, left : left + width] = name
    return PatchGrid(labels, np.ones((10, 10)))


GRIDS = {
    "a": grid((1, 0, 0, 5, 5), (2, 7, 7, 1, 1)),
    "b": grid((2, 0, 0, 9, 9)),
    "c": grid((1, 3, 3, 4, 5), (3, 8, 0, 2, 10)),
}


def test_a_class_of_two_images_is_marked_deep_inside():
    assert choose_mark(GRIDS, 0, OPTIONS) == Mark("c", "a", 4, 4, 1)
    assert choose_mark({"b": GRIDS["b"], "c": GRIDS["c"]}, 0, OPTIONS) is None
    kept = choose_mark({"b": GRIDS["b"], "c": GRIDS["c"]}, 0, SamplingOptions(background="keep"))
    assert kept is not None
    assert kept.label == 0


def test_the_users_images_and_patch():
    assert mark_between("b", "a", GRIDS, 0, OPTIONS, None) == Mark("b", "a", 4, 4, 2)
    assert mark_between("a", "b", GRIDS, 0, OPTIONS, None) == Mark("a", "b", 7, 7, 2)
    assert mark_between("b", "c", GRIDS, 0, OPTIONS, (9, 0)) == Mark("b", "c", 9, 0, 0)
    with pytest.raises(UserError, match="share no class"):
        mark_between("b", "c", GRIDS, 0, OPTIONS, None)
    with pytest.raises(UserError, match="outside the grid of 10×10") as caught:
        mark_between("a", "b", GRIDS, 0, OPTIONS, (0, 10))
    assert "from 0 to 9" in caught.value.hint


def test_the_deepest_patch_is_in_the_middle():
    region = np.zeros((9, 9), dtype=np.bool_)
    region[2:7, 2:7] = True
    assert deepest_patch(region) == (4, 4)
    assert deepest_patch(np.ones((5, 5), dtype=np.bool_)) == (2, 2)


def test_a_map_is_one_at_the_patch_itself():
    features = torch.randn(8, 5, 6, generator=torch.Generator().manual_seed(0))
    values = similarity_map(features[:, 3, 2], features)
    assert values.shape == (5, 6)
    assert values[3, 2] == values.max() == 1
    assert values[0, 5] == pytest.approx(
        torch.cosine_similarity(features[:, 3, 2], features[:, 0, 5], dim=0).item(), abs=2e-6
    )
