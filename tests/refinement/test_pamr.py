import sys

import numpy as np
import pytest
import torch
from conftest import agreement
from scipy import ndimage
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from diffcut_bench.evaluation import match_image
from diffcut_bench.refinement import BilateralUpsampler, CrfRefiner, PamrRefiner, median_filter, pamr, refine_labels


def textbook_pamr(image: np.ndarray, masks: np.ndarray, iterations: int, dilations: tuple[int, ...]) -> np.ndarray:
    """Pixel by pixel: image [3, h, w], masks [k, h, w]."""
    _, height, width = image.shape

    def at(array: np.ndarray, y: int, x: int) -> np.ndarray:
        return array[:, min(max(y, 0), height - 1), min(max(x, 0), width - 1)]

    offsets = [(dy * d, dx * d) for d in dilations for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
    for _ in range(iterations):
        out = np.zeros_like(masks)
        for y in range(height):
            for x in range(width):
                near = np.stack([at(image, y + dy, x + dx) for dy, dx in offsets])
                centre = image[:, y, x]
                sigma = np.concatenate([near, np.repeat(centre[None], len(dilations), 0)]).std(axis=0, ddof=1)
                logits = (-np.abs(near - centre) / (1e-8 + 0.1 * sigma)).mean(axis=1)
                weights = np.exp(logits - logits.max())
                weights /= weights.sum()
                out[:, y, x] = sum(w * at(masks, y + dy, x + dx) for w, (dy, dx) in zip(weights, offsets, strict=True))
        masks = out
    return masks


def test_equals_the_textbook_version():
    generator = np.random.default_rng(0)
    image = generator.random((3, 9, 11))
    masks = np.eye(3)[generator.integers(0, 3, (9, 11))].transpose(2, 0, 1)
    ours = pamr(torch.from_numpy(image)[None], torch.from_numpy(masks)[None], iterations=3, dilations=(1, 4))
    assert np.allclose(ours[0].numpy(), textbook_pamr(image, masks, 3, (1, 4)), atol=1e-9)


@pytest.mark.shared
def test_soft_masks_equal_the_released_ones(shared):
    golden = np.load(shared / "golden" / "pamr.npz")
    for i in (0, 1):
        masks = torch.nn.functional.one_hot(torch.from_numpy(golden["labels_in"][i]).long()).permute(2, 0, 1).float()
        ours = pamr(torch.from_numpy(golden["image"][i])[None], masks[None])[0]
        assert (ours - torch.from_numpy(golden[f"soft{i}"])).abs().max() < 1e-4


@pytest.mark.shared
def test_labels_equal_the_released_ones(shared):
    golden = np.load(shared / "golden" / "pamr.npz")
    ours = refine_labels(torch.from_numpy(golden["image"]), torch.from_numpy(golden["labels_in"]).long()).numpy()
    assert min(agreement(a, b.astype(int)) for a, b in zip(ours, golden["labels_out"], strict=True)) >= 0.999


def test_masks_still_sum_to_one():
    masks = torch.softmax(torch.rand(2, 5, 20, 24), dim=1)
    refined = pamr(torch.rand(2, 3, 20, 24), masks)
    assert torch.allclose(refined.sum(dim=1), torch.ones(2, 20, 24), atol=1e-5)


def test_a_batch_equals_its_images_though_they_differ_in_segments():
    image = torch.rand(2, 3, 30, 20)
    labels = torch.stack([torch.randint(0, 2, (30, 20)), torch.randint(0, 7, (30, 20))])
    both = refine_labels(image, labels)
    assert torch.equal(both[0], refine_labels(image[:1], labels[:1])[0])
    assert torch.equal(both[1], refine_labels(image[1:], labels[1:])[0])


def test_moves_a_boundary_to_the_edge_in_the_image():
    image = torch.zeros(1, 3, 32, 32)
    image[..., 16:] = 1.0
    labels = torch.zeros(1, 32, 32, dtype=torch.long)
    labels[..., 14:] = 1  # two columns off
    refined = refine_labels(image, labels, iterations=20)
    assert (refined == (image[:, 0] > 0.5)).float().mean() > 0.99


def test_masks_are_numbered_from_zero_in_the_order_of_their_ids():
    labels = torch.zeros(1, 16, 16, dtype=torch.long)
    labels[..., 8:] = 9
    assert refine_labels(torch.rand(1, 3, 16, 16), labels, iterations=0).unique().tolist() == [0, 1]


def test_a_mask_that_vanishes_leaves_a_gap_and_the_matching_an_empty_column():
    labels = torch.zeros(128, 128, dtype=torch.long)
    labels[:, 64:] = 2
    labels[5, 5] = 1
    refined = refine_labels(torch.zeros(1, 3, 128, 128), labels[None])[0]
    assert torch.equal(refined, torch.where(labels == 1, 0, labels))
    counts = match_image(refined, torch.zeros_like(refined), num_classes=2)
    assert [each.tolist() for each in counts] == [[8192, 0], [0, 0], [8192, 0]]


@pytest.mark.shared
def test_maps_and_counts_where_masks_vanish_equal_the_released_ones(shared):
    golden = np.load(shared / "golden" / "refined_counts.npz")
    refined = refine_labels(torch.from_numpy(golden["images"]), torch.from_numpy(golden["labels"]).long())
    assert np.array_equal(refined, golden["refined"])
    assert sum(len(image.unique()) <= int(image.max()) for image in refined) > 7, "gaps"
    for image, truth, classes, expected in zip(
        refined, golden["ground_truth"], golden["num_classes"].tolist(), golden["counts"], strict=True
    ):
        counts = match_image(image, torch.from_numpy(truth).long(), classes)
        assert np.array_equal(torch.stack(counts), expected[:, :classes])


def test_half_precision_is_sound_on_a_plain_image():
    masks = torch.rand(1, 2, 12, 12).half()
    assert torch.isfinite(pamr(torch.full((1, 3, 12, 12), 0.5).half(), masks)).all()


def test_median_is_scipys():
    labels = torch.randint(0, 6, (3, 17, 12))
    for ours, image in zip(median_filter(labels), labels, strict=True):
        assert np.array_equal(ours.numpy(), ndimage.median_filter(image.numpy(), 3, mode="nearest"))


def test_option_does_what_the_function_does_and_checks_its_values():
    image, labels = torch.rand(1, 3, 16, 16), torch.randint(0, 4, (1, 16, 16))
    assert torch.equal(PamrRefiner(3, (1, 2))(image, labels), refine_labels(image, labels, 3, (1, 2)))
    for wrong in ({"dilations": (0, 1)}, {"dilations": ()}, {"iterations": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            PamrRefiner(**wrong)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (PamrRefiner, {"iterations": 2.5}),
        (PamrRefiner, {"dilations": [1.5]}),
        (CrfRefiner, {"iterations": 2.5}),
        (CrfRefiner, {"confidence": "high"}),
        (BilateralUpsampler, {"radius": 1.5}),
        (BilateralUpsampler, {"sigma_space": "wide"}),
    ],
)
def test_an_option_of_another_type_is_named_before_any_image_is_read(kind, options, monkeypatch):
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)  # as for a user: types are checked in tests alone
    with pytest.raises(ValueError, match=next(iter(options))):
        kind(**options)


def scene(images: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures, and labels of one segment in the first, of nine ids in the others."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 9, (images, 6, 5), generator=generator).repeat_interleave(4, 1).repeat_interleave(4, 2)
    labels[0] = 4
    return torch.rand(images, 3, 24, 20, generator=generator), labels


def test_segments_in_turns_give_the_same_labels(monkeypatch):
    image, labels = scene(2)
    whole = refine_labels(image, labels)
    for values in (1, 2 * labels.numel(), 5 * labels.numel()):
        monkeypatch.setattr(sys.modules["diffcut_bench.refinement.pamr"], "_CHUNK_VALUES", values)
        assert torch.equal(refine_labels(image, labels), whole)


@pytest.mark.parametrize("together", [2, 3, 1000])
def test_images_and_neighbours_together_as_on_an_accelerator_give_the_same_bits(monkeypatch, together):
    image, labels = scene(5)
    masks = torch.rand(5, 4, 24, 20)
    separate = [refine_labels(image[i : i + 1], labels[i : i + 1])[0] for i in range(5)]
    soft = pamr(image, masks)
    monkeypatch.setattr(sys.modules["diffcut_bench.refinement.pamr"], "_at_once", lambda values, device: together)
    assert torch.equal(pamr(image, masks), soft)
    assert torch.equal(refine_labels(image, labels), torch.stack(separate))


def test_each_image_of_a_batch_has_its_own_numbers():
    labels = torch.tensor([[[7, 7, 7, 7], [7, 7, 3, 3], [7, 7, 3, 3]], [[5, 5, 9, 9], [5, 5, 9, 9], [5, 5, 9, 9]]])
    refined = refine_labels(torch.zeros(2, 3, 3, 4), labels, iterations=0)
    assert refined[0].unique().tolist() == [0, 1]
    assert torch.equal(refined[1], (labels[1] == 9).long())


def test_memory_does_not_grow_by_a_copy_of_the_masks_a_neighbour():
    """The open-vocabulary setting has 64 neighbours: nothing of masks × neighbours × pixels may be made."""
    largest = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            largest.append(max((t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor)), default=0))
            return out

    labels = torch.arange(40).view(1, 5, 8).repeat_interleave(8, 1).repeat_interleave(8, 2)
    with Watch():
        refine_labels(torch.rand(1, 3, 40, 64), labels, 2, (1, 2, 4, 8, 12, 24, 32, 64))
    assert max(largest) <= 64 * 40 * 64 * 3
