"""The mean feature of each segment, by which segments of different images are compared. Knows tensors only."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from diffcut_bench.ncut.affinity import unit_features

_STEPS = 2.0**20  # parts of 1 that unit features are rounded to


def segment_prototypes(
    features: Float[Tensor, "batch channels rows cols"],
    segments: Int[Tensor, "batch height width"],
    present: Bool[Tensor, "batch ids"],
) -> list[Float[Tensor, "segments channels"]]:
    """Mean of the unit features of the patches that a segment lies in, each weighted by the segment's pixels in it,
    and brought to norm 1.

    Pixel (y, x) of height × width lies in patch (⌊y·rows/height⌋, ⌊x·cols/width⌋). Sums are exact, so that neither the
    numbers of segments nor the other images of a batch change a digit.

    Args:
        features: of patches.
        segments: ids from 0.
        present: whose prototypes are wanted, by id; on the host, like what is returned.

    Returns:
        Of each image in ascending order of ids, float16, which moves a cosine by about 1e-5. A segment of zero features
        has a zero.

    Raises:
        ValueError: a feature is not finite.
    """
    if features.device.type == "mps":  # has no float64
        features, segments = features.cpu(), segments.cpu()
    (rows, cols), (height, width) = features.shape[2:], segments.shape[1:]
    counts = present.sum(dim=1)
    most = int(counts.max())
    numbers = (present.cumsum(dim=1) - 1).where(present, most)  # the last one is for all that are not wanted
    numbers = numbers.to(segments.device, non_blocking=True).gather(1, segments.flatten(1))
    down, across = (
        torch.arange(size, device=segments.device) * patches // size
        for size, patches in ((height, rows), (width, cols))
    )
    cells = numbers * (rows * cols) + (down[:, None] * cols + across).flatten()
    pixels = torch.zeros(len(cells), (most + 1) * rows * cols, dtype=torch.float64, device=cells.device)
    pixels.scatter_add_(1, cells, pixels.new_ones(()).expand_as(cells))
    # Whole numbers, whose products and sums float64 holds: in whatever order they are added.
    unit = (unit_features(features.flatten(2).mT) * _STEPS).round().double()
    sums = pixels.unflatten(1, (most + 1, rows * cols))[:, :most] @ unit
    found = normalize(sums, dim=2).half().cpu()
    if not found.isfinite().all():
        raise ValueError("the features of this image are not finite: its segments can't be compared with others")
    return [own[:count] for own, count in zip(found, counts.tolist(), strict=True)]
