import itertools

import numpy as np
import pytest
import torch
from conftest import DATA, same_partition
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcut_bench.evaluation import (
    assign_clusters,
    contingency_table,
    contingency_tables,
    count_matches,
    match_image,
    merge_and_count,
    merge_backgrounds,
)

GOLDEN = np.load(DATA / "matching.npz")
CASES = range(24)


def case(i: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    prediction, label = (torch.from_numpy(GOLDEN[f"{name}{i}"]).long() for name in ("pred", "gt"))
    return prediction, label, int(GOLDEN[f"n{i}"])


def merge_background(prediction: torch.Tensor, label: torch.Tensor, *arguments, **more) -> torch.Tensor:
    """`merge_backgrounds` of one image."""
    return merge_backgrounds(prediction[None], label[None], *arguments, **more)[0]


@pytest.mark.parametrize("i", CASES)
def test_counts_equal_the_released_ones(i):
    for ours, name in zip(match_image(*case(i)), ("tp", "fp", "fn"), strict=True):
        assert ours.tolist() == GOLDEN[f"{name}{i}"].tolist()


@pytest.mark.parametrize("i", [i for i in CASES if int(GOLDEN[f"n{i}"]) > 2])
def test_released_background_rule(i):
    prediction, label, classes = case(i)
    merged = merge_background(prediction, label, classes, classes - 1, "unmatched")
    assert same_partition(merged, GOLDEN[f"merged{i}"])
    # The released data sets have no void left at this point: it has become background.
    scored = torch.where(label < 0, classes - 1, label)
    for ours, name in zip(match_image(prediction, scored, classes, "unmatched"), ("tp", "fp", "fn"), strict=True):
        assert ours.tolist() == GOLDEN[f"bg_{name}{i}"].tolist()


def test_overlap_rule_merges_what_lies_mostly_on_background():
    label = torch.tensor([[2, 2, 2, 0, 0, 1]])
    prediction = torch.tensor([[0, 1, 1, 1, 2, 2]])
    merged = merge_background(prediction, label, 3, 2, "overlap")
    assert merged.tolist() == [[3, 3, 3, 3, 2, 2]]


def test_overlap_rule_leaves_ties_to_the_foreground():
    merged = merge_background(torch.tensor([[0, 0]]), torch.tensor([[1, 0]]), 2, 1, "overlap")
    assert merged.tolist() == [[0, 0]]


def test_background_may_be_any_class():
    label = torch.tensor([[0, 0, 1, 2]])
    prediction = torch.tensor([[0, 1, 2, 3]])
    assert merge_background(prediction, label, 3, 0, "unmatched").tolist() == [[4, 4, 2, 3]]
    assert match_image(prediction, label, 3, "unmatched", background=0).tp.tolist() == [2, 1, 1]


def test_one_to_one_merges_nothing():
    prediction, label, classes = case(0)
    assert torch.equal(merge_background(prediction, label, classes, classes - 1, "one_to_one"), prediction)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["overlap", "iou"]))
def test_assignment_is_the_best_of_all(seed, criterion):
    generator = np.random.default_rng(seed)
    table = torch.from_numpy(generator.integers(0, 20, (3, 4)))
    score = table.double()
    if criterion == "iou":
        score = score / (score.sum(1, keepdim=True) + score.sum(0, keepdim=True) - score).clamp_min(1)
    best = max(sum(score[c, k].item() for c, k in enumerate(ks)) for ks in itertools.permutations(range(4), 3))
    assert score[torch.arange(3), assign_clusters(table, criterion)].sum().item() == pytest.approx(best)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_counts_add_up(seed):
    generator = np.random.default_rng(seed)
    label = torch.from_numpy(generator.integers(-1, 5, (8, 9)))
    prediction = torch.from_numpy(generator.integers(0, 7, (8, 9)))
    tp, fp, fn = count_matches(contingency_table(prediction, label, 5))
    assert torch.equal(tp + fn, torch.bincount(label[label >= 0], minlength=5))
    assert int((tp + fp).sum()) <= int((label >= 0).sum())


def test_a_perfect_partition_under_other_names_is_perfect():
    label = torch.randint(0, 6, (20, 20))
    names = torch.randperm(6)
    tp, fp, fn = match_image(names[label], label, 6)
    assert tp.sum() == 400
    assert fp.sum() == fn.sum() == 0


def test_iou_and_overlap_can_disagree():
    # Overlap: 20 + 38 is the most. IoU: 9/29 + 38/78 > 20/69 + 38/78.
    table = torch.tensor([[20, 9, 0], [40, 0, 38]])
    assert assign_clusters(table, "overlap").tolist() == [0, 2]
    assert assign_clusters(table, "iou").tolist() == [1, 2]


def test_ids_of_any_integer_type_are_taken():
    prediction, label, classes = case(3)
    expected = match_image(prediction, label, classes)
    small = match_image(prediction.to(torch.uint8), label.to(torch.int16), classes)
    assert all(torch.equal(a, b) for a, b in zip(expected, small, strict=True))
    assert match_image(prediction.to(torch.uint8), label.clamp_min(0).to(torch.uint8), classes).tp.sum() > 0


@pytest.mark.parametrize("background", [-1, 3])
def test_background_must_be_a_class(background):
    with pytest.raises(ValueError, match="background must be a class id"):
        match_image(torch.tensor([[0]]), torch.tensor([[0]]), 3, "unmatched", background=background)


@pytest.mark.parametrize(
    ("prediction", "label", "message"),
    [
        ([[0, 1]], [[0]], "differ in shape|width"),
        ([[0, -1]], [[0, 0]], "cluster ids"),
        ([[0, 0]], [[0, 3]], "label ids"),
        ([[0, 0]], [[0, -2]], "label ids"),
    ],
)
def test_ids_out_of_range_are_named(prediction, label, message):
    # A wrong shape is caught by the run-time type check of the tests before our own.
    with pytest.raises((ValueError, TypeError), match=message):
        match_image(torch.tensor(prediction), torch.tensor(label), 3)


@pytest.mark.parametrize("surplus", ["absent_class", "unmatched"])
@pytest.mark.parametrize("rule", ["unmatched", "overlap", "one_to_one"])
def test_a_batch_equals_its_images_one_by_one(rule, surplus):
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(-1, 5, (7, 8, 9), generator=generator)
    # Images of a single segment, of fewer clusters than classes, and of more; one has no annotated pixel.
    prediction = torch.stack([torch.randint(0, 1 + 3 * i, (8, 9), generator=generator) for i in range(7)])
    label[3] = -1
    label[5, :, :4], prediction[5, :, :4] = -1, 17  # the last cluster is on void alone
    merged, counted = merge_and_count(prediction, label, 5, 4, rule, surplus=surplus)
    tables = contingency_tables(merged, label, 5)
    assert torch.equal(merged, merge_backgrounds(prediction, label, 5, 4, rule, surplus=surplus))
    for i in range(7):
        alone = merge_background(prediction[i], label[i], 5, 4, rule, surplus=surplus)
        assert torch.equal(merged[i], alone)
        assert torch.equal(tables[i], contingency_table(alone, label[i], 5))
        assert torch.equal(tables[i], counted[i])
        assert tables[i].shape[1] == max(5, int(alone.max()) + 1)
        assert int(tables[i].sum()) == int((label[i] >= 0).sum())


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["unmatched", "overlap"]), st.integers(1, 5), st.integers(1, 9))
def test_tables_of_merged_clusters_are_those_of_the_merged_prediction(seed, rule, classes, clusters):
    generator = np.random.default_rng(seed)
    label = torch.from_numpy(generator.integers(-1, classes, (2, 3, 4)))
    prediction = torch.from_numpy(generator.integers(0, clusters, (2, 3, 4)))
    merged, tables = merge_and_count(prediction, label, classes, classes - 1, rule)
    for ours, recounted in zip(tables, contingency_tables(merged, label, classes), strict=True):
        assert torch.equal(ours, recounted)
