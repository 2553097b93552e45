"""ODS and OIS against a plain computation."""

import numpy as np
import pytest
import torch

from diffcut_bench.evaluation import ImageTable, known_metrics, optimal_scale

NONE = torch.zeros(12, 0, dtype=torch.long)


def table(**measured) -> ImageTable:
    counts = torch.ones(12, dtype=torch.long)
    return ImageTable(
        NONE, NONE, NONE, counts, counts, {n: torch.tensor(each).double() for n, each in measured.items()}
    )


def sweep(seed: int, settings: int = 7):
    """Statistics of settings: means of 12 images, and counts of boundary pixels."""
    generator = np.random.default_rng(seed)
    means = np.stack([generator.random((settings, 12)), np.ones((settings, 12))], axis=2)
    near, more = generator.integers(0, 40, (2, settings, 12, 2)).astype(float)
    counts = np.stack([near[..., 0], near[..., 0] + more[..., 0], near[..., 1], near[..., 1] + more[..., 1]], axis=2)
    return means, counts


def f_of(counts):
    near, of, found, all_ = counts
    precision, recall = near / max(of, 1), found / max(all_, 1)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("name", ["covering", "voi"])
def test_scores_that_are_means_over_images(name, seed):
    means, _ = sweep(seed)
    best = min if name == "voi" else max
    settings = [table(**{name: own}) for own in means]
    fixed = optimal_scale(known_metrics()[name], settings, {})
    assert fixed.score == pytest.approx(best(means[:, :, 0].mean(axis=1)))
    assert means[fixed.setting, :, 0].mean() == pytest.approx(fixed.score)
    each = optimal_scale(known_metrics()[name], settings, {}, of_each_image=True)
    assert each.score == pytest.approx(np.mean([best(means[:, image, 0]) for image in range(12)]))
    assert each.setting is None


@pytest.mark.parametrize("seed", range(20))
def test_counts_are_summed_at_each_images_best(seed):
    _, counts = sweep(seed)
    settings = [table(boundary_f=own) for own in counts]
    metric = known_metrics()["boundary_f"]
    assert optimal_scale(metric, settings, {}).score == pytest.approx(max(f_of(own.sum(axis=0)) for own in counts))
    picked = sum(max((own[image] for own in counts), key=f_of) for image in range(12))
    assert optimal_scale(metric, settings, {}, of_each_image=True).score == pytest.approx(f_of(picked))


@pytest.mark.parametrize("of_each_image", [False, True])
@pytest.mark.parametrize("name", ["covering", "voi", "boundary_f"])
def test_intervals_draw_the_same_images_for_all_settings_and_choose_anew(name, of_each_image):
    means, counts = sweep(3)
    given = counts if name == "boundary_f" else means
    metric, generator = known_metrics()[name], np.random.default_rng(5)
    score = (lambda sums: f_of(sums)) if name == "boundary_f" else (lambda sums: sums[0] / sums[1])
    best = min if name == "voi" else max
    drawn = []
    for times in generator.multinomial(12, np.full(12, 1 / 12), size=300):
        if of_each_image:
            picked = [best((own[image] for own in given), key=score) for image in range(12)]
            drawn.append(score(sum(often * one for often, one in zip(times, picked, strict=True))))
        else:
            drawn.append(best(score(times @ own) for own in given))
    found = optimal_scale(
        metric, [table(**{name: own}) for own in given], {}, of_each_image=of_each_image, resamples=300, seed=5
    )
    assert found.interval == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))
    assert found.interval[0] < found.score < found.interval[1]


def test_one_setting_is_the_plain_score():
    means, _ = sweep(0, settings=1)
    for of_each_image in (False, True):
        found = optimal_scale(known_metrics()["pri"], [table(pri=means[0])], {}, of_each_image=of_each_image)
        assert found.score == pytest.approx(means[0, :, 0].mean())


def test_a_setting_at_which_an_image_has_no_score_is_not_its_best():
    first, second = np.array([[[0.0, 0.0]] + [[0.5, 1.0]] * 11, [[0.2, 1.0]] * 12])
    settings = [table(covering=first), table(covering=second)]
    each = optimal_scale(known_metrics()["covering"], settings, {}, of_each_image=True)
    assert each.score == pytest.approx((0.2 + 11 * 0.5) / 12)


def test_scores_of_classes_take_the_mean_over_classes_at_each_setting():
    generator = np.random.default_rng(2)
    counts = generator.integers(1, 50, (5, 3, 12, 4))  # settings; TP, FP, FN; images; classes
    ones = torch.ones(12, dtype=torch.long)
    settings = [ImageTable(*(torch.from_numpy(each) for each in own), ones, ones) for own in counts]
    sums = counts.sum(axis=2)
    plain = (sums[:, 0] / sums.sum(axis=1)).mean(axis=1)
    found = optimal_scale(known_metrics()["miou"], settings, {})
    assert (found.score, found.setting) == (pytest.approx(plain.max()), plain.argmax())
    of_each = (counts[:, 0] / counts.sum(axis=1)).mean(axis=2)  # settings, images
    best = of_each.argmax(axis=0)
    picked = counts[best, :, np.arange(12)].sum(axis=0)
    each = optimal_scale(known_metrics()["miou"], settings, {}, of_each_image=True)
    assert each.score == pytest.approx((picked[0] / picked.sum(axis=0)).mean())
