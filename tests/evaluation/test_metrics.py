"""What every metric must do, and what each of ours is; of every metric that is in the folder, without being named."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from diffcut_bench.errors import UserError
from diffcut_bench.evaluation import (
    FEWEST_IMAGES,
    ImageTable,
    Metric,
    ScoredImage,
    known_metrics,
    measure_image,
    resample,
    score_images,
)

COUNTS = {
    "tp": torch.tensor([[3, 0, 5], [2, 0, 0], [0, 0, 7]]),
    "fp": torch.tensor([[1, 0, 0], [0, 0, 2], [0, 0, 1]]),
    "fn": torch.tensor([[0, 0, 4], [3, 0, 0], [0, 0, 0]]),
    "pixels": torch.tensor([12, 5, 7]),
    "segments": torch.tensor([2, 3, 7]),
}
THREE = ImageTable(**COUNTS)
NAMED = {"matching": "named"}


def scored(name: str, images: ImageTable = THREE, **choices: str) -> torch.Tensor:
    return score_images(images, NAMED | choices)[name].scores


def repeated(*times: int) -> ImageTable:
    """Each of the three images so many times."""
    return ImageTable(**{name: column.repeat_interleave(torch.tensor(times), dim=0) for name, column in COUNTS.items()})


def test_miou_is_of_sums_over_images():
    assert scored("miou").tolist() == pytest.approx([(5 / 9 + 12 / 19) / 2, 5 / 9, float("nan"), 12 / 19], nan_ok=True)
    assert scored("miou", absent_classes="zero")[0] == pytest.approx((5 / 9 + 12 / 19) / 3)


def test_other_scores_are_what_they_say():
    assert scored("pixel_accuracy").tolist() == pytest.approx([17 / 24])
    assert scored("segments").tolist() == [4]
    expected = [(3 / 4 + 5 / 9) / 2, (2 / 5 + 0 / 2) / 2, 7 / 8]
    assert known_metrics()["jaccard"].of_each(THREE).tolist() == pytest.approx(expected)
    assert scored("jaccard").tolist() == pytest.approx([sum(expected) / 3])


def test_the_mean_of_per_image_jaccard_leaves_out_an_image_without_any_class():
    void = ImageTable(**{name: torch.cat([column, torch.zeros_like(column[:1])]) for name, column in COUNTS.items()})
    assert scored("jaccard", void) == scored("jaccard")
    assert known_metrics()["jaccard"].of_each(void)[-1].isnan()


def test_it_is_told_where_segments_are_named():
    assert "jaccard" not in score_images(THREE, {"matching": "per_image"})
    assert known_metrics()["jaccard"].inapplicable({}) == "segments are not named"


def by_hand(name: str, drawn: np.ndarray) -> list[float]:
    """A score of images that were drawn, in plain numpy."""
    tp, fp, fn = (COUNTS[each].numpy()[drawn] for each in ("tp", "fp", "fn"))
    with np.errstate(invalid="ignore"):
        iou, own = tp.sum(0) / (tp + fp + fn).sum(0), tp / (tp + fp + fn)
    return {
        "miou": [np.nanmean(iou), *iou],
        "jaccard": [np.nanmean(own, axis=1).mean()],
        "pixel_accuracy": [tp.sum() / COUNTS["pixels"].numpy()[drawn].sum()],
        "segments": [COUNTS["segments"].numpy()[drawn].mean()],
    }[name]


@pytest.mark.parametrize("name", ["miou", "jaccard", "pixel_accuracy", "segments"])
def test_the_interval_is_that_of_a_loop_over_the_same_resamples(name):
    draws = np.random.default_rng(5).multinomial(3, np.full(3, 1 / 3), size=300)
    looped = np.array([by_hand(name, np.repeat(np.arange(3), draw)) for draw in draws])
    (found,) = resample(THREE, [known_metrics()[name]], NAMED, resamples=300, seed=5)
    assert np.allclose(found.resampled, looped, equal_nan=True)
    low, high = score_images(THREE, NAMED, resamples=300, seed=5)[name].interval[:, 0].tolist()
    assert [low, high] == pytest.approx(np.quantile(looped[:, 0], [0.025, 0.975]).tolist())
    assert low < high


def test_every_class_has_an_interval_of_its_own_unless_it_is_annotated_in_too_few_images():
    # Class 0 is annotated in images 0 and 1, class 2 in 0 and 2; image 1 has false positives of class 2 alone.
    many, few = FEWEST_IMAGES, FEWEST_IMAGES - 1
    for times, told in (([many, 0, 0], [True, True]), ([0, many, few], [True, False]), ([few, 0, 0], [False, False])):
        estimate = score_images(repeated(*times), {})["miou"]
        assert (~estimate.interval.isnan()[:, [1, 3]]).tolist() == [told, told]
        assert not estimate.scores[1].isnan(), "the score itself is told"
        assert not estimate.interval[:, 0].isnan().any(), "of the data set it is always told"
    assert THREE.images_per_class().tolist() == [2, 0, 2]


def test_one_image_and_one_class_give_scores():
    one = torch.ones(1, 1, dtype=torch.long)
    found = score_images(ImageTable(3 * one, one, 0 * one, 4 * one[0], one[0]), {})
    assert found["miou"].scores.tolist() == [0.75, 0.75]
    assert found["miou"].interval[:, 0].tolist() == [0.75, 0.75]


@pytest.mark.parametrize("metric", known_metrics().values(), ids=lambda metric: metric.name)
def test_every_metric_has_a_name_of_its_own_and_words_for_tables(metric):
    assert metric.name.isidentifier() and metric.heading
    assert metric.text(None) == metric.text(float("nan")) == "–"
    value = metric.text(-0.1234)
    assert value.startswith("−") and len(value.partition(".")[2]) == metric.digits


def test_a_metric_has_one_source_and_a_way_to_a_score():
    def statistic(images: ImageTable) -> torch.Tensor:
        return images.tp

    wrong: dict[str, dict[str, Callable]] = {
        "not both": {"statistic": statistic, "measure": lambda image: [0.0], "reduce": lambda sums: sums},
        "and not both": {"reduce": lambda sums: sums},
        "reduces to no score": {"statistic": statistic},
    }
    for what, functions in wrong.items():
        with pytest.raises(ValueError, match=what):
            Metric(name="odd", heading="odd", **functions)


def test_the_folder_is_the_list(add_metric):
    add_metric(
        "second",
        "from diffcut_bench.evaluation import Metric\n"
        "METRIC = Metric(name='hits', heading='hits', statistic=lambda images: images.tp.sum(dim=1, keepdim=True),\n"
        "                reduce=lambda sums: sums[..., 0], order=1)\n",
    )
    assert list(known_metrics())[:3] == ["miou", "hits", "jaccard"], "in the order of tables"
    assert scored("hits").tolist() == [17]
    add_metric("third", "from diffcut_bench.evaluation.metrics.second import METRIC\n")
    with pytest.raises(UserError, match="two metrics have one name"):
        known_metrics()


def test_a_module_without_a_metric_is_none_and_an_error_names_its_metric(add_metric):
    add_metric("helpers", "STEP = 2\n")
    add_metric(
        "odd",
        "from diffcut_bench.evaluation import Metric\n"
        "METRIC = Metric(name='odd', heading='odd', measure=lambda image: [1 / 0], reduce=lambda sums: sums[..., 0])\n",
    )
    assert "odd" in known_metrics()
    with pytest.raises(ZeroDivisionError, match="metric odd: division by zero"):
        measure_image([ScoredImage(*[torch.zeros(2, 2, dtype=torch.long)] * 3)], {})


def test_of_several_annotators_the_mean_is_kept(add_metric):
    add_metric(
        "odd",
        "from diffcut_bench.evaluation import Metric\n"
        "def least(image):\n    return [image.label.min(), 1.0] if (image.label >= 0).any() else None\n"
        "METRIC = Metric(name='odd', heading='odd', measure=least, reduce=lambda sums: sums[..., 0])\n",
    )
    prediction, table = torch.zeros(2, 2, dtype=torch.long), torch.tensor([[4]])
    images = [ScoredImage(prediction, prediction + label, table) for label in (3, 6, -1)]
    assert measure_image(images[:1], {})["odd"] == [3, 1]
    assert measure_image(images[:2], {})["odd"] == [4.5, 1]
    assert measure_image(images, {})["odd"] == [4.5, 1], "of those that could be measured"
    assert measure_image(images[2:], {})["odd"] is None


def test_what_was_not_measured_is_no_score():
    metric = Metric(name="odd", heading="oddness", measure=lambda image: [0.0], reduce=lambda sums: sums[..., 0])
    assert metric.missing_in(THREE, {})
    with pytest.raises(ValueError, match="no oddness was measured"):
        metric.statistics(THREE)


def test_a_metric_that_does_not_reduce_is_named(add_metric):
    add_metric(
        "odd",
        "from diffcut_bench.evaluation import Metric\n"
        "METRIC = Metric(name='odd', heading='odd', statistic=lambda images: images.tp, reduce=lambda sums: sums[9])\n",
    )
    with pytest.raises(UserError, match="IndexError") as told:
        score_images(THREE, {})
    assert told.value.where == "metric odd"
