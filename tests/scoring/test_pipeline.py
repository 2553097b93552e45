"""Functions and objects of the user's as segmenters: through the whole pipeline, alone and beside others."""

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import shapes_overrides

from diffcut_bench.config import load_config
from diffcut_bench.errors import UserError
from diffcut_bench.evaluation import ScoredImage, assign_clusters, contingency_table, count_boundaries, known_metrics
from diffcut_bench.scoring.features import FeatureSource
from diffcut_bench.scoring.fingerprints import object_fingerprint
from diffcut_bench.scoring.passes import open_pass, run_cell, run_cells
from diffcut_bench.segmentation import PictureSegmenter
from diffcut_bench.store import read_rows

CALLS: list[tuple[str, int]] = []


def halves(features):
    """Left and right half of the patches."""
    CALLS.append(("halves", len(features)))
    rows, cols = features.shape[2:]
    return (torch.arange(cols) * 2 // cols).expand(len(features), rows, cols)


def strips(image, count=2):
    """Upright strips of equal width of one picture."""
    height, width = image.shape[1:]
    return (torch.arange(width) * count // width).expand(height, width).numpy()


def colours(images):
    """Great numbers, as an RGB picture has: they count by rank."""
    return (images[:, 0] > images[:, 1]) * 70_000 + 7


def fails_on(image_id, class_count, rescale):
    if image_id == "picture3":
        raise RuntimeError("no idea")
    return rescale(torch.arange(20).view(4, 5) % class_count, covers="crop")


def patches_by_name(features, image):
    """One image at a time, of both."""
    assert features.ndim == image.ndim == 3
    return torch.zeros(features.shape[1:], dtype=torch.long)


def wrong_size(features):
    return torch.zeros(len(features), 2, 2, dtype=torch.long)


@pytest.fixture
def words(shapes, tmp_path):
    """Overrides that score a function of this file."""
    (tmp_path / "options" / "segmenter").mkdir(parents=True)

    def of(name, *more, backbone="colour", **options):
        lines = [f"_target_: test_pipeline.{name}", "_partial_: true", *(f"{n}: {v}" for n, v in options.items())]
        (tmp_path / "options" / "segmenter" / "own.yaml").write_text("\n".join(lines) + "\n")
        searched = f"hydra.searchpath=[file://{tmp_path / 'options'}]"
        base = [*shapes_overrides(shapes, tmp_path / "out"), searched, "segmenter=own", "refiner=none"]
        return [*base, f"backbone={backbone}", "features=memory", *more]

    return of


def test_a_function_of_features_is_a_segmenter(words):
    CALLS.clear()
    cell = run_cell(load_config(words("halves", "batch_size=3")))
    assert {row.segments for row in read_rows(cell.folder)} == {2}
    assert sum(count for _, count in CALLS) == 8 and len(CALLS) > 1
    assert cell.result.timings.features_s > 0 and cell.result.timings.segment_s > 0
    assert "test_pipeline" in cell.result.identity["code"]
    assert run_cell(load_config(words("halves", "batch_size=1"))).skipped


def test_a_function_of_the_picture_equals_our_own_and_computes_no_features(words, shapes, tmp_path):
    own = run_cell(load_config(words("strips", backbone="none", count=3)))
    grid = ["segmenter=grid", "segmenter.rows=1", "segmenter.cols=3", "refiner=none"]
    base = [one for one in shapes_overrides(shapes, tmp_path / "out") if not one.startswith("backbone")]
    assert read_rows(own.folder) == read_rows(run_cell(load_config([*base, *grid])).folder)
    assert own.result.timings.features_s == 0
    other = run_cell(load_config(words("strips", backbone="none", count=5)))
    assert other.result.key != own.result.key
    assert {row.segments for row in read_rows(other.folder)} == {5}


def test_a_backbone_is_not_run_for_a_segmenter_that_needs_none(words, monkeypatch):
    monkeypatch.setattr(FeatureSource, "compute", lambda self, images: pytest.fail("the backbone was run"))
    assert not run_cell(load_config(words("strips"))).result.failures


def test_great_numbers_of_any_label_map_go_by_rank(words):
    cell = run_cell(load_config(words("colours", backbone="none")))
    assert not cell.result.failures
    assert max(row.segments for row in read_rows(cell.folder)) == 2


def test_what_fails_is_that_image_alone(words):
    cell = run_cell(load_config(words("fails_on", "batch_size=4", backbone="none")))
    assert [(failure.id, failure.error) for failure in cell.result.failures] == [("picture3", "RuntimeError: no idea")]
    assert {row.segments for row in read_rows(cell.folder)} == {3}


def test_cells_of_one_pass_equal_each_alone(words):
    """Those that share work, those that do not, and those that need no features."""
    kinds = [["segmenter=diffcut", f"segmenter.tau={tau}"] for tau in (0.3, 0.8)]
    kinds += [
        ["segmenter=kmeans"],
        [],
        ["segmenter=slic", "backbone=colour"],
        ["segmenter=diffcut", "upsampler=nearest"],
        ["segmenter=diffcut", "smallest_segment=0.05"],
        ["segmenter=slic", "smallest_segment=0.05"],  # by colour, though others of the pass have features
    ]
    configs = [load_config([*words("patches_by_name"), *kind]) for kind in kinds]
    together = run_cells(configs)
    rows = [read_rows(cell.folder) for cell in together]
    for config, cell, expected in zip(configs, together, rows, strict=True):
        config.if_exists = "overwrite"
        assert run_cell(config).result.key == cell.result.key
        assert read_rows(cell.folder) == expected
    assert together[4].result.timings.features_s == 0 < together[2].result.timings.features_s


@pytest.mark.parametrize(
    "more", [["protocol=released", "refiner=pamr"], ["protocol=strict", "dataset.background=null"]]
)
def test_what_is_measured_is_of_the_image_as_it_is_scored(words, more):
    """After background rule and refiner, with the protocol's matching: by hand from label maps."""
    config = load_config(words("halves", "batch_size=3", *more))
    rows = read_rows(run_cell(config).folder)
    cell = open_pass(config).cell(config)
    protocol, background = cell.pipeline.protocol, cell.dataset.background
    for row, outcome in zip(rows, cell.outcomes(range(len(rows))), strict=True):
        prediction, label = outcome.prediction, outcome.example.label
        table = contingency_table(prediction, label, 3)
        clusters = assign_clusters(table, **protocol.assignment)
        ((boundaries,),) = count_boundaries(prediction[None], label[None, None], *table.shape)
        image = ScoredImage(prediction, label, table, background, clusters, boundaries)
        assert (row.measured["foreground_ari"] is None) == (background is None)
        for name, metric in known_metrics().items():
            measured = None if metric.measure is None else metric.measure(image)
            assert row.measured.get(name) == (measured if measured is None else [*map(float, measured)])
    assert rows[0].measured["boundary_iou"] and len(rows[0].measured["majority_miou"]) == 9


class Strips:
    def __init__(self, count):
        self.count = count

    def __call__(self, image):
        return strips(image, self.count)


def test_an_object_of_the_users_is_scored_under_a_key_of_its_own(words):
    config = load_config(words("strips", backbone="none", count=4))
    expected = run_cell(config)
    keys = set()
    for segmenter in (Strips(4), partial(strips, count=4), Strips(6)):
        own = replace(config, segmenter={"object": object_fingerprint(segmenter)})
        cell = run_cell(own, segmenter=segmenter)
        assert (read_rows(cell.folder) == read_rows(expected.folder)) == (
            segmenter.__class__ is partial or segmenter.count == 4
        )
        assert run_cell(own, segmenter=segmenter).skipped
        keys.add(cell.result.key)
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("name", "backbone", "message"),
    [
        ("halves", "none", "needs features"),
        ("wrong_size", "colour", r"the segmenter gave int64 \[1, 2, 2\], not whole numbers \[1, 4, 4\]"),
        ("words", "colour", "nothing fills the parameter shapes|can't be called"),
    ],
)
def test_mistakes_are_told(words, name, backbone, message):
    with pytest.raises(UserError, match=message):
        run_cell(load_config(words(name, "protocol.crop=center", backbone=backbone)))


def test_a_function_without_partial_is_told_of_it(words):
    with pytest.raises(UserError) as told:
        run_cell(load_config([*words("halves"), "segmenter._partial_=false"]))
    assert "_partial_: true" in told.value.hint


def test_one_matching_for_the_data_set_wants_ids_that_mean_the_same(words):
    asked = ("protocol.matching=dataset", "protocol.background_rule=one_to_one")
    with pytest.raises(UserError, match="mean the same in every image"):
        run_cell(load_config(words("strips", *asked, backbone="none")))


def test_pictures_of_the_users_are_segmented_by_functions_too(words, shapes):
    picture = next((shapes / "images").glob("*.png"))

    def segmenter_of(name, backbone):
        kept = ("hydra", "segm", "back", "ref", "feat")
        own = [word for word in words(name, backbone=backbone) if word.startswith(kept)]
        return PictureSegmenter(load_config(["protocol=strict", *own, "upsampler=nearest"]))

    assert segmenter_of("halves", "colour")(picture).num_segments == 2
    assert segmenter_of("strips", "none")(picture).num_segments == 2
    with pytest.raises(UserError, match="of a data set"):
        segmenter_of("fails_on", "none")(picture)


def test_the_worked_example_of_the_docs(shapes, tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "own_segmenter.md").read_text()
    text = page.partition("## On the command line")[2]
    function, option = (re.search(rf"```{kind}\n(.*?)```", text, re.DOTALL)[1] for kind in ("python", "yaml"))
    (tmp_path / "mine.py").write_text(function)
    (tmp_path / "options" / "segmenter").mkdir(parents=True)
    (tmp_path / "options" / "segmenter" / "bright.yaml").write_text(option)
    monkeypatch.syspath_prepend(tmp_path)
    searched = f"hydra.searchpath=[file://{tmp_path / 'options'}]"
    base = [*shapes_overrides(shapes, tmp_path / "out"), searched, "segmenter=bright", "backbone=none"]
    cell = run_cell(load_config([*base, "features=memory"]))
    assert json.loads((cell.folder / "result.json").read_text())["identity"]["segmenter"]["levels"] == 3
    assert cell.result.segments_per_image.max == 2
