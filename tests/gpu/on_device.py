"""What the GPU's tests share: the device, real features, and the places where the host waits for the GPU."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import DATA

# Tests that can run on any device run on the CPU where there is no GPU, so that they can't rot.
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
needs_cuda = pytest.mark.skipif(DEVICE.type == "cpu", reason="no GPU")
_WAITED = "called a synchronizing CUDA operation"


def golden() -> dict[str, np.ndarray]:
    """Released partitions of real features [images, 1024, 320]: eight photographs, or one without DIFFCUT_SHARED."""
    place = os.environ.get("DIFFCUT_SHARED")
    if place:
        return dict(np.load(Path(place) / "golden" / "recursive_ncut.npz"))
    return {name: array[None] for name, array in np.load(DATA / "recursive_ncut_coffee.npz").items()}


def real_features(images: int) -> torch.Tensor:
    """Real features [images, 1024, 320] on the CPU, copies where there are not enough."""
    features = torch.from_numpy(golden()["features"]).float()
    return features[torch.arange(images) % len(features)]


@contextmanager
def counted_waits() -> Iterator[list[str]]:
    """Fills the list, when the block ends, with the line of each operation that made the host wait for the GPU."""
    places: list[str] = []
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield places
        finally:
            torch.cuda.set_sync_debug_mode(before)
    places += [f"{Path(each.filename).name}:{each.lineno}" for each in caught if _WAITED in str(each.message)]


@contextmanager
def never_waits() -> Iterator[None]:
    """Within the block an operation that makes the host wait for the GPU is an error."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
