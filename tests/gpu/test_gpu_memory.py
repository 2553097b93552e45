"""Memory of a GPU: what the cut takes is what was said, a limit is kept, and too large a batch goes on in halves."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from conftest import same_partition, shapes_overrides
from on_device import DEVICE, needs_cuda

from benchmarks.material import resized
from benchmarks.timing import peak_bytes
from diffcut_bench.config import load_config
from diffcut_bench.ncut import needed_gib, recursive_ncut
from diffcut_bench.scoring.passes import run_cell

pytestmark = pytest.mark.gpu

_GIB = 2**30
_MARGIN = 1.25  # beside matrices of N×N there are vectors, and what libraries work in


def smooth_features(images: int, side: int) -> torch.Tensor:
    """Features [images, side², 64] of few segments, on the device."""
    small = torch.randn(images, 64, 9, 9, generator=torch.Generator().manual_seed(0))
    return resized(small, side).flatten(2).mT.contiguous().to(DEVICE)


def forget_unused() -> None:
    """Give back what nobody holds any more, networks in cycles included."""
    gc.collect()
    torch.cuda.empty_cache()


@contextmanager
def memory_limited_to(size: float) -> Iterator[None]:
    """This process can allocate so many bytes of the GPU more than it holds."""
    forget_unused()
    total = torch.cuda.get_device_properties(DEVICE).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + size) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


@needs_cuda
@pytest.mark.parametrize("side", [80, 128])
def test_the_cut_of_a_large_grid_takes_what_was_predicted(side, record_property):
    features = smooth_features(1, side)
    recursive_ncut(smooth_features(1, 16), 0.5, 5)  # what libraries keep is not the cut's
    peak = peak_bytes(lambda: recursive_ncut(features, 0.5, 5), DEVICE)
    assert peak is not None
    ratio = peak / _GIB / needed_gib(side**2, features.element_size(), "block")
    record_property(f"peak memory of the cut over what was predicted, {side}×{side} patches", ratio)
    assert ratio <= _MARGIN


def test_a_limit_on_memory_is_kept_and_changes_no_partition(record_property):
    features = smooth_features(6, 30 if DEVICE.type == "cpu" else 64)
    limit = 2 * needed_gib(features.shape[1], features.element_size(), "block")  # of two images
    expected = recursive_ncut(features, 0.5, 5)
    found: list[torch.Tensor] = []
    peak = peak_bytes(lambda: found.append(recursive_ncut(features, 0.5, 5, max_memory_gib=limit)), DEVICE)
    assert all(map(same_partition, found[0].cpu(), expected.cpu()))
    if DEVICE.type != "cpu":  # on the CPU the peak holds what the libraries keep
        assert peak is not None
        record_property("peak memory of the cut over max_memory_gib", peak / _GIB / limit)
        assert peak / _GIB <= _MARGIN * limit


@needs_cuda
def test_a_batch_that_does_not_fit_goes_on_in_halves_and_says_so(shapes, tmp_path):
    def run(name: str, batch_size: int) -> object:
        sizes = ("protocol.image_size=1024", "protocol.eval_size=128", "segmenter.tau=0.9")
        words = [*shapes_overrides(shapes, tmp_path / name), *sizes]
        return run_cell(load_config([*words, f"device={DEVICE.type}", "features=memory", f"batch_size={batch_size}"]))

    run("warm", 1)
    forget_unused()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_reserved()
    expected = run("free", 1)
    one = torch.cuda.max_memory_reserved() - held
    with memory_limited_to(1.2 * one), pytest.warns(RuntimeWarning, match=r"too small for \d images at once"):
        found = run("limited", 8)
    # Libraries may take another algorithm where memory is short.
    assert found.result.metrics.miou == pytest.approx(expected.result.metrics.miou, abs=0.02)
    assert not found.result.failures
