"""Counts after one matching of linked segments: those of tables of clusters, class by class."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcut_bench.evaluation import assign_clusters
from diffcut_bench.linking import Entries, count_linked


def entries_of(tables):
    """Entries of tables whose columns are segments of their own, and the images' first segments."""
    found, first = [], 0
    for image, table in enumerate(tables):
        for class_id, segment in table.nonzero().tolist():
            found.append((image, class_id, first + segment, int(table[class_id, segment])))
        first += table.shape[1]
    return Entries(*torch.tensor(found, dtype=torch.long).reshape(-1, 4).T), first


@pytest.mark.parametrize("surplus", ["absent_class", "unmatched"])
@pytest.mark.parametrize("criterion", ["overlap", "iou"])
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 6))
def test_as_many_clusters_as_classes(criterion, surplus, seed, images, classes):
    generator = torch.Generator().manual_seed(seed)
    tables = [torch.randint(20, (classes, 4), generator=generator) for _ in range(images)]
    entries, segments = entries_of(tables)
    linked = torch.randint(classes, (segments,), generator=generator)
    found = count_linked(entries, linked, images, classes, criterion=criterion, surplus=surplus)
    merged = []
    for image, table in enumerate(tables):
        own = linked[4 * image : 4 * image + 4]
        merged.append(torch.zeros(classes, classes, dtype=torch.long).index_add_(1, own, table))
    columns = assign_clusters(torch.stack(merged).sum(dim=0), criterion, surplus).tolist()
    for image, table in enumerate(merged):
        for class_id, column in enumerate(columns):
            tp, predicted = (int(table[class_id, column]), int(table[:, column].sum())) if column >= 0 else (0, 0)
            assert int(found.tp[image, class_id]) == tp
            assert int(found.fp[image, class_id]) == predicted - tp
            assert int(found.fn[image, class_id]) == int(table[class_id].sum()) - tp


def test_clusters_left_over_go_to_the_class_of_most_of_their_pixels():
    table = torch.tensor([[10, 0, 3, 0], [0, 8, 4, 9]])  # columns 0 and 3 are assigned; 1 and 2 are of class 1
    entries, segments = entries_of([table])
    found = count_linked(entries, torch.arange(segments), 1, 2, criterion="overlap", surplus="absent_class")
    assert found.tp.tolist() == [[10, 21]]
    assert found.fp.tolist() == [[0, 3]]
    assert found.fn.tolist() == [[3, 0]]


def test_every_pixel_counts_once_for_its_class():
    generator = torch.Generator().manual_seed(0)
    tables = [torch.randint(9, (4, 7), generator=generator) for _ in range(6)]
    entries, segments = entries_of(tables)
    linked = torch.randint(11, (segments,), generator=generator)
    found = count_linked(entries, linked, 6, 4, criterion="overlap", surplus="absent_class")
    assert torch.equal(found.tp + found.fn, torch.stack([table.sum(dim=1) for table in tables]))
    assert torch.equal((found.tp + found.fp).sum(dim=1), torch.stack([table.sum() for table in tables]))
