"""The host waits for the GPU once a pass of the cut, and at most once a batch in what follows."""

import warnings
from collections import Counter

import pytest
import torch
from on_device import counted_waits, needs_cuda, never_waits, real_features

from benchmarks.encoder import colour_fields
from diffcut_bench.evaluation import contingency_tables, merge_backgrounds
from diffcut_bench.ncut import ncut_tree
from diffcut_bench.refinement import assign_concepts, pamr

pytestmark = pytest.mark.gpu

_CUDA = torch.device("cuda")
# Beside the passes over open sub-graphs: features are checked before the first one, and tensors of sizes that depend on
# the number of images go up.
_OTHERWISE = 3


@needs_cuda
@pytest.mark.parametrize("images", [1, 8])
@pytest.mark.parametrize("alpha", [5, 10])
def test_the_cut_waits_at_most_once_a_pass(alpha, images, record_property, passes):
    features = real_features(images).to(_CUDA)
    ncut_tree(features, 0.5, alpha)  # libraries are loaded and kernels compiled by the first call
    passes.clear()
    with counted_waits() as places:
        ncut_tree(features, 0.5, alpha)
    record_property(f"host waits of the cut, alpha {alpha}, batch {images}, {len(passes)} passes", len(places))
    assert len(places) <= len(passes) + _OTHERWISE, Counter(places)


@needs_cuda
def test_further_taus_of_a_tree_wait_for_nothing():
    tree = ncut_tree(real_features(8).to(_CUDA), 0.5, 10)
    tree.labels(0.5)
    with never_waits():
        for step in range(1, 20):
            tree.labels(0.5 * step / 20)


@needs_cuda
def test_concept_assignment_waits_at_most_once_a_batch():
    """For the number of segments, which shapes its tensors."""
    features = real_features(8).to(_CUDA)
    partition = ncut_tree(features, 0.5, 5).labels(0.5).unflatten(1, (32, 32))
    maps = features.mT.unflatten(2, (32, 32))
    assign_concepts(maps, partition, (128, 128))
    with counted_waits() as places:
        assign_concepts(maps, partition, (128, 128))
    assert len(places) <= 1, Counter(places)


@needs_cuda
def test_pamr_waits_for_nothing():
    images = colour_fields(8, 128, _CUDA)
    masks = torch.rand(8, 6, 128, 128, device=_CUDA)
    pamr(images, masks)
    with never_waits():
        pamr(images, masks)


@needs_cuda
def test_counting_does_not_wait_for_each_image(record_property):
    source = torch.Generator().manual_seed(0)
    waits = []
    for images in (2, 16):
        prediction = torch.randint(0, 9, (images, 64, 64), generator=source).to(_CUDA)
        labels = torch.randint(-1, 5, (images, 64, 64), generator=source).to(_CUDA)
        with counted_waits() as places:
            merged = merge_backgrounds(prediction, labels, 5, 0, "unmatched")
            contingency_tables(merged, labels, 5)
        waits.append(len(places))
    record_property("host waits of background rule and tables, a batch", waits[-1])
    assert waits[1] <= waits[0], Counter(places)


def test_waits_are_counted_by_their_lines(monkeypatch):
    """On any machine: the counting itself."""
    modes: list[object] = [0]
    monkeypatch.setattr("torch.cuda.get_sync_debug_mode", lambda: modes[-1])
    monkeypatch.setattr("torch.cuda.set_sync_debug_mode", modes.append)
    with counted_waits() as places:
        assert modes[-1] == "warn"
        for _ in range(3):
            warnings.warn("called a synchronizing CUDA operation (Triggered internally at …)", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert modes[-1] == 0
    assert len(places) == 3 and len(set(places)) == 1 and places[0].startswith("test_gpu_waiting.py:")
