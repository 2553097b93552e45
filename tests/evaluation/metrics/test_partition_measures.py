"""Measures of partitions are those of independent implementations, on images of every kind."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from random_cases import BACKGROUND, CLASSES, random_maps, renumbered, scored
from scipy.stats import entropy
from skimage.metrics import variation_of_information
from torchmetrics.functional.clustering import adjusted_rand_score, rand_score, v_measure_score

from diffcut_bench.evaluation import ScoredImage, known_metrics

CASES = list(random_maps())
Pixels = np.ndarray  # ids of the scored pixels of an image


def measured(name: str, image: ScoredImage) -> list[float]:
    numbers = known_metrics()[name].measure(image)
    assert numbers is not None
    return list(map(float, numbers))


def masks(ids: Pixels) -> list[np.ndarray]:
    return [ids == each for each in np.unique(ids)]


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def agreement(prediction: Pixels, label: Pixels) -> tuple[np.ndarray, np.ndarray]:
    """Of all pairs of different pixels, whether they share a segment, and whether they share a region."""
    first, second = np.triu_indices(len(label), 1)
    return prediction[first] == prediction[second], label[first] == label[second]


def plain_ari(prediction: Pixels, label: Pixels) -> float:
    """(index - expected) / (largest - expected), as the paper has it."""
    segment, region = agreement(prediction, label)
    if (segment == region).all():
        return 1.0
    index, segments, regions = (segment & region).sum(), segment.sum(), region.sum()
    expected = segments * regions / len(segment)
    return float((index - expected) / ((segments + regions) / 2 - expected))


def plain_pri(prediction: Pixels, label: Pixels) -> float:
    segment, region = agreement(prediction, label)
    return float((segment == region).mean()) if len(segment) else 1.0


def plain_voi(prediction: Pixels, label: Pixels) -> float:
    return float(sum(variation_of_information(label, prediction)))


def plain_v_measure(prediction: Pixels, label: Pixels) -> float:
    missing, split = variation_of_information(prediction, label)  # H(label | prediction), H(prediction | label)
    own = [entropy(np.unique(ids, return_counts=True)[1], base=2) for ids in (label, prediction)]
    homogeneity, completeness = (1 - h / full if full else 1.0 for h, full in zip((missing, split), own, strict=True))
    both = homogeneity + completeness
    return 2 * homogeneity * completeness / both if both > 1e-12 else 0.0


def plain_covering(prediction: Pixels, label: Pixels) -> float:
    best = [region.sum() * max(iou(region, segment) for segment in masks(prediction)) for region in masks(label)]
    return float(sum(best) / len(label))


PLAIN: dict[str, Callable[[Pixels, Pixels], float]] = {
    "ari": plain_ari,
    "pri": plain_pri,
    "voi": plain_voi,
    "v_measure": plain_v_measure,
    "covering": plain_covering,
}


@pytest.mark.parametrize("name", PLAIN)
def test_means_over_images_are_those_of_a_plain_version(name):
    empty = 0
    for prediction, label in CASES:
        known = label >= 0
        found = measured(name, scored(prediction, label))
        if not known.any():
            assert found == [0, 0]
            empty += 1
            continue
        expected = PLAIN[name](prediction[known], label[known])
        assert found == [pytest.approx(expected, abs=1e-9), 1], (prediction, label)
    assert empty > 100


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize(
    ("name", "reference"),
    [("ari", adjusted_rand_score), ("pri", rand_score), ("v_measure", v_measure_score)],
)
def test_they_are_those_of_torchmetrics(name, reference):
    compared = 0
    for prediction, label in CASES[:300]:
        known = label >= 0
        ids = [torch.from_numpy(each[known]) for each in (prediction, label)]
        if known.sum() > 1 and min(len(each.unique()) for each in ids) > 1:  # it has its own rules for what is trivial
            expected = reference(*ids).item()
            assert measured(name, scored(prediction, label))[0] == pytest.approx(expected, abs=1e-5)
            compared += 1
    assert compared > 100


def test_ari_on_foreground_leaves_out_what_is_annotated_as_background():
    without = 0
    for prediction, label in CASES:
        image = scored(prediction, label)
        foreground = (label >= 0) & (label != BACKGROUND)
        expected = [0, 0]
        if foreground.any():
            expected = [pytest.approx(plain_ari(prediction[foreground], label[foreground]), abs=1e-9), 1]
        without += not foreground.any() and bool((label >= 0).any())
        assert measured("foreground_ari", image) == expected
        assert known_metrics()["foreground_ari"].measure(image._replace(background=None)) is None
    assert without, "an image of background alone is among them"


def test_majority_counts_are_those_of_a_loop_over_segments():
    for prediction, label in CASES:
        known = label >= 0
        becomes = np.full(label.shape, -1)
        for segment in masks(prediction):
            votes = np.bincount(label[segment & known], minlength=CLASSES)
            becomes[segment] = votes.argmax()
        found = np.reshape(measured("majority_miou", scored(prediction, label)), (3, CLASSES))
        for name in range(CLASSES):
            ours, theirs = (becomes == name) & known, label == name
            assert found[:, name].tolist() == [(ours & theirs).sum(), (ours & ~theirs).sum(), (theirs & ~ours).sum()]


def test_panoptic_quality_matches_regions_at_more_than_half_of_their_union():
    halves = 0
    for prediction, label in CASES:
        known = label >= 0
        segments, regions = masks(prediction[known]), masks(label[known])
        all_iou = [iou(region, segment) for region in regions for segment in segments]
        matched = [each for each in all_iou if each > 0.5]
        halves += 0.5 in all_iou
        expected = [sum(matched), len(matched), len(segments) - len(matched), len(regions) - len(matched)]
        assert measured("pq", scored(prediction, label)) == pytest.approx(expected)
    assert halves, "just half is among them"


def test_panoptic_quality_is_of_sums_over_images():
    sums = torch.tensor([1.5, 2, 1, 3], dtype=torch.float64)
    assert known_metrics()["pq"].scores(sums).item() == pytest.approx(1.5 / (2 + 0.5 + 1.5))
    assert known_metrics()["pq"].scores(0 * sums).isnan().all()


@pytest.mark.parametrize("name", [*PLAIN, "foreground_ari", "majority_miou", "pq"])
def test_numbers_of_segments_change_nothing(name):
    for case, (prediction, label) in enumerate(CASES[:300]):
        found = (measured(name, scored(each, label)) for each in (prediction, renumbered(prediction, seed=case)))
        assert next(found) == pytest.approx(next(found), abs=1e-12)


DEGENERATE = {  # value of a perfect, of a whole and of a shattered prediction
    "ari": (1, 0, 0),
    "pri": (1, 7 / 15, 8 / 15),
    "voi": (0, -(1 / 3 * math.log2(1 / 3) + 2 / 3 * math.log2(2 / 3)), 1 / 3 * 1 + 2 / 3 * 2),
    "covering": (1, 2 / 3 * 2 / 3 + 1 / 3 * 1 / 3, 1 / 3 * 1 / 2 + 2 / 3 * 1 / 4),
    "v_measure": (1, 0, None),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_values_on_six_pixels_by_hand(name):
    label = np.array([[0, 0, 2, 2, 2, 2]])
    given = label, 0 * label, np.arange(6)[None]
    for prediction, expected in zip(given, DEGENERATE[name], strict=True):
        if expected is not None:
            assert measured(name, scored(prediction, label))[0] == pytest.approx(expected)


def test_one_region_in_several_segments():
    prediction, one = np.array([[0, 0, 2, 2, 2, 2]]), np.zeros((1, 6), dtype=int)
    shares = {"ari": 0, "pri": 7 / 15, "voi": entropy([1 / 3, 2 / 3], base=2), "covering": 2 / 3, "v_measure": 0}
    for name, expected in shares.items():
        assert measured(name, scored(prediction, one)) == [pytest.approx(expected), 1]
    assert measured("pq", scored(prediction, one)) == [pytest.approx(2 / 3), 1, 1, 0]


@pytest.mark.parametrize(("name", "best"), [("ari", 1), ("pri", 1), ("voi", 0), ("covering", 1), ("v_measure", 1)])
def test_one_region_in_one_segment_is_perfect(name, best):
    one = np.zeros((3, 4), dtype=int)
    assert measured(name, scored(one + 3, one)) == [best, 1]
    assert measured(name, scored(one[:1, :1], one[:1, :1])) == [best, 1], "of a single pixel"


def test_measures_that_need_classes_say_so():
    for name in ("miou", "pixel_accuracy", "majority_miou"):
        assert known_metrics()[name].inapplicable({"matching": "regions"})
        assert not known_metrics()[name].inapplicable({"matching": "per_image"})
    for name in (*PLAIN, "pq", "foreground_ari"):
        assert not known_metrics()[name].inapplicable({"matching": "regions"})
