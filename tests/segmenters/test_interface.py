"""Any function or object is a segmenter: what it needs is read from its parameters, what it gives is asked of it."""

from functools import partial

import numpy as np
import pytest
import torch

from diffcut_bench.config import instantiate, known_options, load_config
from diffcut_bench.errors import UserError
from diffcut_bench.segmenters import DiffCut, Inputs, Precomputed, as_segmenter, segment_together, sharing_groups

BATCH = Inputs(
    torch.rand(2, 4, 3, 5),
    torch.rand(2, 3, 6, 8),
    [1, 3],
    ["a", "b"],
    [lambda ids, covers="image": ids] * 2,
    labels=torch.arange(96).view(2, 6, 8),
    grid_sizes=[(3, 5)] * 2,
)


class Halves:
    """Left and right, of a class that says for itself what it needs and gives."""

    needs = ("features",)
    gives = "finer_partition"
    consistent_ids = True
    immaterial = ("folder",)

    def __call__(self, **inputs):
        return torch.arange(20).repeat(len(inputs["features"]), 12, 1) // 10

    def depends_on(self, image_ids):
        return {"seen": len(image_ids)}


class Module(torch.nn.Module):
    def forward(self, features):
        return features.argmax(dim=1)


def by_features(features):
    return features.argmax(dim=1)


def by_image(image, shades=2):
    return (image.mean(dim=0) * shades).long()


def by_images(images, class_counts):
    return (images.mean(dim=1) * torch.tensor(class_counts)[:, None, None]).long()


def by_id(image_id, rescale):
    return rescale(torch.full((6, 8), len(image_id)))


def by_label(label, grid_size):
    return label.clamp(max=grid_size[1])


def by_labels(labels, grid_sizes):
    return labels.clamp(max=grid_sizes[0][1])


def by_both(features, image):
    return (features.mean() < image.mean(dim=0)).long()


@pytest.mark.parametrize(
    ("method", "needs", "gives"),
    [
        (by_features, {"features"}, "partition"),
        (Module(), {"features"}, "partition"),
        (by_image, {"images"}, "label_map"),
        (partial(by_image, shades=4), {"images"}, "label_map"),
        (by_images, {"images", "class_counts"}, "label_map"),
        (by_id, {"image_ids", "rescale"}, "label_map"),
        (by_label, {"labels", "grid_sizes"}, "label_map"),
        (by_labels, {"labels", "grid_sizes"}, "label_map"),
        (by_both, {"features", "images"}, "partition"),
        (Halves(), {"features"}, "finer_partition"),
        (partial(Halves()), {"features"}, "finer_partition"),
    ],
)
def test_what_a_method_needs_and_gives(method, needs, gives):
    segmenter = as_segmenter(method)
    assert (segmenter.needs, segmenter.gives) == (needs, gives)
    assert as_segmenter(segmenter) is segmenter


def test_a_method_is_called_with_what_it_names():
    assert torch.equal(as_segmenter(by_features)(BATCH), by_features(BATCH.features))
    assert torch.equal(as_segmenter(Module())(BATCH), by_features(BATCH.features))
    assert torch.equal(as_segmenter(by_images)(BATCH), by_images(BATCH.images, [1, 3]))
    assert torch.equal(as_segmenter(by_labels)(BATCH), BATCH.labels.clamp(max=5))
    for method, of_one in (
        (by_image, lambda n: by_image(BATCH.images[n])),
        (partial(by_image, shades=5), lambda n: by_image(BATCH.images[n], 5)),
        (by_both, lambda n: by_both(BATCH.features[n], BATCH.images[n])),
        (by_id, lambda n: torch.ones(6, 8)),
        (by_label, lambda n: BATCH.labels[n].clamp(max=5)),
    ):
        given = as_segmenter(method)(BATCH)
        assert len(given) == 2 and all(torch.equal(each, of_one(n)) for n, each in enumerate(given))
    assert as_segmenter(Halves())(BATCH).shape == (2, 12, 20)


def test_arrays_of_numpy_become_tensors():
    def cut(image):
        return (np.asarray(image[0]) * 3).astype(np.uint16)[::-1]

    (first, _) = as_segmenter(cut)(BATCH)
    assert torch.equal(first, (BATCH.images[0, 0] * 3).long().flip(0))


def test_what_it_gives_may_be_said_when_it_is_made():
    assert as_segmenter(by_both, gives="label_map").gives == "label_map"


def test_the_key_holds_settings_and_what_the_method_says_itself():
    settings = {"size": 3, "folder": "/here", "max_memory_gib": 4}
    assert as_segmenter(Halves()).identity(settings, ["a", "b"]) == {"seen": 2, "size": 3}
    assert as_segmenter(by_features).identity(settings, ["a"]) == {"size": 3, "folder": "/here"}
    assert as_segmenter(Halves()).consistent_ids and not as_segmenter(by_features).consistent_ids


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (3, "int can't be called"),
        (lambda: 0, "takes nothing of an image"),
        (lambda feature: 0, "nothing fills the parameter feature .*did you mean features"),
        (lambda features, size: 0, "nothing fills the parameter size"),
        (DiffCut, r"DiffCut is a class.*give an object of it: DiffCut\(…\)"),
        (partial(Precomputed, folder="."), "Precomputed is a class"),
        (lambda images, image_id: 0, "takes images of a batch and image_id of one image"),
    ],
)
def test_what_cannot_be_a_segmenter_is_told_why(method, message):
    with pytest.raises(UserError, match=r"(?s)" + message):
        as_segmenter(method)


def test_attributes_out_of_range():
    with pytest.raises(UserError, match="did you mean partition"):
        as_segmenter(by_features, gives="partitions")
    with pytest.raises(UserError, match="takes no features"):
        as_segmenter(by_image, gives="partition")
    odd = Halves()
    odd.needs = ("features", "depth")
    with pytest.raises(UserError, match="needs depth"):
        as_segmenter(odd)


def test_settings_of_one_class_share_work_and_others_keep_their_own():
    methods = [DiffCut(tau=0.9), by_features, DiffCut(tau=0.2), Module(), Module()]
    segmenters = [as_segmenter(method) for method in methods]
    assert sharing_groups(segmenters) == [[0, 2], [1], [3], [4]]
    together = segment_together([segmenters[0], segmenters[2]], BATCH)
    assert all(torch.equal(a, b(BATCH.features)) for a, b in zip(together, methods[:3:2], strict=True))


OPTIONS = {
    "diffseg": ({"features"}, "finer_partition"),
    "kmeans": ({"features", "class_counts"}, "partition"),
    **dict.fromkeys(("precomputed", "ucm"), ({"image_ids", "rescale"}, "label_map")),
    **dict.fromkeys(("slic", "felzenszwalb"), ({"images"}, "label_map")),
    **dict.fromkeys(("grid", "one_segment"), ({"scored_sizes"}, "label_map")),
    "oracle": ({"labels", "grid_sizes"}, "label_map"),
    "cluster_probe": ({"features", "scored_sizes"}, "label_map"),
}


@pytest.mark.parametrize("option", known_options("segmenter"))
def test_every_option_fits(option, tmp_path):
    torch.save({"cluster_probe.clusters": torch.eye(3)}, tmp_path / "head.pth")
    files = {
        **{name: [f"segmenter.folder={tmp_path}"] for name in ("precomputed", "ucm")},
        "cluster_probe": [f"segmenter.checkpoint={tmp_path / 'head.pth'}", "segmenter.projection=none"],
    }.get(option, [])
    segmenter = as_segmenter(instantiate("segmenter", load_config([f"segmenter={option}", *files]).segmenter))
    assert (segmenter.needs, segmenter.gives) == OPTIONS.get(option, ({"features"}, "partition"))
