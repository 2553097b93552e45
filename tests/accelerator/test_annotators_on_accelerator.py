"""Several annotators on the pretended accelerator: what is kept is the host's, and nobody waits for each of them."""

import torch
from device_runs import uploaded

from benchmarks.pretended import DEVICE
from diffcut_bench.evaluation import Annotators, measure_image


def maps(annotators: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 5, (annotators, 24, 36), generator=torch.Generator().manual_seed(seed))


def kept(labels, there, prediction):
    found = Annotators.of(labels, there).scored(prediction)
    return [measure_image(images, {"matching": "regions"}) for images in found]


def test_annotators_are_counted_in_one_go(accelerator):
    crossings = []
    for numbers in ([1], [2, 5, 3]):
        labels = [maps(number, seed) for seed, number in enumerate(numbers)]
        prediction = maps(len(numbers), 9)
        there, predicted = [uploaded(label) for label in labels], uploaded(prediction)
        accelerator.taken()
        found = kept(labels, there, predicted)
        crossings.append(accelerator.taken().crossings.total())
        assert found == kept(labels, labels, prediction)
    assert there[0].device == DEVICE
    assert crossings[0] == crossings[1] <= 2, "of the tables, and of the boundaries"
