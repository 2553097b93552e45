import numpy as np
import torch
from PIL import Image

from diffcut_bench.datasets import sample
from diffcut_bench.evaluation import match_image
from diffcut_bench.reporting import draw_outcome, overlay, palette, pictures
from diffcut_bench.scoring.framing import Example, Framing
from diffcut_bench.scoring.pipeline import Outcome


def test_palette_colours_differ():
    colours = palette(60)
    assert len(np.unique(colours, axis=0)) == 60
    assert np.abs(np.diff(colours.astype(int), axis=0)).sum(axis=1).min() > 60


def test_an_overlay_is_drawn_in_parts_that_leave_no_trace(monkeypatch):
    generator = np.random.default_rng(0)
    labels = np.kron(generator.integers(0, 5, (6, 7)), np.ones((7, 8), dtype=np.int64))
    image = generator.integers(0, 256, (*labels.shape, 3), dtype=np.uint8)
    whole = overlay(image, labels)
    for rows in (1, 5, 14, 41):
        monkeypatch.setattr(pictures, "_ROWS", rows)
        assert np.array_equal(overlay(image, labels), whole)


def test_overlay_marks_boundaries_white_and_keeps_the_picture_at_zero_opacity():
    image = np.full((8, 8, 3), 100, dtype=np.uint8)
    labels = np.zeros((8, 8), dtype=np.int64)
    labels[:, 4:] = 1
    drawn = overlay(image, labels, opacity=0)
    assert (drawn[:, 3:5] == 255).all()
    assert (drawn[:, :3] == 100).all()


def test_outcome_shows_matched_segments_in_the_colour_of_their_class(tmp_path):
    dataset = sample()
    label = torch.zeros(32, 32, dtype=torch.long)
    label[:, 16:] = 3
    framing = Framing("center", 64, 32, "ignore", 16)
    example = Example(0, "x", framing, (64, 64), label, torch.zeros(3, 64, 64, dtype=torch.uint8))
    prediction = (label > 0).long() * 5
    outcome = Outcome(example, prediction, 2, match_image(prediction, label, dataset.num_classes), 1024)
    draw_outcome(outcome, dataset, tmp_path / "x.png")
    pixels = np.array(Image.open(tmp_path / "x.png")).astype(int)
    height = pixels.shape[0]
    assert pixels.shape[1] > 3 * 384
    # Same colours in the label's panel and in the prediction's.
    for column in (100, 300):
        assert np.array_equal(pixels[height // 2, 384 + 16 + column], pixels[height // 2, 2 * 384 + 24 + column])
