"""A prediction beside several annotators: what each alone would give."""

import pytest
import torch

from diffcut_bench.evaluation import Annotators, contingency_table, count_boundaries, measure_image

CHOICES = {"matching": "regions"}


def maps(annotators: int, seed: int, ids: int, least: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    small = torch.randint(least, ids, (annotators, 4, 6), generator=generator)
    return small.repeat_interleave(5, dim=1).repeat_interleave(5, dim=2)


@pytest.mark.parametrize("least", [0, -1])
def test_each_annotator_is_scored_as_if_alone(least):
    labels = [maps(3, 1, ids=9, least=least), maps(1, 2, ids=4), maps(5, 3, ids=300)]
    prediction = maps(3, 4, ids=6)
    annotators = Annotators.of(labels, labels)
    found = annotators.scored(prediction)
    assert [len(each) for each in found] == [3, 1, 5]
    for one, own, predicted in zip(labels, found, prediction, strict=True):
        together = count_boundaries(predicted[None], one[None], 300, 300, with_bands=False)[0]
        for label, scored, lines in zip(one, own, together, strict=True):
            alone = contingency_table(predicted, label, 300)
            rows, columns = scored.table.shape
            assert torch.equal(scored.table, alone[:rows, :columns]) and scored.table.sum() == (label >= 0).sum()
            assert torch.equal(scored.label, label) and torch.equal(scored.prediction, predicted)
            assert scored.boundaries[:4] == lines[:4]
            assert scored.clusters is None and scored.background is None


def test_what_is_kept_is_the_mean_over_annotators():
    label = maps(4, 5, ids=7)
    (scored,) = Annotators.of([label], [label]).scored(label[:1])
    whole = measure_image(scored, CHOICES)
    each = [measure_image([one], CHOICES) for one in scored]
    assert each[0]["covering"] == [1, 1] and each[1]["covering"][0] < 1
    assert {*whole} >= {"covering", "pri", "voi", "boundary_f"} and "boundary_iou" not in whole
    for name in ("covering", "pri", "voi", "ari"):
        assert whole[name] == pytest.approx(torch.tensor([one[name] for one in each]).mean(dim=0).tolist())
