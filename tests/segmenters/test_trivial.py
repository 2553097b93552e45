import pytest
import torch
from conftest import shapes_overrides

from diffcut_bench.config import load_config
from diffcut_bench.scoring.passes import run_cell
from diffcut_bench.segmenters import OneSegment, UniformGrid


def test_rectangles_are_of_equal_size_in_raster_order():
    ids = UniformGrid(2, 3)((4, 6))
    row = [0, 0, 1, 1, 2, 2]
    assert ids.tolist() == [row, row, [i + 3 for i in row], [i + 3 for i in row]]
    for rows, cols in ((4, 4), (3, 7), (5, 2)):
        sizes = UniformGrid(rows, cols)((33, 47)).flatten().bincount()
        assert len(sizes) == rows * cols
        assert sizes.min() >= (33 // rows) * (47 // cols)


def test_no_more_rectangles_than_pixels():
    ids = UniformGrid(9, 2)((3, 5))
    assert torch.equal(ids.unique(), torch.arange(6))


def test_one_segment_is_the_picture():
    ids = OneSegment()((5, 7))
    assert ids.shape == (5, 7) and ids.dtype == torch.long and not ids.any()


def test_floors_lie_in_order(shapes, tmp_path):
    """Every picture alike, so with one segment one class is all that can be hit: the ground."""
    base = [o for o in shapes_overrides(shapes, tmp_path / "out") if not o.startswith("backbone")]
    base += ["refiner=none", "protocol.background_rule=one_to_one"]
    one = run_cell(load_config([*base, "segmenter=one_segment"])).result
    grid = run_cell(load_config([*base, "segmenter=grid", "segmenter.rows=3", "segmenter.cols=5"])).result
    assert (one.segments_per_image.max, grid.segments_per_image.min) == (1, 15)
    scores = list(one.metrics.iou_per_class.values())
    assert scores[0] == one.metrics.pixel_accuracy > 0.5 and scores[1:] == [0, 0]
    assert min(grid.metrics.iou_per_class.values()) > 0


def test_check_their_arguments_at_once():
    for wrong in ({"rows": 0}, {"cols": 2.5}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            UniformGrid(**wrong)
