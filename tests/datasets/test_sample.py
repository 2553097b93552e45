import json
from importlib.resources import files

import numpy as np

from diffcut_bench.datasets import sample


def test_at_least_eight_photographs_with_free_licences():
    photographs = json.loads((files("diffcut_bench.datasets") / "sample.json").read_text())["photographs"]
    assert len(photographs) == len(sample())
    assert (
        sum(len({region["class"] for region in photo["regions"]} | {photo["fill"]}) > 1 for photo in photographs) >= 8
    )
    assert {photo["licence"].split(" ")[0].rstrip(";,") for photo in photographs} <= {"public", "CC0"}


def test_every_label_fits_its_photograph_and_every_class_occurs():
    data = sample()
    seen: set[int] = set()
    for index in range(len(data)):
        image, label = data.read(index)
        assert label.shape == image.size[::-1]
        seen |= set(np.unique(label).tolist())
    assert seen - {-1} == set(range(data.num_classes))
    assert data.class_names[data.background] == "background"


def test_known_pixels_have_the_class_that_one_sees_there():
    data = sample()
    index_of = {name: index for index, name in enumerate(data.ids)}
    for name, x, y, expected in (
        ("astronaut", 230, 120, "person"),
        ("astronaut", 20, 100, "flag"),
        ("astronaut", 400, 460, "helmet"),
        ("chelsea", 200, 150, "cat"),
        ("coffee", 300, 150, "coffee"),
        ("coffee", 20, 380, "table"),
        ("rocket", 320, 230, "rocket"),
        ("camera", 100, 30, "sky"),
        ("camera", 400, 420, "grass"),
        ("clock", 200, 150, "clock"),
        ("retina", 700, 700, "retina"),
        ("cell", 5, 5, "background"),
        ("brick", 100, 100, "wall"),
    ):
        label = data.read(index_of[name])[1]
        assert data.class_names[label[y, x]] == expected, (name, x, y)
