"""A segment's prototype is the mean of the unit features under its pixels, whatever its number and its company."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from diffcut_bench.linking import segment_prototypes


def plain(features, segments):
    """Pixel by pixel, of one image."""
    (rows, cols), (height, width) = features.shape[1:], segments.shape
    unit = normalize(features.double(), dim=0)
    found = {}
    for number in segments.unique().tolist():
        inside = (segments == number).nonzero().tolist()
        found[number] = sum(unit[:, y * rows // height, x * cols // width] for y, x in inside) / len(inside)
    return normalize(torch.stack([found[number] for number in sorted(found)]), dim=1)


def there(segments, ids):
    """Which ids occur in each image."""
    return torch.stack([torch.isin(torch.arange(ids), image) for image in segments])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 7), st.integers(1, 7), st.integers(1, 19), st.integers(1, 19))
def test_they_are_the_plain_means(seed, rows, cols, height, width):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(3, 5, rows, cols, generator=generator)
    segments = torch.randint(6, (3, height, width), generator=generator)
    found = segment_prototypes(features, segments, there(segments, 6))
    for image, own in enumerate(found):
        assert own.dtype == torch.float16
        torch.testing.assert_close(own.double(), plain(features[image], segments[image]), atol=1e-3, rtol=0)


def test_neither_numbers_nor_company_nor_scale_change_a_bit():
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(4, 96, 8, 8, generator=generator)
    segments = torch.randint(9, (4, 50, 40), generator=generator)
    together = segment_prototypes(features, segments, there(segments, 9))
    renamed = torch.randperm(300, generator=generator)[:9]
    for image in range(4):
        own, ids = features[image : image + 1], segments[image : image + 1]
        (alone,) = segment_prototypes(own, ids, there(ids, 9))
        assert torch.equal(alone, together[image])
        (scaled,) = segment_prototypes(own * 1024, ids, there(ids, 9))
        assert torch.equal(scaled, alone)
        (permuted,) = segment_prototypes(own, renamed[ids], there(renamed[ids], 300))
        assert torch.equal(permuted, alone[renamed.argsort()])


def test_those_that_are_not_wanted_are_left_out():
    features = torch.eye(3)[None, :, None]  # three patches side by side
    segments = torch.tensor([[[0, 1, 2]]])
    (found,) = segment_prototypes(features, segments, torch.tensor([[True, False, True]]))
    assert found.tolist() == [[1, 0, 0], [0, 0, 1]]
    (none,) = segment_prototypes(features, segments, torch.zeros(1, 3, dtype=torch.bool))
    assert none.shape == (0, 3)


def test_zero_features_stay_zero_and_what_is_not_finite_is_refused():
    segments = torch.zeros(1, 2, 2, dtype=torch.long)
    (zero,) = segment_prototypes(torch.zeros(1, 3, 2, 2), segments, torch.tensor([[True]]))
    assert not zero.any()
    for odd in (np.nan, np.inf):
        features = torch.ones(1, 3, 2, 2)
        features[0, 1, 1, 1] = odd
        with pytest.raises(ValueError, match="not finite"):
            segment_prototypes(features, segments, torch.tensor([[True]]))
