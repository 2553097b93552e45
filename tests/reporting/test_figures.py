import io
import itertools
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import DATA
from matplotlib.collections import LineCollection, PolyCollection, QuadMesh
from matplotlib.figure import Figure
from PIL import Image

from diffcut_bench.evaluation import FEWEST_IMAGES, known_metrics
from diffcut_bench.reporting import encode_figure, sweep_figures
from diffcut_bench.reporting.figures import (
    Curve,
    Panel,
    draw_class_bars,
    draw_curves,
    draw_heat_map,
    draw_panels,
    inline_svg,
)
from diffcut_bench.store import Reference, Result, Score

NAN = float("nan")
MIOU = known_metrics()["miou"]
RESULT = Result.from_json((DATA / "result_v1_before_identity.json").read_text())


def curves() -> Figure:
    first = Curve("alpha=5", (0.3, 0.5), (34, 49), (24, 43), (48, 57))
    return draw_curves([first, Curve("alpha=10", (0.3, 0.5), (45, 34))], "tau", "mIoU (%)", [("AutoSC", 25.3)])


def heat_map() -> Figure:
    values = np.array([[34.9, NAN], [44.9, 27.6], [40.0, 1.0]])
    return draw_heat_map(values, ["5", "10", "20"], ["0.3", "0.6"], "alpha", "tau", "mIoU (%)")


def bars() -> Figure:
    return draw_class_bars({"cat": 0.2, "dog": None, "cow": 0.7}, {"cat": (0.1, 0.3), "dog": None}, MIOU)


def cell(**settings: float | str) -> Result:
    """A result with other settings of its segmenter; ``miou`` is its score."""
    scores = {**RESULT.scores, "miou": replace(RESULT.scores["miou"], value=settings.pop("miou", RESULT.metrics.miou))}
    return replace(RESULT, scores=scores, config={**RESULT.config, "segmenter": RESULT.config["segmenter"] | settings})


@pytest.mark.parametrize("draw", [curves, heat_map, bars])
def test_same_figure_same_bytes(draw):
    once, twice = draw(), draw()
    for kind in ("png", "svg"):
        assert encode_figure(once, kind) == encode_figure(twice, kind) == encode_figure(once, kind)
    assert inline_svg(once, "a", "t") == inline_svg(twice, "a", "t")
    assert Image.open(io.BytesIO(encode_figure(once, "png"))).width == 896


@pytest.mark.parametrize("draw", [curves, heat_map, bars])
def test_a_figure_in_a_page_has_ids_of_its_own_and_the_page_s_colour(draw):
    text = inline_svg(draw(), "f1", "all & <more>")
    element = ElementTree.fromstring(text)
    assert element[0].tag == "title"
    assert element[0].text == "all & <more>"
    ids = [each.get("id") for each in element.iter() if each.get("id")]
    assert len(set(ids)) == len(ids)
    assert all(name.startswith("f1-") for name in ids)
    used = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)|labelledby="([^"]+)"', text)
    assert used
    assert {name for names in used for name in names if name} <= set(ids)
    assert "currentColor" in text
    assert "#010203" not in text
    assert not re.search(r"<\?xml|<!DOCTYPE|http|<style|font-family", text)
    assert element.get("width") == "100%"
    assert element.get("height") is None


def test_labels_are_text_and_no_markup_or_formula():
    label = 'a <b> & $x$ url(#1) id="q" #010203'
    figure = draw_curves([Curve(label, (1.0,), (2.0,))], label, label)
    texts = [each.text for each in ElementTree.fromstring(inline_svg(figure, "s", "t")).iter("text")]
    assert texts.count(label) == 3


def test_bands_and_references_are_drawn():
    figure = curves()
    axes = figure.axes[0]
    (band,) = [each for each in axes.collections if isinstance(each, PolyCollection)]
    assert band.get_datalim(axes.transData).extents.tolist() == pytest.approx([0.3, 24, 0.5, 57])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["alpha=5", "alpha=10", "AutoSC: 25.3"]
    assert axes.lines[-1].get_ydata() == [25.3, 25.3]


def test_a_curve_of_one_point_has_whiskers():
    axes = draw_curves([Curve("", (0.4,), (40,), (32,), (48,))], "tau", "mIoU (%)").axes[0]
    (whisker,) = axes.collections
    assert isinstance(whisker, LineCollection)
    assert whisker.get_segments()[0].tolist() == [[0.4, 32], [0.4, 48]]
    assert axes.figure.legends == []


def test_no_curve_at_all_is_an_empty_figure():
    assert encode_figure(draw_curves([], "tau", "mIoU (%)"), "png")


def test_an_unknown_cell_is_blank():
    axes = heat_map().axes[0]
    positions = {text.get_text(): text.get_position() for text in axes.texts}
    assert positions == {
        "34.9": (0.5, 0.5),
        "44.9": (0.5, 1.5),
        "27.6": (1.5, 1.5),
        "40.0": (0.5, 2.5),
        "1.0": (1.5, 2.5),
    }
    (mesh,) = [each for each in axes.collections if isinstance(each, QuadMesh)]
    assert np.ma.getmaskarray(mesh.get_array()).tolist() == [[False, True], [False, False], [False, False]]
    assert axes.get_ylim() == (3, 0), "the first row is on top"
    for value in (NAN, 3.0):
        assert encode_figure(draw_heat_map(np.full((1, 1), value), ["a"], ["b"], "", "", ""), "png")


def test_bars_are_sorted_and_absent_classes_left_out():
    axes = bars().axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cow", "cat"]
    assert [bar.get_width() for bar in axes.patches] == [70, 20]
    (whiskers,) = axes.collections
    assert [segment.tolist() for segment in whiskers.get_segments() if len(segment)] == [[[10, 1], [30, 1]]]
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the highest is on top"


@pytest.mark.parametrize("classes", [1, 21, 150])
def test_bars_have_room_for_every_class(classes):
    names = [f"class {n}" for n in range(classes)]
    figure = draw_class_bars(dict.fromkeys(names, 0.5), dict.fromkeys(names, (0.4, 0.6)), MIOU)
    figure.draw_without_rendering()
    labels = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert len(labels) == classes
    assert all(upper.y0 >= lower.y1 for upper, lower in itertools.pairwise(labels)), "labels overlap"


def test_the_number_with_most_values_is_the_abscissa():
    results = [cell(tau=tau, alpha=alpha, miou=tau / alpha) for alpha in (10, 2) for tau in (0.5, 0.3, 0.4)]
    drawn = sweep_figures(results)
    assert [figure.name for figure in drawn] == ["curves", "heatmap"]
    axes = drawn[0].figure.axes[0]
    assert axes.get_xlabel() == "tau"
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert list(lines) == ["alpha=2", "alpha=10"]
    assert lines["alpha=2"] == [[0.3, pytest.approx(15)], [0.4, pytest.approx(20)], [0.5, pytest.approx(25)]]
    grid = drawn[1].figure.axes[0]
    assert [text.get_text() for text in grid.texts] == ["15.0", "20.0", "25.0", "3.0", "4.0", "5.0"]
    assert (grid.get_xlabel(), grid.get_ylabel()) == ("tau", "alpha")


def test_one_number_gives_curves_alone_and_a_hole_in_the_grid_is_blank():
    assert [figure.name for figure in sweep_figures([cell(tau=0.3), cell(tau=0.4)])] == ["curves"]
    holed = sweep_figures([cell(tau=0.3, alpha=2), cell(tau=0.4, alpha=2), cell(tau=0.4, alpha=5)])
    assert len(holed[1].figure.axes[0].texts) == 3


def fine(tau: float, segments: float, **scores: float) -> Result:
    """A result with so many segments an image, and these scores."""
    found = cell(tau=tau)
    told = {name: Score(value, (value - 0.1, value + 0.1)) for name, value in scores.items()}
    return replace(
        found, scores=found.scores | told, segments_per_image=replace(found.segments_per_image, mean=segments)
    )


def test_scores_are_drawn_by_segments_an_image():
    results = [fine(0.4, 9.5, miou=0.5, ari=0.2), fine(0.3, 3.5, miou=0.3, ari=0.4), fine(0.5, 5.0, miou=0.4, ari=0.3)]
    drawn = {figure.name: figure for figure in sweep_figures(results)}
    assert list(drawn) == ["curves", "granularity", "granularity-others"]
    assert drawn["granularity"].title == "mIoU by segments an image"
    axes = drawn["granularity"].figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("segments an image (mean)", "mIoU (%)")
    assert axes.lines[0].get_xydata() == pytest.approx(np.array([[3.5, 30], [5, 40], [9.5, 50]])), "by segments"
    panels = drawn["granularity-others"].figure.axes
    assert [axes.get_title("left") for axes in panels] == ["pixel accuracy (%)", "ARI (%)"]
    assert panels[1].lines[0].get_ydata() == pytest.approx([40, 30, 20])
    led = {figure.name: figure for figure in sweep_figures(results, "ari")}
    assert led["curves"].title == "ARI by tau" and led["granularity"].title == "ARI by segments an image"
    assert led["curves"].figure.axes[0].lines[0].get_ydata() == pytest.approx([40, 20, 30]), "by tau"
    titles = [axes.get_title("left") for axes in led["granularity-others"].figure.axes]
    assert titles == ["mIoU (%)", "pixel accuracy (%)"]


def test_a_cell_without_the_score_leaves_a_gap_in_its_curve():
    results = [fine(0.3, 3, ari=0.4), fine(0.4, 4), fine(0.5, 5, ari=0.3)]
    values = sweep_figures(results, "ari")[0].figure.axes[0].lines[0].get_ydata()
    assert values == pytest.approx([40, NAN, 30], nan_ok=True)


def test_floor_and_ceiling_are_bands():
    score = Curve("alpha=5", (2, 8), (30, 40), (25, 35), (35, 45))
    bounds = [
        Curve(name, (2, 8), (y, y), (y - 2, y - 2), (y + 2, y + 2)) for name, y in (("floor", 10), ("ceiling", 80))
    ]
    axes = draw_curves([score], "x", "y", bounds=[*bounds, *bounds], ticks_at_points=False).axes[0]
    bands = [each for each in axes.collections if isinstance(each, PolyCollection)]
    extents = [band.get_datalim(axes.transData).extents.tolist() for band in bands]
    assert extents[:2] == [pytest.approx([2, 8, 8, 12]), pytest.approx([2, 78, 8, 82])]
    texts = [text.get_text() for text in axes.figure.legends[0].get_texts()]
    assert texts == ["floor", "ceiling", "alpha=5"], "each once"
    styles = [line.get_linestyle() for line in axes.lines[:2]]
    assert styles == ["--", ":"]


def test_floor_and_ceiling_of_results_run_along_the_segments():
    def between(floor: float) -> Reference:
        return Reference(Score(floor, (floor - 0.1, floor + 0.1)), Score(0.8, (0.7, 0.9)), Score(0.5), "miou")

    few = [replace(fine(0.3, 3, miou=0.4), reference=between(0.2)), fine(0.4, 5, miou=0.5)]
    few.append(replace(fine(0.5, 9, miou=0.6), reference=between(0.3)))
    results = [replace(each, dataset=replace(each.dataset, n_images=FEWEST_IMAGES)) for each in few]
    axes = next(each for each in sweep_figures(results) if each.name == "granularity").figure.axes[0]
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines["floor"] == [[3, pytest.approx(20)], [9, pytest.approx(30)]]
    assert lines["ceiling"] == [[3, pytest.approx(80)], [9, pytest.approx(80)]]
    bands = [each.get_datalim(axes.transData).extents for each in axes.collections]
    assert bands[0].tolist() == pytest.approx([3, 10, 9, 40])
    axes = next(each for each in sweep_figures(few) if each.name == "granularity").figure.axes[0]
    assert list(axes.collections) == [], "no band of few images"


@pytest.mark.parametrize("count", [1, 2, 3, 12])
def test_panels_stand_two_in_a_row_under_one_legend(count):
    line = Curve("alpha=5", (2, 8), (30, 40))
    bare, bound = Panel("first", (line,)), Panel("last", (line,), (Curve("floor", (2, 8), (1, 2)),))
    figure = draw_panels([*[bare] * (count - 1), bound], "segments")
    assert [axes.get_title("left") for axes in figure.axes if axes.get_visible()] == ["first"] * (count - 1) + ["last"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["floor", "alpha=5"], "of all panels"
    labelled = [
        axes for axes in figure.axes if axes.get_visible() and any(x.get_visible() for x in axes.get_xticklabels())
    ]
    assert len(labelled) == min(count, 2), "the lowest of each column"
    assert encode_figure(figure, "svg") == encode_figure(figure, "svg")


def test_words_and_other_images_make_curves_of_their_own():
    def sweep(**changes: object) -> list[Result]:
        return [replace(cell(tau=tau), **changes) for tau in (0.3, 0.4)]

    other = replace(RESULT.dataset, name="other/set")
    fewer = replace(RESULT.dataset, n_images=5)
    n = RESULT.dataset.n_images
    drawn = sweep_figures([*sweep(), *sweep(dataset=other), *sweep(dataset=fewer)])
    assert [figure.name for figure in drawn] == [
        f"curves-sample-{n}_images",
        "curves-other_set",
        "curves-sample-5_images",
    ]
    assert drawn[1].title == "mIoU by tau: other/set"
    solvers = [cell(solver=solver, tau=tau) for solver in ("eigh", "lanczos") for tau in (0.3, 0.4)]
    assert [figure.name for figure in sweep_figures(solvers)] == ["curves-eigh", "curves-lanczos"]
    seeds = [*sweep(), *sweep(environment=replace(RESULT.environment, seed=1))]
    assert [figure.name for figure in sweep_figures(seeds)] == ["curves-seed_42", "curves-seed_1"]
    assert [figure.title for figure in sweep_figures(seeds)] == ["mIoU by tau: seed=42", "mIoU by tau: seed=1"]


def test_nothing_to_draw_where_no_number_differs():
    assert sweep_figures([]) == []
    assert sweep_figures([cell(), cell(solver="eigh"), cell(exact=True), cell(exact=False)]) == []
