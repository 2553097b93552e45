import multiprocessing
import os
import socket

import pytest
import torch

from diffcut_bench.evaluation import Counts, ImageCounts, ImageTable, score_images

TP = torch.tensor([[3, 0, 5], [2, 0, 0], [0, 0, 7]])
FP = torch.tensor([[1, 0, 0], [0, 0, 2], [0, 0, 1]])
FN = torch.tensor([[0, 0, 4], [3, 0, 0], [0, 0, 0]])


def fill(metric: ImageCounts, images: list[int]) -> ImageCounts:
    for i in images:
        metric.update(i, Counts(TP[i], FP[i], FN[i]), pixels=12)
    return metric


def test_its_scores_are_those_of_the_metrics():
    scores = fill(ImageCounts(3, "zero"), [0, 1, 2]).compute()
    images = ImageTable(TP, FP, FN, torch.full((3,), 12), torch.zeros(3, dtype=torch.long))
    found = score_images(images, {"absent_classes": "zero"})
    for name, per_class in (("miou", "iou_per_class"), ("pixel_accuracy", None)):
        assert scores[name] == found[name].scores[0]
        assert torch.equal(scores[f"{name}_ci95"], found[name].interval[:, 0])
        if per_class is not None:
            assert torch.equal(scores[per_class].nan_to_num(), found[name].scores[1:].nan_to_num())
            assert scores[f"{per_class}_ci95"].isnan().all(), "three images are too few"


def test_order_and_repetition_change_nothing():
    straight, shuffled = fill(ImageCounts(3), [0, 1, 2]), fill(ImageCounts(3), [2, 0, 1, 0])
    for a, b in zip(straight.compute().values(), shuffled.compute().values(), strict=True):
        assert torch.equal(a.nan_to_num(), b.nan_to_num())


def test_nothing_counted_is_an_error():
    with pytest.warns(UserWarning, match="before the"), pytest.raises(RuntimeError, match="no image"):
        ImageCounts(3).compute()


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
