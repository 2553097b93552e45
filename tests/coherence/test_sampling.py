import numpy as np
import pytest
import torch

from diffcut_bench.coherence import sampling as room
from diffcut_bench.coherence.sampling import (
    PatchGrid,
    SamplingOptions,
    draw_pairs,
    draw_patches,
    grid_features,
    grid_shape,
    label_patches,
    make_plan,
    usable_patches,
)
from diffcut_bench.errors import UserError

OPTIONS = SamplingOptions()


def plain(labels: np.ndarray) -> PatchGrid:
    return PatchGrid(labels, np.ones(labels.shape))


def test_a_patch_has_the_class_of_most_of_its_pixels():
    label = np.zeros((4, 6), np.int64)
    label[:2, 2:4] = [[1, 1], [1, 0]]
    label[2:, :2] = [[-1, -1], [-1, 2]]  # mostly void
    label[2:, 2:4] = [[-1, -1], [2, 2]]  # as much void as class 2
    label[2:, 4:] = [[2, 2], [1, 1]]  # as much of 2 as of 1
    grid = label_patches(label, 3, (2, 3))
    assert grid.labels.tolist() == [[0, 1, 0], [-1, 2, 1]]
    assert grid.purity.tolist() == [[1, 0.75, 1], [0.75, 0.5, 0.5]]


def test_every_pixel_is_in_one_patch_where_sizes_do_not_divide():
    label = np.random.default_rng(0).integers(-1, 4, (23, 31))
    grid = label_patches(label, 4, (5, 7))
    for row in range(5):
        for col in range(7):
            # The pixels whose upper left corner lies in the patch.
            rows = [y for y in range(23) if row <= y * 5 / 23 < row + 1]
            cols = [x for x in range(31) if col <= x * 7 / 31 < col + 1]
            values, counts = np.unique(label[np.ix_(rows, cols)], return_counts=True)
            assert grid.purity[row, col] == counts.max() / counts.sum()
            assert grid.labels[row, col] in values[counts == counts.max()]


def test_a_patch_finer_than_the_label_map_is_void():
    assert (label_patches(np.zeros((2, 2), np.int64), 1, (4, 4)).labels == -1).sum() == 12


def test_the_grid_follows_the_aspect_ratio():
    assert grid_shape(1024, 1024, 32) == (32, 32)
    assert grid_shape(512, 1024, 32) == (16, 32)
    assert grid_shape(3000, 1, 32) == (32, 1)


def test_mixed_and_background_say_which_patches_are_used():
    grid = PatchGrid(np.array([[0, 1, 1, -1]]), np.array([[1.0, 1.0, 0.6, 1.0]]))

    def used(**options: object) -> list[bool]:
        return usable_patches(grid, 0, SamplingOptions(**options))[0].tolist()

    assert used() == [False, True, False, False]
    assert used(background="keep") == [True, True, False, False]
    assert used(mixed="majority") == [False, True, True, False]
    assert used(purity=0.6) == [False, True, True, False]
    assert usable_patches(grid, None, OPTIONS)[0].tolist() == [True, True, False, False]


def test_balanced_takes_as_many_of_each_class_as_there_are():
    labels = np.array([0] * 90 + [1] * 7 + [2] * 3)
    usable = np.ones(100, dtype=np.bool_)

    def counts(sampling: str, patches: int) -> list[int]:
        options = SamplingOptions(sampling=sampling, patches=patches)
        return np.bincount(labels[draw_patches(labels, usable, "x", options)], minlength=3).tolist()

    assert counts("balanced", 9) == [3, 3, 3]
    assert counts("balanced", 30) == [20, 7, 3]
    assert counts("balanced", 200) == [90, 7, 3]
    shares = np.mean([draw_patches(labels, usable, str(i), SamplingOptions(patches=10)) < 90 for i in range(200)])
    assert shares == pytest.approx(0.9, abs=0.02)  # uniform: as the patches are


def test_a_draw_of_patches_depends_on_id_and_seed_alone():
    labels, usable = np.zeros(400, np.int64), np.ones(400, dtype=np.bool_)
    first = draw_patches(labels, usable, "a", OPTIONS)
    assert np.array_equal(first, draw_patches(labels, usable, "a", OPTIONS))
    assert (np.diff(first) > 0).all()
    assert not np.array_equal(first, draw_patches(labels, usable, "b", OPTIONS))
    assert not np.array_equal(first, draw_patches(labels, usable, "a", SamplingOptions(seed=1)))


@pytest.mark.parametrize("count", [2, 3, 7])
def test_all_pairs_are_drawn_where_there_are_few(count):
    ids = [f"i{number}" for number in range(count)]
    assert draw_pairs(ids, OPTIONS) == [(a, b) for a in ids for b in ids if a < b]
    assert draw_pairs(ids, SamplingOptions(pairs="within")) == [(a, a) for a in ids]
    both = draw_pairs(ids, SamplingOptions(pairs="both"))
    assert both == draw_pairs(ids, OPTIONS) + [(a, a) for a in ids]


def test_some_pairs_are_drawn_where_there_are_many():
    ids = [f"{number:04}" for number in range(3000)]
    options = SamplingOptions(image_pairs=500)
    pairs = draw_pairs(ids, options)
    assert len(set(pairs)) == 500
    assert all(a < b for a, b in pairs)
    assert pairs == draw_pairs(ids[::-1], options)
    # Uniform over the triangle of pairs: the lower id lies a third of the way on average.
    assert np.mean([int(a) for a, _ in pairs]) == pytest.approx(1000, abs=100)
    assert len(draw_pairs(ids, SamplingOptions(pairs="within", image_pairs=20))) == 20


def test_a_plan_is_of_the_images_that_can_be_compared():
    grids = {"c": plain(np.array([[1, 2]])), "a": plain(np.array([[2, 2]])), "bare": plain(np.array([[0, -1]]))}
    pairs = [("a", "bare"), ("a", "c"), ("a", "missing"), ("c", "c")]
    plan = make_plan(grids, pairs, 0, OPTIONS)
    assert plan.ids == ("a", "c")
    assert plan.pairs == ((0, 1), (1, 1))
    assert plan.same.tolist() == [False, True, False, True, False]
    assert plan.unit.tolist() == [0, 0, 0, 0, 1]


@pytest.mark.parametrize(("labels", "missing"), [([[1, 2]], "the same class"), ([[1, 1]], "different classes")])
def test_one_kind_of_pair_alone_is_an_error(labels, missing):
    grids = {"a": plain(np.array([[1, 1]])), "b": plain(np.array(labels) + (missing == "the same class"))}
    with pytest.raises(UserError, match=f"no pair of patches of {missing}"):
        make_plan(grids, [("a", "b")], None, OPTIONS)


def test_no_pair_at_all_is_an_error():
    with pytest.raises(UserError, match="among 0 pairs"):
        make_plan({}, [("a", "b")], None, OPTIONS)


def test_more_pairs_than_memory_holds_are_an_error(monkeypatch):
    monkeypatch.setattr(room, "MAX_PATCH_PAIRS", 3)
    grids = {name: plain(np.array([[1, 2]])) for name in "ab"}
    with pytest.raises(UserError, match="4 patch pairs are more than 3"):
        make_plan(grids, [("a", "b")], None, OPTIONS)


def test_pairs_of_images_need_two():
    for pairs in ("across", "both"):
        with pytest.raises(UserError, match="two images, not 1"):
            draw_pairs(["a"], SamplingOptions(pairs=pairs))
    assert draw_pairs(["a"], SamplingOptions(pairs="within")) == [("a", "a")]


def test_all_options_out_of_range_are_listed():
    with pytest.raises(UserError) as caught:
        SamplingOptions(pairs="some", sampling="", patches=1, purity=0.0, grid=1, image_pairs=0)
    for name in ("pairs", "sampling", "patches", "purity", "grid", "image_pairs"):
        assert f"{name} must be" in caught.value.what


def test_features_on_the_common_grid():
    features = torch.arange(16.0).reshape(1, 4, 4)
    assert torch.equal(grid_features(features, (4, 4)), features)
    assert grid_features(features, (2, 2)).tolist() == [[[2.5, 4.5], [10.5, 12.5]]]  # means of four
    assert torch.equal(grid_features(features, (8, 8))[:, ::2, 1::2], features)  # finer: shared
