import pytest
import torch
from conftest import shapes_overrides

from diffcut_bench.config import load_config
from diffcut_bench.scoring.passes import run_cell
from diffcut_bench.segmenters import OneSegment, UniformGrid, grid_of


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


def test_a_grid_of_any_number_of_segments():
    assert torch.equal(grid_of((128, 128), 16), UniformGrid(4, 4)((128, 128)))
    assert grid_of((2, 6), 3).tolist() == [[0, 0, 1, 1, 2, 2]] * 2
    for size in ((128, 128), (90, 120), (7, 5), (1, 9), (9, 1), (3, 400)):
        for segments in (*range(1, 70), 1000):
            ids = grid_of(size, segments)
            sizes = ids.flatten().bincount()
            assert len(sizes) == min(segments, size[0] * size[1]) and sizes.min() > 0, (size, segments)
            columns = [len(row.unique()) for row in ids]
            assert max(columns) - min(columns) <= 1, "rows differ by one segment at most"
            assert ids[:, 0].tolist() == sorted(ids[:, 0].tolist()), "in raster order"
    with pytest.raises(ValueError, match="segments"):
        grid_of((4, 4), 0)


def test_segments_of_a_grid_are_as_square_as_they_can_be():
    for segments, rows in ((1, 1), (3, 1), (8, 2), (18, 3), (50, 5)):
        ids = grid_of((100, 200), segments)
        assert ids[:, 0].unique().numel() == rows
