"""The user's own function or object, scored under our rules."""

import functools
import json
import threading
from dataclasses import dataclass

import pytest
import torch
from conftest import shapes_overrides

import diffcut_bench
from diffcut_bench import evaluate
from diffcut_bench.errors import UserError
from diffcut_bench.segmenters import DiffCut, Precomputed, as_segmenter


def halves(features):
    bright = features.mean(dim=1)
    return (bright > bright.mean(dim=(1, 2), keepdim=True)).long()


def dark(image, level=0.5):
    return (image.mean(dim=0) < level).long()


@dataclass
class Dark:
    level: float
    weights: torch.Tensor | None = None

    def __call__(self, image):
        return dark(image, self.level)


@pytest.fixture
def score(shapes, tmp_path):
    """Evaluates on drawn pictures; results are in ``tmp_path / "out"``."""
    words = [word for word in shapes_overrides(shapes, tmp_path) if not word.startswith(("dataset=", "output_dir="))]
    return functools.partial(
        lambda segmenter, *more, **choices: evaluate(segmenter, *words, *more, **choices),
        dataset="folder",
        output_dir=tmp_path / "out",
    )


def test_a_function_is_a_cell_like_any_other(score, tmp_path, cli):
    result = score(halves)
    (folder,) = (tmp_path / "out" / "results").iterdir()
    assert folder.name == f"folder-efficientnet_lite0-halves-{result.key[:12]}"
    assert json.loads((folder / "result.json").read_text())["metrics"]["miou"] == result.metrics.miou
    assert result.segments_per_image.max == 2
    other = score("one_segment")
    assert result.metrics.miou != other.metrics.miou
    for words in (["show", result.key[:8]], ["compare", result.key[:8], other.key[:8]]):
        done = cli(*words, f"output_dir={tmp_path / 'out'}")
        assert done.code == 0
        assert "halves" in done.out
    done = cli("report", tmp_path / "out")
    assert done.code == 0
    assert "halves" in (tmp_path / "out" / "reports" / "index.html").read_text()


def test_the_same_is_found_and_another_is_computed(score):
    seen = []

    def counting(image):
        seen.append(1)
        return dark(image)

    counting.fingerprint = lambda: "dark"
    first = score(counting)
    assert len(seen) == 8
    assert score(counting) == first
    assert len(seen) == 8
    keys = {score(each).key for each in (Dark(0.4), Dark(0.5), dark, functools.partial(dark, level=0.4))}
    keys |= {score(Dark(0.4, weights)).key for weights in (torch.zeros(2), torch.ones(2))}
    assert len(keys | {first.key}) == 7
    assert score(Dark(0.4)).config["segmenter"]["fields"] == {"level": 0.4}


def test_a_segmenter_of_ours_is_the_cell_of_its_option(score, shapes, tmp_path):
    own = score(DiffCut(tau=0.4, alpha=5, label_codes="float32"), backbone="colour")
    option = score("diffcut", "segmenter.tau=0.4", "segmenter.alpha=5", backbone="colour")
    assert own == option
    made = score(Precomputed(str(shapes / "labels")), "features=memory", backbone="none")
    assert made == score("precomputed", f"segmenter.folder={shapes}/labels")


def test_mistakes_are_told(score):
    with pytest.raises(UserError, match="can't be compared") as told:
        score(Dark(0.4, threading.Lock()))
    assert "fingerprint()" in told.value.hint
    with pytest.raises(UserError, match="nothing fills the parameter picture"):
        score(lambda picture: picture)
    with pytest.raises(UserError, match="is the object that was given"):
        score(halves, "segmenter.tau=0.3")
    with pytest.raises(UserError, match="is a class"):
        score(Dark)
    with pytest.raises(UserError, match="no image could be scored; the first: ZeroDivisionError"):
        score(lambda image: 1 / 0)


def test_an_image_that_fails_leaves_the_others(score):
    def picky(image, image_id):
        if image_id == "picture3":
            raise ValueError("not this one")
        return dark(image)

    result = score(picky)
    assert [(failure.id, failure.error) for failure in result.failures] == [("picture3", "ValueError: not this one")]
    assert result.dataset.n_images == 8


def test_it_is_at_hand_by_name():
    assert diffcut_bench.evaluate is evaluate


def test_functions_of_one_name_are_different_cells(score):
    levels = (0.4, 0.5)
    by_constant = [lambda image: (image.mean(dim=0) < 0.4).long(), lambda image: (image.mean(dim=0) < 0.5).long()]
    assert (
        len({score(each).metrics.miou for each in by_constant}) == len({score(Dark(each)).key for each in levels}) == 2
    )


def test_what_a_segmenter_is_said_to_give_is_in_its_key(score):
    plain = score(halves, "upsampler=nearest")
    assert score(as_segmenter(halves), "upsampler=nearest") == plain
    finer = score(as_segmenter(halves, gives="finer_partition"), "upsampler=nearest")
    assert finer.key != plain.key
    assert finer.config["choices"]["segmenter"] == "halves"


def test_an_infinite_setting_has_a_result(score):
    assert "level" not in score(Dark(float("inf"))).config["segmenter"]


def test_work_in_place_changes_nothing_that_follows(score):
    def tidy(features):
        return halves(features)

    def untidy(features):
        segments = halves(features)
        features.zero_()
        return segments

    assert score(tidy).metrics == score(untidy).metrics  # concepts are assigned by the features
