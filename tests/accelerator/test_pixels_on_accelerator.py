"""Upsampling, refinement, matching, naming and coherence on the pretended accelerator: results are the CPU's."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import text_checkpoints
import torch
from device_runs import compare, computed_there, uploaded

from benchmarks.pretended import DEVICE
from diffcut_bench.coherence.heatmaps import similarity_map
from diffcut_bench.coherence.roc import cosine, pair_scores
from diffcut_bench.coherence.sampling import PatchGrid, SamplingOptions, draw_pairs, grid_features, make_plan
from diffcut_bench.evaluation import (
    ImageCounts,
    ScoredImage,
    assign_clusters,
    contingency_tables,
    count_boundaries,
    count_matches,
    match_image,
    measure_image,
    merge_and_count,
    merge_backgrounds,
    number_by_first_pixel,
)
from diffcut_bench.linking import segment_prototypes
from diffcut_bench.naming import ClipEncoder, Namer
from diffcut_bench.naming.namer import best_synonyms, pool_segments
from diffcut_bench.refinement import (
    CrfRefiner,
    assign_concepts,
    assign_concepts_by_colour,
    assign_cut_by_cut,
    median_filter,
    merge_speckles,
    pamr,
    refine_labels,
    upsample_nearest,
)

HOST = torch.device("cpu")
CLASSES = 5


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def numbers(high: int, *shape: int, low: int = 0, seed: int = 0) -> torch.Tensor:
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed))


def tables(prediction: torch.Tensor, label: torch.Tensor) -> list[torch.Tensor]:
    return contingency_tables(prediction, label, CLASSES)


FEATURES, PARTITION = random(3, 8, 6, 6) - 0.5, numbers(7, 3, 6, 6)
PICTURES, PREDICTION = random(3, 3, 24, 24), numbers(9, 3, 24, 24, seed=1)
LABEL = numbers(CLASSES, 3, 24, 24, low=-1, seed=2)
LARGE = numbers(9, 3, 96, 96, seed=1), numbers(CLASSES, 3, 96, 96, low=-1, seed=2)

STAGES: dict[str, Any] = {
    "concepts": (lambda f, p: assign_concepts(f, p, (24, 24)), FEATURES, PARTITION),
    "concepts, cosine": (lambda f, p: assign_concepts(f, p, (24, 24), "cosine"), FEATURES, PARTITION),
    "concepts, half precision": (lambda f, p: assign_concepts(f, p, (24, 24)), FEATURES.half(), PARTITION),
    "concepts, cut by cut": (
        lambda f, sides: assign_cut_by_cut(f, sides, [0, 1], (24, 24)),
        FEATURES[0],
        torch.stack([PARTITION[0].flatten() < 4, PARTITION[0].flatten() == 1]),
    ),
    "concepts by colour": (lambda i, p: assign_concepts_by_colour(i[..., ::4, ::4], p, i), PICTURES, PARTITION),
    "nearest": (lambda p: upsample_nearest(p, (24, 24)), PARTITION),
    "pamr": (lambda i, m: pamr(i, m, iterations=3), PICTURES, random(3, 4, 24, 24)),
    "median": (median_filter, PREDICTION),
    "refined labels": (lambda i, p: refine_labels(i, p, iterations=3), PICTURES, PREDICTION),
    "numbered": (number_by_first_pixel, PREDICTION),
    "pooled": (lambda d, s: pool_segments(d, s), FEATURES, PREDICTION),
    "pooled, nearest exact": (lambda d, s: pool_segments(d, s, "nearest_exact"), FEATURES, PREDICTION),
    "cosine of patches": (cosine, random(9, 6), random(7, 6, seed=3)),
    "features on a grid": (lambda f: grid_features(f, (4, 5)), FEATURES[0]),
}


@pytest.mark.parametrize("what", STAGES)
def test_stages_are_the_hosts(accelerator, what):
    stage, *inputs = STAGES[what]
    assert computed_there(compare(accelerator, stage, *inputs), inputs)


@pytest.mark.parametrize(
    "what", [what for what, (_, first, *_) in STAGES.items() if first.dim() > 2 and len(first) == 3]
)
def test_the_host_waits_no_more_for_a_larger_batch(accelerator, what):
    stage, *inputs = STAGES[what]
    waits = []
    for images in (1, 3):
        there = [each[:images].to(DEVICE) for each in inputs]
        accelerator.taken()
        stage(*there)
        waits.append(accelerator.taken().crossings.total())
    assert waits[0] == waits[1] <= 2


@pytest.mark.parametrize("what", [what for what, (_, *inputs) in STAGES.items() if len(inputs) > 1])
def test_stages_refuse_what_is_elsewhere(accelerator, what):
    """So that a stage which quietly went to the host would be seen."""
    stage, first, second = STAGES[what]
    with pytest.raises(RuntimeError, match="same device"):
        stage(first.to(DEVICE), second)
    with pytest.raises(RuntimeError, match="same device"):
        stage(first, second.to(DEVICE))


def test_the_dense_crf_goes_to_the_host_and_back(accelerator):
    pytest.importorskip("pydensecrf", reason="pip install 'diffcut_bench[crf]'")
    counts = compare(accelerator, CrfRefiner(), PICTURES, PREDICTION)
    assert counts.crossings.total() == 2


def test_tables_are_counted_there_and_come_to_the_host(accelerator):
    inputs = LARGE
    counts = compare(accelerator, tables, *inputs, gives=HOST)
    assert computed_there(counts, inputs)
    assert counts.crossings.total() == 1  # for the batch


def test_prototypes_are_made_there_and_come_to_the_host(accelerator):
    """With few kernels, and one crossing for a batch of any size."""
    features, prediction, asked = random(8, 96, 8, 8), PREDICTION[:1].expand(8, -1, -1), []
    for images in (1, 8):
        inputs = features[:images], prediction[:images].contiguous()
        present = torch.isin(torch.arange(int(PREDICTION.max()) + 1), PREDICTION[0]).expand(images, -1)
        counts = compare(accelerator, partial(segment_prototypes, present=present), *inputs, gives=HOST)
        assert counts.crossings.total() == 1
        asked.append(counts.kernels.total())
    assert asked[0] == asked[1] < 40


def test_boundaries_are_counted_there_with_as_many_kernels_for_a_batch_as_for_an_image(accelerator):
    def counted(prediction, label):
        return [[*found[4:], torch.tensor(found[:4])] for (found,) in count_boundaries(prediction, label, CLASSES, 9)]

    inputs = LARGE[0], LARGE[1][:, None]
    counts = compare(accelerator, counted, *inputs, gives=HOST)
    assert computed_there(counts, inputs)
    assert counts.crossings.total() == 1
    one = compare(accelerator, counted, *(each[:1] for each in inputs), gives=HOST)
    assert counts.kernels.total() == one.kernels.total() < 120


def test_tables_of_more_clusters_than_supposed_are_counted_again(accelerator):
    many = PREDICTION + 300 * (PREDICTION == 2), LABEL
    assert compare(accelerator, tables, *many, gives=HOST).crossings.total() == 2
    merged = compare(accelerator, lambda p, t: merge_backgrounds(p, t, CLASSES, 0, "unmatched"), *many)
    assert merged.crossings.total() == 2


@pytest.mark.parametrize(("prediction", "label"), [(-1, 0), (-(2**40), 0), (0, CLASSES), (0, -2), (0, 2**40)])
def test_ids_out_of_range_do_not_leave_the_tables(accelerator, prediction, label):
    """On a GPU an index out of range would end the process."""
    wrong = [where.index_fill(2, torch.tensor(5), value) for where, value in ((PREDICTION, prediction), (LABEL, label))]
    for ids in (wrong, uploaded(wrong)):
        with pytest.raises(ValueError, match="ids must"):
            tables(*ids)


def test_refinement_asks_as_much_for_a_batch_as_for_an_image(accelerator):
    one, all_of_them = (
        compare(accelerator, refine_labels, PICTURES[:images], PREDICTION[:images]) for images in (1, len(PICTURES))
    )
    assert all_of_them.kernels.total() == one.kernels.total() < 100
    assert all_of_them.crossings.total() == one.crossings.total() == 2


def test_speckles_are_merged_with_one_wait_a_batch(accelerator):
    for images in (1, 3):
        inputs = PREDICTION[:images], FEATURES[:images]
        counts = compare(accelerator, partial(merge_speckles, smallest=0.02), *inputs)
        assert counts.crossings.total() == 1
        assert counts.kernels.total() == 3  # copies


def test_synonyms_are_compared_at_once(accelerator):
    counts = compare(accelerator, lambda s: best_synonyms(s, [1, 3, 2] * 20), random(30, 120))
    assert counts.kernels.total() < 10
    assert not counts.crossings


@pytest.mark.parametrize("rule", ["unmatched", "overlap", "one_to_one"])
@pytest.mark.parametrize("surplus", ["absent_class", "unmatched"])
def test_backgrounds_are_merged_there(accelerator, rule, surplus):
    def merged(prediction, label):
        return merge_backgrounds(prediction, label, CLASSES, 0, rule, surplus=surplus)

    def counted_as_well(prediction, label):
        return merge_and_count(prediction, label, CLASSES, 0, rule, surplus=surplus)[1]

    counts = compare(accelerator, merged, *LARGE)
    assert rule == "one_to_one" or computed_there(counts, LARGE)
    assert counts.crossings.total() == (rule != "one_to_one")  # for the batch
    assert compare(accelerator, counted_as_well, *LARGE, gives=HOST).crossings.total() == 1


@pytest.mark.parametrize("surplus", ["absent_class", "unmatched"])
def test_counts_of_an_image_are_the_hosts(accelerator, surplus):
    def counted(prediction, label):
        tables = contingency_tables(prediction, label, CLASSES)
        alone = match_image(prediction[0], label[0], CLASSES, background=0, surplus=surplus)
        return [*(count_matches(table, surplus=surplus) for table in tables), alone]

    compare(accelerator, counted, PREDICTION, LABEL, gives=HOST)


def test_what_metrics_measure_is_the_hosts(accelerator):
    of_images = tables(PREDICTION, LABEL)
    boundaries = count_boundaries(PREDICTION, LABEL[:, None], CLASSES, 9)
    there = uploaded((PREDICTION, LABEL))
    for image, table in enumerate(of_images):
        on_host = (table, 0, assign_clusters(table), boundaries[image][0])
        own, other = (ScoredImage(p[image], t[image], *on_host) for p, t in ((PREDICTION, LABEL), there))
        assert measure_image([other], {}) == measure_image([own], {})


def test_the_metric_of_counts_can_live_there(accelerator):
    found = []
    for device in (HOST, DEVICE):
        metric = ImageCounts(num_classes=CLASSES, resamples=10).to(device)
        for index, table in enumerate(contingency_tables(PREDICTION, LABEL, CLASSES)):
            metric.update(index, count_matches(table), int(table.sum()))
        found.append({name: value.cpu() for name, value in metric.compute().items()})
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name].to(value), value, rtol=0, atol=0, equal_nan=True)


def test_colours_are_named_there(accelerator):
    classes = ["red", "green", "blue"]
    segments = numbers(4, 2, 16, 16)

    def named(images, segments):
        names = Namer(Colours()).for_classes(classes, None, images.device)(images, segments)
        return names.labels, names.classes, names.scores

    class Colours(text_checkpoints.Colours):
        def text(self, texts):
            return super().text(texts).to(self.device)

    inputs = random(2, 3, 64, 64), segments
    assert computed_there(compare(accelerator, named, *inputs), inputs)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_names_of_a_network_are_the_hosts(accelerator, tmp_path, kind):
    text_checkpoints.write_checkpoint(tmp_path, kind)

    def named(images, segments):
        encoder = ClipEncoder(kind, str(tmp_path), image_size=16)
        names = Namer(encoder).for_classes(["cat", "sofa", "disc"], None, images.device)(images, segments)
        return names.labels, names.classes

    compare(accelerator, named, random(2, 3, 16, 16), numbers(3, 2, 16, 16))


def test_coherence_is_the_hosts(accelerator):
    generator = np.random.default_rng(0)
    options = SamplingOptions(patches=10, pairs="both")
    grids = {f"i{n}": PatchGrid(generator.integers(0, 3, (5, 5)), np.ones((5, 5))) for n in range(4)}
    plan = make_plan(grids, draw_pairs(list(grids), options), None, options)
    features = [random(len(labels), 6, seed=n) - 0.5 for n, labels in enumerate(plan.labels)]
    there = uploaded(features)
    accelerator.taken()
    assert np.array_equal(pair_scores(there, plan), pair_scores(features, plan))
    assert accelerator.taken().crossings.total() == 1  # for all pairs
    grid = random(6, 4, 4)
    assert np.array_equal(
        similarity_map(grid[:, 1, 2].to(DEVICE), grid.to(DEVICE)), similarity_map(grid[:, 1, 2], grid)
    )
