"""One stage on the host and on the pretended accelerator: the same results, and what the device was asked to do."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from benchmarks.launches import Counts
from benchmarks.pretended import DEVICE, Pretended
from diffcut_bench.evaluation import number_by_first_pixel


def uploaded(inputs: Any) -> Any:
    """The same with every tensor on the device."""
    return tree_map_only(Tensor, lambda tensor: tensor.to(DEVICE), inputs)


def compare(
    accelerator: Pretended,
    stage: Callable[..., Any],
    *inputs: Any,
    gives: torch.device = DEVICE,
    tolerance: float | None = None,
) -> Counts:
    """Run a stage on its inputs, then on the device on copies of them there; what comes out must be equal.

    Args:
        accelerator: active.
        stage: gives tensors, in lists, tuples and dictionaries.
        inputs: of the host.
        gives: where the device's results are to be.
        tolerance: absolute and relative; None: equal bit for bit.

    Returns:
        What the device was asked to do.
    """
    expected = tree_leaves(stage(*inputs))
    there = uploaded(inputs)
    accelerator.taken()
    found = tree_leaves(stage(*there))
    counts = accelerator.taken()
    assert len(found) == len(expected) > 0
    for ours, theirs in zip(found, expected, strict=True):
        assert isinstance(theirs, Tensor) and theirs.device.type == "cpu"
        assert ours.device == gives
        if tolerance is None:
            assert ours.dtype == theirs.dtype and torch.equal(ours.cpu(), theirs)
        else:
            torch.testing.assert_close(ours.cpu(), theirs, rtol=tolerance, atol=tolerance)
    accelerator.taken()
    return counts


def renumbered(stage: Callable[..., Any]) -> Callable[..., Any]:
    """A stage whose partitions are numbered in the order in which their segments begin: numbers carry no meaning."""

    def run(*inputs: Any) -> Any:
        return [number_by_first_pixel(found.flatten(1)[:, None]) for found in tree_leaves(stage(*inputs))]

    return run


def computed_there(counts: Counts, inputs: Any) -> bool:
    """Whether a stage ran on the device: it launched kernels, and of its inputs next to nothing came to the host."""
    size = sum(tensor.nbytes for tensor in tree_leaves(inputs) if isinstance(tensor, Tensor))
    return counts.kernels.total() > 0 and counts.downloaded_bytes < size / 4
