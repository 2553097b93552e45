"""Pixels on and near boundaries are those of a plain version with SciPy, void and several annotators included."""

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation, binary_erosion

from diffcut_bench.evaluation import BoundaryCounts, count_boundaries
from diffcut_bench.evaluation.boundaries import reach_of

CLASSES, CLUSTERS = 5, 9
SQUARE = np.ones((3, 3), dtype=bool)


def random_images(seed: int, size: tuple[int, int], annotators: int = 1, void: float = 0.0, images: int = 4):
    """Predictions [images, height, width] and labels [images, annotators, height, width] of patches."""
    generator = np.random.default_rng(seed)

    def patches(most: int) -> np.ndarray:
        patch = generator.integers(1, 8)
        coarse = generator.integers(0, generator.integers(1, most + 1), -(-np.array(size) // patch))
        return np.kron(coarse, np.ones((patch, patch), dtype=int))[: size[0], : size[1]]

    prediction = np.stack([patches(CLUSTERS) for _ in range(images)])
    labels = np.stack([[patches(CLASSES) for _ in range(annotators)] for _ in range(images)])
    return prediction, np.where(generator.random(labels.shape) < void, -1, labels)


def plain_boundary(ids: np.ndarray, reach: int) -> np.ndarray:
    """Pixel by pixel: the next scored pixels in eight directions, those in rows and columns over void."""
    height, width = ids.shape
    on = np.zeros(ids.shape, dtype=bool)
    for y, x in zip(*np.nonzero(ids >= 0), strict=True):
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                farthest = 1 if down and right else 2 * reach
                for step in range(1, farthest + 1) if down or right else ():
                    there = y + step * down, x + step * right
                    if not (0 <= there[0] < height and 0 <= there[1] < width):
                        break
                    if ids[there] >= 0:
                        on[y, x] |= ids[there] != ids[y, x]
                        break
    return on


def grown(mask: np.ndarray, distance: int) -> np.ndarray:
    return binary_dilation(mask, SQUARE, iterations=distance) if distance else mask


def plain_counts(prediction: np.ndarray, labels: np.ndarray) -> list[BoundaryCounts]:
    """Of one image, for each annotator."""
    reach = reach_of(prediction.shape)
    masked = [np.where(label >= 0, prediction, -1) for label in labels]
    annotated = [plain_boundary(label, reach) for label in labels]
    predicted = [plain_boundary(each, reach) for each in masked]
    near_any = grown(np.any(annotated, axis=0), reach)
    found = []
    for label, theirs, ours in zip(labels, annotated, predicted, strict=True):
        known = label >= 0
        of_label, of_prediction = (known & grown(each, reach - 1) for each in (theirs, ours))
        table = np.zeros((CLASSES, CLUSTERS), dtype=int)
        both = of_label & of_prediction
        np.add.at(table, (label[both], prediction[both]), 1)
        found.append(
            BoundaryCounts(
                int(ours.sum()),
                int((ours & near_any).sum()),
                int(theirs.sum()),
                int((theirs & grown(ours, reach)).sum()),
                torch.from_numpy(table),
                torch.from_numpy(np.bincount(label[of_label], minlength=CLASSES)),
                torch.from_numpy(np.bincount(prediction[of_prediction], minlength=CLUSTERS)),
            )
        )
    return found


def counted(prediction: np.ndarray, labels: np.ndarray) -> list[list[BoundaryCounts]]:
    return count_boundaries(torch.from_numpy(prediction), torch.from_numpy(labels), CLASSES, CLUSTERS)


def same(one: BoundaryCounts, other: BoundaryCounts) -> bool:
    return one[:4] == other[:4] and all(torch.equal(*each) for each in zip(one[4:], other[4:], strict=True))


@pytest.mark.parametrize("annotators", [1, 3])
def test_counts_are_those_of_a_plain_version(annotators):
    generator = np.random.default_rng(annotators)
    sizes = [(1, 1), (1, 9), (7, 1), (2, 2), (20, 31), (90, 120)]
    for case in range(250):
        size = sizes[-1] if case % 50 == 0 else sizes[case % 5]
        void = (0, 0.1, 0.5, 0.9, 1)[generator.integers(5)]
        prediction, labels = random_images(case, size, annotators, void)
        found = counted(prediction, labels)
        for image, own in enumerate(found):
            expected = plain_counts(prediction[image], labels[image])
            assert len(own) == annotators
            assert all(map(same, own, expected)), (case, image)


def test_bands_are_those_of_boundary_iou_where_nothing_is_void():
    """Cheng et al. erode each mask with a square of 3 × 3; the edge of the image is no boundary here."""
    for seed in range(20):
        prediction, labels = random_images(seed, (80, 100), images=1)
        (((*_, bands, of_classes, _),),) = counted(prediction, labels)
        reach = reach_of((80, 100))
        assert reach == 3
        label = labels[0, 0]
        for name in range(CLASSES):
            mask = label == name
            band = mask & ~binary_erosion(mask, SQUARE, iterations=reach, border_value=1)
            assert of_classes[name] == band.sum()
        assert bands.sum() <= of_classes.sum()


def test_the_reach_is_two_percent_of_the_diagonal():
    assert [reach_of(size) for size in ((128, 128), (512, 512), (375, 500), (4, 4))] == [4, 14, 12, 1]


def test_a_strip_of_void_is_a_boundary_of_what_it_divides_and_a_wide_one_is_not():
    for width, annotated in ((0, 2), (1, 2), (7, 2), (8, 0)):  # a reach of 4: at most 8 pixels from one to the other
        label = torch.zeros(1, 1, 128, 128, dtype=torch.long)
        label[..., 64:] = 1
        label[..., 64 - width : 64] = -1
        ((found,),) = count_boundaries(label[:, 0].clamp_min(0), label, 2, 2)
        assert found[:4] == (annotated * 128,) * 4, "of equal maps as well"


def test_there_is_no_boundary_between_void_and_a_region():
    label = torch.full((1, 1, 30, 30), -1)
    label[..., 10:20, 10:20] = 2
    ((found,),) = count_boundaries(0 * label[:, 0], label, 3, 1)
    assert found[:4] == (0, 0, 0, 0)


@pytest.mark.parametrize(("shift", "near"), [(0, 256), (4, 256), (5, 128), (6, 0)])
def test_a_boundary_is_near_up_to_the_reach(shift, near):
    label, prediction = (torch.zeros(1, 128, 128, dtype=torch.long) for _ in range(2))
    label[..., 64:] = 1
    prediction[..., 64 + shift :] = 1
    ((found,),) = count_boundaries(prediction, label[:, None], 2, 2)
    assert found[:4] == (256, near, 256, near)


def test_mirrored_and_turned_images_have_the_same_counts():
    prediction, labels = random_images(3, (40, 60), void=0.3)
    expected = counted(prediction, labels)
    for turned in (
        lambda maps: maps[..., ::-1],
        lambda maps: maps[..., ::-1, :],
        lambda maps: np.swapaxes(maps, -1, -2),
    ):
        found = counted(turned(prediction).copy(), turned(labels).copy())
        assert all(
            same(*pair) for own, other in zip(found, expected, strict=True) for pair in zip(own, other, strict=True)
        )


def test_precision_is_against_all_annotators_and_recall_against_each():
    labels = torch.zeros(1, 2, 128, 128, dtype=torch.long)
    labels[:, 0, :, 30:] = 1
    labels[:, 1, :, 90:] = 1
    prediction = labels[:, 0]
    ((first, second),) = count_boundaries(prediction, labels, 2, 2)
    assert first[:4] == (256, 256, 256, 256)
    assert second[:4] == (256, 256, 256, 0)


def test_an_annotator_of_void_alone_counts_nothing_and_no_table_is_made_unasked():
    labels = torch.full((2, 1, 6, 8), -1)
    for ((found,),) in (
        count_boundaries(labels[:1, 0] + 3, labels[:1], 1, 4, with_bands=False),
        count_boundaries(labels[1:, 0] + 1, labels[1:], 1, 4, with_bands=False),
    ):
        assert found[:4] == (0, 0, 0, 0)
        assert found.bands.numel() == found.class_bands.numel() == found.cluster_bands.numel() == 0


def test_numbers_that_no_byte_holds_are_counted_alike():
    prediction, labels = random_images(5, (40, 60), annotators=2, void=0.3)
    expected = counted(prediction, labels)
    found = count_boundaries(torch.from_numpy(37 * prediction), torch.from_numpy(labels), CLASSES, 37 * CLUSTERS)
    for own, other in zip(found, expected, strict=True):
        for large, small in zip(own, other, strict=True):
            assert large[:4] == small[:4] and torch.equal(large.class_bands, small.class_bands)
            assert torch.equal(large.bands[:, ::37], small.bands) and large.bands.sum() == small.bands.sum()
            assert torch.equal(large.cluster_bands[::37], small.cluster_bands)
