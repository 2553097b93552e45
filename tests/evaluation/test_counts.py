import multiprocessing
import os
import socket

import pytest
import torch

from diffcut_bench.evaluation import FEWEST_IMAGES, Counts, ImageCounts

TP = torch.tensor([[3, 0, 5], [2, 0, 0], [0, 0, 7]])
FP = torch.tensor([[1, 0, 0], [0, 0, 2], [0, 0, 1]])
FN = torch.tensor([[0, 0, 4], [3, 0, 0], [0, 0, 0]])


def fill(metric: ImageCounts, images: list[int]) -> ImageCounts:
    for i in images:
        metric.update(i, Counts(TP[i], FP[i], FN[i]), pixels=12)
    return metric


def test_scores_are_of_sums_over_images():
    scores = fill(ImageCounts(3), [0, 1, 2]).compute()
    assert scores["iou_per_class"][0] == pytest.approx(5 / 9)
    assert scores["iou_per_class"][1].isnan()
    assert scores["iou_per_class"][2] == pytest.approx(12 / 19)
    assert scores["miou"] == pytest.approx((5 / 9 + 12 / 19) / 2)
    assert scores["pixel_accuracy"] == pytest.approx(17 / 36)


def test_absent_classes_can_count_as_zero():
    assert fill(ImageCounts(3, "zero"), [0, 1, 2]).compute()["miou"] == pytest.approx((5 / 9 + 12 / 19) / 3)


def test_order_and_repetition_change_nothing():
    straight, shuffled = fill(ImageCounts(3), [0, 1, 2]), fill(ImageCounts(3), [2, 0, 1, 0])
    for a, b in zip(straight.compute().values(), shuffled.compute().values(), strict=True):
        assert torch.equal(a.nan_to_num(), b.nan_to_num())


def test_interval_holds_the_score():
    scores = fill(ImageCounts(3), [0, 1, 2]).compute()
    low, high = scores["miou_ci95"]
    assert low <= scores["miou"] <= high
    assert low < high


def test_nothing_counted_is_an_error():
    with pytest.warns(UserWarning, match="before the"), pytest.raises(RuntimeError, match="no image"):
        ImageCounts(3).compute()


def repeated(metric: ImageCounts, counts: list[int]) -> ImageCounts:
    """Image 0, 1 and 2 so many times."""
    for index, image in enumerate(i for i, count in enumerate(counts) for _ in range(count)):
        metric.update(index, Counts(TP[image], FP[image], FN[image]), pixels=12)
    return metric


def test_every_class_has_an_interval_of_its_own():
    scores = repeated(ImageCounts(3), [6, 6, 6]).compute()
    low, high = scores["iou_per_class_ci95"]
    assert (low[[0, 2]] <= scores["iou_per_class"][[0, 2]]).all()
    assert (scores["iou_per_class"][[0, 2]] <= high[[0, 2]]).all()
    assert low[1].isnan(), "never annotated nor predicted"


def test_a_class_annotated_in_too_few_images_has_no_interval():
    # Class 0 is annotated in images 0 and 1, class 2 in 0 and 2; image 1 has false positives of class 2 alone.
    many, few = FEWEST_IMAGES, FEWEST_IMAGES - 1
    for counts, told in (([many, 0, 0], [True, True]), ([0, many, few], [True, False]), ([few, 0, 0], [False, False])):
        scores = repeated(ImageCounts(3), counts).compute()
        intervals = scores["iou_per_class_ci95"]
        assert (~intervals.isnan()[:, [0, 2]]).tolist() == [told, told]
        assert not scores["iou_per_class"][0].isnan(), "the score itself is told"
        assert not scores["miou_ci95"].isnan().any(), "of the data set it is always written down"


def test_one_image_and_one_class_give_scores():
    metric = ImageCounts(1)
    metric.update(0, Counts(torch.tensor([3]), torch.tensor([1]), torch.tensor([0])), pixels=4)
    scores = metric.compute()
    assert scores["miou"] == scores["pixel_accuracy"] == 0.75
    assert scores["iou_per_class_ci95"].isnan().tolist() == [[True], [True]]
    assert scores["miou_ci95"].tolist() == [0.75, 0.75]


def half(rank: int, port: int, queue: "multiprocessing.Queue[list[float]]") -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    scores = fill(ImageCounts(3), [0, 2] if rank == 0 else [1]).compute()
    queue.put([scores["miou"].item(), scores["pixel_accuracy"].item(), *scores["miou_ci95"].tolist()])
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_give_the_scores_of_one():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=half, args=(rank, port, queue)) for rank in range(2)]
    for worker in workers:
        worker.start()
    results = [queue.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    whole = fill(ImageCounts(3), [0, 1, 2]).compute()
    expected = [whole["miou"].item(), whole["pixel_accuracy"].item(), *whole["miou_ci95"].tolist()]
    assert results == [expected, expected]
