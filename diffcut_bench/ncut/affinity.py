"""Patch affinity: the weighted graph that the Normalized Cut partitions. Knows tensors only."""

import torch
from jaxtyping import Float
from torch import Tensor

# Cosines of identical float32 features differ by rounding alone; a narrower range than this is no contrast.
_NO_CONTRAST = 1e-5


def cosine_matrix(features: Float[Tensor, "batch nodes channels"]) -> Float[Tensor, "batch nodes nodes"]:
    """Cosine similarity of every pair of patches, in [-1, 1].

    Args:
        features: patch features of each image, any scale.

    Returns:
        The Gram matrix of the channel-normalised features. A patch whose feature is zero has similarity 0
        to every patch, itself included.
    """
    unit = unit_features(features)
    return unit @ unit.transpose(-1, -2)


def unit_features(features: Float[Tensor, "batch nodes channels"]) -> Float[Tensor, "batch nodes channels"]:
    """Each patch's feature at norm 1; zero stays zero."""
    # By a power of two, which rounds nothing, so that neither tiny nor huge features leave the range of their norms.
    exponent = torch.frexp(features.abs().amax(dim=(1, 2), keepdim=True)).exponent
    return torch.nn.functional.normalize(torch.ldexp(features, -exponent), dim=-1)


def cosine_range(
    unit: Float[Tensor, "nodes channels"], tile: int = 2048
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Least and greatest cosine of all pairs of one image, a patch with itself included, without the N×N matrix.

    Args:
        unit: `unit_features` of the image.
        tile: patches of a side of the blocks that are looked at one by one.
    """
    parts = unit.contiguous().split(tile)
    # One buffer for all: blocks of their own, freed between small results, would tear holes in the heap.
    buffer = unit.new_empty(len(parts[0]) ** 2)
    least, most = unit.new_full((), torch.inf), unit.new_full((), -torch.inf)
    for first, rows in enumerate(parts):
        for cols in parts[first:]:
            block = buffer[: len(rows) * len(cols)].view(len(rows), len(cols))
            low, high = torch.mm(rows, cols.T, out=block).aminmax()
            least, most = torch.minimum(least, low), torch.maximum(most, high)
    return least, most


def scaled_cosines(features: Float[Tensor, "batch nodes channels"]) -> Float[Tensor, "batch nodes nodes"]:
    """Cosines of one image scaled so that its least similar pair is exactly 0 and its most similar exactly 1, diagonal
    included; 1 everywhere for an image without contrast (all features equal)."""
    cosines = cosine_matrix(features)
    return scale_cosines_(cosines, cosines.amin(dim=(1, 2), keepdim=True), cosines.amax(dim=(1, 2), keepdim=True))


def scale_cosines_(
    cosines: Float[Tensor, "batch nodes nodes"], least: Float[Tensor, "batch 1 1"], most: Float[Tensor, "batch 1 1"]
) -> Float[Tensor, "batch nodes nodes"]:
    """In place: ``least`` becomes 0 and ``most`` 1; 1 everywhere where they hardly differ."""
    span = most - least
    flat = span <= _NO_CONTRAST
    return cosines.sub_(least).div_(span.masked_fill(flat, 1.0)).masked_fill_(flat, 1.0)


def affinity(features: Float[Tensor, "batch nodes channels"], alpha: float) -> Float[Tensor, "batch nodes nodes"]:
    """Affinity ``W = minmax(cosine) ** alpha`` of DiffCut (Couairon et al., NeurIPS 2024, section 3.2).

    Args:
        features: patch features of each image.
        alpha: exponent, > 0; 10 in the paper. A soft threshold.

    Returns:
        Symmetric affinities in [0, 1]; see `scaled_cosines`.
    """
    return scaled_cosines(features).pow_(alpha)
