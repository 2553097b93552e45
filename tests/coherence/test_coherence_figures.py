import io

import numpy as np
from PIL import Image

from diffcut_bench.coherence.figures import Curve, Picture, draw_heatmaps, draw_roc
from diffcut_bench.reporting import encode_figure

LINE = np.array([[0, 0], [0.2, 0.7], [1, 1]])


def test_roc_figure_names_every_backbone_and_its_auc():
    figure = draw_roc(
        [Curve("first", LINE, 0.75, (0.7, 0.8)), Curve("second", LINE**2, 0.6, (0.5, 0.7))], "t", ["n" * 5]
    )
    axes = figure.axes[0]
    assert axes.get_aspect() == 1
    assert axes.get_xlabel().startswith("false positive")
    assert axes.get_ylabel().startswith("true positive")
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts[0].startswith("first: 0.750  [0.700, 0.800]")
    assert texts[1].startswith("second: 0.600")
    assert "chance" in texts[2]
    assert np.array_equal(axes.lines[0].get_xydata(), LINE)


def test_names_are_no_formulas_and_an_untold_interval_is_left_out():
    evil = r"a$\frac$b$"
    figure = draw_roc([Curve(evil, LINE, 0.75, None)], evil, [evil])
    figure.draw_without_rendering()  # a formula that can't be read raises here
    assert figure.axes[0].get_legend().get_texts()[0].get_text() == f"{evil}: 0.750"
    pixels = Picture(evil, np.zeros((8, 8, 3), np.float32), np.zeros((2, 2), bool))
    maps = [(evil, np.zeros((2, 2), np.float32), np.ones((2, 2), np.float32))]
    draw_heatmaps(maps, pixels, pixels, (0, 0), evil).draw_without_rendering()


def test_same_figure_same_bytes():
    for kind in ("png", "svg"):
        first, second = (encode_figure(draw_roc([Curve("a", LINE, 0.7, (0, 1))], "t", ["n"]), kind) for _ in range(2))
        assert first == second
    assert b"<svg" in first


def test_heat_maps_share_one_scale():
    generator = np.random.default_rng(0)

    def picture(rows: int, cols: int) -> Picture:
        return Picture("x", generator.random((rows * 8, cols * 8, 3), np.float32), generator.random((rows, cols)) > 0.5)

    maps = [
        (
            name,
            generator.uniform(-low, 1, (6, 4)).astype(np.float32),
            generator.uniform(0, 1, (3, 5)).astype(np.float32),
        )
        for name, low in (("one", 0.2), ("two", 0.9))
    ]
    figure = draw_heatmaps(maps, picture(6, 4), picture(3, 5), (5, 3), "cat")
    drawn = [axes.images[0] for axes in figure.axes[:8]]
    assert {image.get_clim() for image in drawn if image.get_array().ndim == 2} == {(maps[1][1].min(), 1)}
    assert [axes.get_ylabel() for axes in figure.axes[:8:4]] == ["one", "two"]
    assert "cat" in figure.axes[-1].get_ylabel()
    marks = [axes.lines[0].get_xydata().tolist() for axes in figure.axes[:8] if axes.lines]
    assert marks == [[[3.5, 5.5]]] * 4
    assert Image.open(io.BytesIO(encode_figure(figure, "png"))).width > 800
