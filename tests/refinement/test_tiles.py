import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch.nn.functional import interpolate

from diffcut_bench.refinement import PamrRefiner, enlarge_in_tiles, refine_labels


def scene(height: int, width: int, segments: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels in large blobs, and a picture of noise whose colours follow them roughly."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(1, segments, 4, 5, generator=generator)
    labels = interpolate(noise, (height // 5, width // 5), mode="bicubic")[0].argmax(dim=0)
    large = interpolate(noise, (height, width), mode="bicubic")[0].argmax(dim=0)
    colours = torch.randint(0, 200, (segments, 3), generator=generator)[large].permute(2, 0, 1)
    grain = torch.randint(0, 50, (3, height, width), generator=generator)
    return labels, (colours + grain).to(torch.uint8)


@pytest.mark.parametrize("tile", [64, 100, 1000])
@pytest.mark.parametrize("settings", [(3, (1, 2, 4)), (10, (1, 2))])
def test_tiles_leave_no_trace(tile, settings):
    labels, image = scene(240, 300, 5)
    refiner = PamrRefiner(*settings)
    smooth = enlarge_in_tiles(labels, image)
    whole = refine_labels((image / 255)[None], smooth[None].long(), *settings)[0]
    found = enlarge_in_tiles(labels, image, refiner, tile)
    assert torch.equal(found.long(), whole)
    assert not torch.equal(found, smooth)


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(9, 40), st.integers(9, 40), st.integers(1, 15), st.data())
def test_enlarging_takes_the_best_share_of_a_spline(rows, cols, height, width, tile, data):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    labels = torch.randint(0, 5, (rows, cols), generator=generator)
    found = enlarge_in_tiles(labels, torch.zeros(3, height, width, dtype=torch.uint8), tile=tile).long()
    places = [(np.arange(far) + 0.5) * near / far - 0.5 for near, far in ((rows, height), (cols, width))]
    where = np.meshgrid(*places, indexing="ij")
    shares = torch.from_numpy(
        np.stack(
            [
                ndimage.map_coordinates(
                    (labels == one).double().numpy(), where, order=2, prefilter=False, mode="nearest"
                )
                for one in range(5)
            ]
        )
    )
    assert torch.allclose(shares.gather(0, found[None])[0], shares.amax(dim=0), atol=2e-4)  # whichever of equal ones


def test_numbers_of_segments_change_nothing_else():
    labels, image = scene(100, 130, 2)
    refiner = PamrRefiner(3, (1, 2))
    assert torch.equal(
        1 - enlarge_in_tiles(1 - labels, image, refiner, 64), enlarge_in_tiles(labels, image, refiner, 64)
    )


def test_ids_are_those_of_the_small_map():
    labels, image = scene(100, 130, 3)
    odd = torch.tensor([70_000, 3, 11])
    found = enlarge_in_tiles(odd[labels], image, PamrRefiner(3, (1, 2)), 64)
    assert set(found.unique().tolist()) == {3, 11, 70_000}


def test_far_from_borders_nothing_is_refined():
    asked = []

    class Watched(PamrRefiner):
        def __call__(self, image, labels):
            asked.append(labels.shape[1:])
            return super().__call__(image, labels)

    labels = torch.zeros(30, 40, dtype=torch.int64)
    labels[:, 20:] = 1
    image = torch.zeros(3, 300, 400, dtype=torch.uint8)
    image[..., 203:] = 255
    found = enlarge_in_tiles(labels, image, Watched(5, (1, 2)), 50)
    border = int((found[0] == 0).sum())
    assert torch.equal(found, (torch.arange(400) >= border).int().expand(300, 400))
    assert 200 < border <= 203
    assert len(asked) == 12  # of 48 tiles
    assert max(max(shape) for shape in asked) <= 50 + 2 * 11


def test_a_border_has_no_stairs():
    """A slanting one, made eight times as large, moves on by a pixel or two in each row, and never by eight."""
    labels = (torch.arange(40)[:, None] + torch.arange(60) < 50).long()
    found = enlarge_in_tiles(labels, torch.zeros(3, 320, 480, dtype=torch.uint8))
    steps = found.sum(dim=1).diff()[16:-16].tolist()
    assert set(steps) <= {-1, -2, 0} and sum(steps) == pytest.approx(-len(steps), abs=2)
