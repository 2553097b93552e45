import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from diffcut_bench.refinement import merge_speckles


def pieces_of(labels: torch.Tensor) -> list[int]:
    """Pixels of each connected piece of each segment."""
    found = []
    for segment in labels.unique().tolist():
        numbered, count = ndimage.label(labels.numpy() == segment)
        found += np.bincount(numbered.ravel())[1 : count + 1].tolist()
    return found


@st.composite
def scenes(draw):
    """A batch of label maps and features of any resolution, with many ties."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    images, height, width = draw(st.integers(1, 3)), draw(st.integers(1, 14)), draw(st.integers(1, 14))
    labels = torch.randint(0, draw(st.integers(1, 6)), (images, height, width), generator=generator)
    rows, cols = draw(st.integers(1, height)), draw(st.integers(1, width))
    features = torch.randint(0, 3, (images, 2, rows, cols), generator=generator).float()
    return labels, features, generator


@given(scenes(), st.floats(0, 0.99))
def test_no_piece_is_smaller_than_the_limit(scene, smallest):
    labels, features, _ = scene
    for before, after in zip(labels, merge_speckles(labels, features, smallest), strict=True):
        assert min(pieces_of(after)) >= smallest * after.numel()
        assert set(after.unique().tolist()) <= set(before.unique().tolist())


@given(scenes(), st.floats(0, 0.5))
def test_numbers_of_segments_change_nothing_else(scene, smallest):
    labels, features, generator = scene
    other = torch.randperm(9, generator=generator)
    assert torch.equal(
        merge_speckles(other[labels], features, smallest), other[merge_speckles(labels, features, smallest)]
    )


@given(scenes(), st.floats(0, 0.5))
def test_a_batch_is_its_images(scene, smallest):
    labels, features, _ = scene
    alone = [merge_speckles(labels[i : i + 1], features[i : i + 1], smallest) for i in range(len(labels))]
    assert torch.equal(merge_speckles(labels, features, smallest), torch.cat(alone))


@given(scenes(), st.floats(0, 0.5))
def test_large_pieces_stay_as_they_are(scene, smallest):
    labels, features, _ = scene
    for before, after in zip(labels, merge_speckles(labels, features, smallest), strict=True):
        for segment in before.unique().tolist():
            numbered, count = ndimage.label(before.numpy() == segment)
            for piece in range(1, count + 1):
                inside = torch.from_numpy(numbered == piece)
                # Never taken apart; what is not small keeps its segment.
                assert len(after[inside].unique()) == 1
                if inside.sum() >= smallest * before.numel():
                    assert (after[inside] == segment).all()


@given(scenes())
def test_nothing_changes_at_0(scene):
    labels, features, _ = scene
    assert merge_speckles(labels, features, 0) is labels


def test_a_piece_goes_to_the_most_similar_of_its_neighbours():
    labels = torch.zeros(1, 6, 12, dtype=torch.int64)
    labels[..., 6:] = 1
    labels[:, 2:4, 5:7] = 2  # between the two, and alike with the right one
    features = torch.zeros(1, 1, 6, 12)
    features[..., 6:] = 1.0
    features[:, :, 2:4, 5:7] = 0.8
    merged = merge_speckles(labels, features, 0.1)
    assert torch.equal(merged, torch.where(labels == 2, 1, labels))
    assert torch.equal(merge_speckles(labels, 1 - features, 0.1), merged)
    features[:, :, 2:4, 5:7] = 0.2
    assert torch.equal(merge_speckles(labels, features, 0.1), torch.where(labels == 2, 0, labels))


def test_a_segment_keeps_its_large_piece_and_loses_the_small_one():
    labels = torch.zeros(1, 8, 8, dtype=torch.int64)
    labels[:, :, 5:] = 1
    labels[:, 1, 1] = 1
    merged = merge_speckles(labels, torch.zeros(1, 1, 1, 1), 2 / 64)
    assert merged[0, 1, 1] == 0
    assert torch.equal(merged[..., 5:], labels[..., 5:])


def test_pieces_that_a_speckle_held_apart_count_as_one():
    """Two pixels on either side of a speckle of one pixel: five in a row, which the limit of five lets stay."""
    labels = torch.zeros(1, 5, 9, dtype=torch.int64)
    labels[0, 2, 2:7] = 1
    labels[0, 2, 4] = 2
    features = torch.where(labels > 0, 1.0, 0.0)[:, None]
    assert torch.equal(merge_speckles(labels, features, 5 / 45), labels.clamp_max(1))


def test_corners_do_not_hold_together():
    labels = torch.zeros(1, 6, 6, dtype=torch.int64)
    labels[0, 2, 2] = labels[0, 3, 3] = 1
    assert merge_speckles(labels, torch.zeros(1, 1, 1, 1), 2 / 36).max() == 0


@pytest.mark.parametrize("smallest", [-0.1, 1, float("nan")])
def test_refuses_what_is_no_fraction(smallest):
    with pytest.raises(ValueError, match="fraction"):
        merge_speckles(torch.zeros(1, 2, 2, dtype=torch.int64), torch.zeros(1, 1, 1, 1), smallest)
