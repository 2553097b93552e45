"""Boundary F and boundary IoU: from the counts of boundaries to scores."""

import numpy as np
import pytest
import torch
from random_cases import CLASSES, random_maps, renumbered
from scipy.ndimage import binary_erosion

from diffcut_bench.evaluation import (
    ScoredImage,
    assign_clusters,
    contingency_table,
    count_boundaries,
    known_metrics,
)
from diffcut_bench.evaluation.boundaries import reach_of

F, IOU = known_metrics()["boundary_f"], known_metrics()["boundary_iou"]
CASES = list(random_maps(largest=60, seed=1))


def scored(prediction: np.ndarray, label: np.ndarray) -> ScoredImage:
    """As the pipeline shows it to metrics, matched so that no number matters."""
    maps = torch.from_numpy(prediction.copy()), torch.from_numpy(label.copy())
    table = contingency_table(*maps, CLASSES)
    ((boundaries,),) = count_boundaries(maps[0][None], maps[1][None, None], *table.shape)
    return ScoredImage(*maps, table, 1, assign_clusters(table, surplus="unmatched"), boundaries)


def of_one(metric, image: ScoredImage) -> torch.Tensor:
    return metric.scores(torch.tensor(metric.measure(image), dtype=torch.float64))


def test_boundary_iou_is_that_of_eroded_class_masks():
    """The bands of the classes as predicted, by SciPy, where nothing is void."""
    compared = 0
    for prediction, label in CASES:
        if (label < 0).any():
            continue
        image, reach = scored(prediction, label), reach_of(label.shape)

        def band(mask, reach=reach):
            return mask & ~binary_erosion(mask, np.ones((3, 3)), iterations=reach, border_value=1)

        for name, (found, cluster) in enumerate(zip(of_one(IOU, image)[1:], image.clusters.tolist(), strict=True)):
            theirs, ours = band(label == name), band(prediction == cluster)
            either = (theirs | ours).sum()
            expected = (theirs & ours).sum() / either if either else np.nan
            assert found.item() == pytest.approx(expected, nan_ok=True)
            compared += bool(either)
    assert compared > 500


def test_a_perfect_prediction_has_scores_of_1_whatever_is_void():
    perfect = 0
    for _, label in CASES:
        image = scored(np.where(label < 0, label[::-1, ::-1].clip(0), label) + 2, label)
        on_boundaries = image.boundaries.annotated > 0
        assert of_one(F, image).tolist() == pytest.approx([1.0] if on_boundaries else [np.nan], nan_ok=True)
        iou = of_one(IOU, image)
        assert (iou[~iou.isnan()] == 1).all() and iou[0].isnan() != on_boundaries
        perfect += on_boundaries
    assert perfect > 300


def test_numbers_of_segments_change_nothing():
    compared = 0
    for case, (prediction, label) in enumerate(CASES):
        one, other = (scored(each, label) for each in (prediction, renumbered(prediction, seed=case)))
        assert F.measure(one) == F.measure(other)
        # Which of two clusters of the same pixels is matched is a matter of numbers, and their bands may differ.
        clusters = one.table.T[one.table.any(dim=0)]
        if len(clusters.unique(dim=0)) == len(clusters):
            assert IOU.measure(one) == IOU.measure(other)
            compared += 1
    assert compared > 300


def test_boundary_f_is_the_harmonic_mean_of_shares_of_summed_pixels():
    sums = torch.tensor([[3, 4, 2, 8], [0, 4, 0, 8], [0, 0, 0, 8], [0, 4, 0, 0], [0, 0, 0, 0]], dtype=torch.float64)
    expected = [2 * 0.75 * 0.25 / (0.75 + 0.25), 0, 0, 0, np.nan]
    assert F.reduce(sums).tolist() == pytest.approx(expected, nan_ok=True)


def test_one_segment_misses_all_boundaries_and_an_image_of_void_has_none():
    label = np.zeros((20, 30), dtype=int)
    label[:, 15:] = 3
    assert of_one(F, scored(0 * label, label)).tolist() == [0]
    assert of_one(IOU, scored(0 * label, label))[0] == 0
    for empty in (scored(label, 0 * label - 1), scored(0 * label, 0 * label)):
        assert not any(F.measure(empty)) and not any(IOU.measure(empty))
        assert of_one(F, empty).isnan().all() and of_one(IOU, empty).isnan().all()


def test_what_was_not_counted_is_not_measured():
    image = scored(np.zeros((4, 4), dtype=int), np.zeros((4, 4), dtype=int))
    for metric in (F, IOU):
        assert metric.measure(image._replace(boundaries=None)) is None
    assert IOU.measure(image._replace(clusters=None)) is None


def test_boundary_iou_needs_clusters_that_are_matched_and_classes():
    assert "later" in IOU.inapplicable({"matching": "dataset"})
    assert "no classes" in IOU.inapplicable({"matching": "regions"})
    for matching in ("per_image", "named"):
        assert not IOU.inapplicable({"matching": matching})
    assert not F.inapplicable({"matching": "regions"})
